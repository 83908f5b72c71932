"""Commands about one trial."""
