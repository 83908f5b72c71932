"""Adaptive search: Optuna's studies and their results."""
