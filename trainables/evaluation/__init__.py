"""How policies are scored: during training, beside it in another process, and afterwards in gymnasium's own environment."""
