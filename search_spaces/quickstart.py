"""The first look, minutes on a laptop: behaviour cloning on expert data, dense against 80, 95 and 99 % of the weights removed."""

from search_spaces.sweep import Sweep

SWEEP = Sweep(
    datasets=("winnow/halfcheetah/expert-v0",),
    algorithms=("bc",),
    pruners=("dense", "snip", "random_erk"),
    sparsities=(0.8, 0.95, 0.99),
    seeds=(0, 1),
    updates=20_000,
    evaluations=4,
    episodes=10,
)
