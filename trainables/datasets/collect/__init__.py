"""Behaviour policies: train them (the extra `[collect]`), ship them, and record datasets with the shipped ones.

`python -m trainables.datasets.collect --help` has the commands. Recording needs neither jax nor stable-baselines3 nor torch,
and the same policy, seed and machine give the same data to the last bit.
"""
