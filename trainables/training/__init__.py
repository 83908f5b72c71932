"""Updates, checkpoints and memory: everything between the first update and the last."""
