"""Seconds, for tests and for a new cluster: every part is used once, the scores mean nothing."""

from search_spaces.sweep import Sweep

SWEEP = Sweep(
    datasets=("winnow/hopper/random-v0",),
    algorithms=("bc",),
    pruners=("dense", "snip"),
    sparsities=(0.8,),
    seeds=(0, 1),
    updates=200,
    evaluations=2,
    episodes=2,
)
