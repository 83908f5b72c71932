"""The paper's question (arXiv 2112.15579): how much can be removed before training, by which criterion, with which data?"""

from search_spaces.sweep import Sweep

ENVIRONMENTS = ("halfcheetah", "hopper", "walker2d")
TIERS = ("random", "medium", "medium-replay", "medium-expert", "expert")

SWEEP = Sweep(
    datasets=tuple(f"winnow/{environment}/{tier}-v0" for tier in TIERS for environment in ENVIRONMENTS),
    algorithms=("bc", "td3_bc", "iql"),
    pruners=("dense", "snip", "grasp", "random_erk", "random_uniform", "magnitude", "synflow"),
    sparsities=(0.8, 0.9, 0.95, 0.99),
    seeds=(0, 1, 2, 3, 4),
    updates=1_000_000,
)
