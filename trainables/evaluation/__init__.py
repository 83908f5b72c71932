"""How policies are scored: during training, in another process beside it, and afterwards in gymnasium's own environment."""
