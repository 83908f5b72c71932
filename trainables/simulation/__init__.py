"""Environments stepped fast: the simulation itself, and the evaluator that plays episodes of many policies at once."""
