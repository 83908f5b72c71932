"""Commands about this machine and its storage."""
