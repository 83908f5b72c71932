"""What a storage keeps: what takes up space in it, and what is removed for good."""
