"""What workers say of their stacks, and for how long they say nothing."""
