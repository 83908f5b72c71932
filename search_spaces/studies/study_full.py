"""The paper's claim at its own budget: 95 % removed, then a million updates (docs/decisions/036-full-study.md). Hours on a laptop's CPU.

Learning rates and calibration are the defaults, which docs/settings.md takes for all pruned networks.
"""

from search_spaces.sweep import Sweep

SWEEP = Sweep(
    datasets=(
        *(f"winnow/{environment}/{tier}-v1" for environment in ("halfcheetah", "walker2d") for tier in ("medium", "expert")),
        "winnow/hopper/medium-v0",
        "winnow/hopper/expert-v0",
    ),
    algorithms=("bc", "td3_bc", "iql"),
    pruners=("snip", "random_erk"),
    sparsities=(0.95,),
    seeds=(0, 1, 2),
    updates=1_000_000,
    evaluations=20,
    episodes=10,
    final_episodes=100,
)
