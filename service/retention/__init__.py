"""What a storage keeps: what takes room in it, and what is removed for good."""
