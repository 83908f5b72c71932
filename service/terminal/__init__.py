"""What commands show in a terminal, and how they leave it."""
