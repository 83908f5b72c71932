"""The dense networks beside study_full.py, for a quarter of its updates. Hours on a laptop's CPU.

docs/settings.md takes a learning rate of 1e-3 for IQL; these two names are IQL's alone among the three algorithms.
"""

from dataclasses import replace

from search_spaces.studies.study_full import SWEEP as PRUNED

IQL = {"actor_learning_rate": 1e-3, "critic_learning_rate": 1e-3}

SWEEP = replace(PRUNED, pruners=("dense",), sparsities=(0.0,), updates=250_000, hyper=IQL)
