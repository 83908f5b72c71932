"""TD3+BC on medium data, dense against 80, 90, 95 and 99 % removed: some hours on two cores, minutes on a GPU."""

from search_spaces.sweep import Sweep

SWEEP = Sweep(
    datasets=("winnow/halfcheetah/medium-v0",),
    algorithms=("td3_bc",),
    pruners=("dense", "snip", "random_erk"),
    sparsities=(0.8, 0.9, 0.95, 0.99),
    seeds=(0, 1),
    updates=100_000,
    evaluations=5,
)
