"""Adaptive search: Optuna's studies, and what they found."""
