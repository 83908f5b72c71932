"""The append-only log of each trial, from which MLflow is populated."""
