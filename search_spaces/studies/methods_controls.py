"""Did SNIP's mask do anything? Two algorithms beside their controls, five seeds: a quarter of an hour on a laptop's CPU."""

from search_spaces.sweep import Sweep

SWEEP = Sweep(
    datasets=("winnow/halfcheetah/medium-v0",),
    algorithms=("bc", "td3_bc"),
    pruners=("dense", "snip"),
    sparsities=(0.95,),
    seeds=(0, 1, 2, 3, 4),
    updates=20_000,
    evaluations=1,
    episodes=10,
    controls=True,
)
