"""My algorithm and my pruner beside built-in ones: a minute or two on a laptop. `winnow run first`"""

from search_spaces.sweep import Sweep

SWEEP = Sweep(
    datasets=("winnow/hopper/medium-v0",),
    algorithms=("rewarded_bc", "bc"),
    pruners=("dense", "steepest", "snip"),
    sparsities=(0.9,),
    seeds=(0, 1),
    updates=2_000,
    evaluations=2,
)
