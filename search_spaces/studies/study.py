"""A first study on data recorded here: two tiers of three environments, three algorithms. Most of a day on a laptop's CPU."""

from search_spaces.sweep import Sweep

SWEEP = Sweep(
    datasets=tuple(
        f"winnow/{environment}/{tier}-v0" for environment in ("halfcheetah", "hopper", "walker2d") for tier in ("medium", "expert")
    ),
    algorithms=("bc", "td3_bc", "iql"),
    pruners=("dense", "snip", "random_erk"),
    sparsities=(0.9, 0.95, 0.98),
    seeds=(0, 1, 2),
    updates=50_000,
    evaluations=5,
    episodes=10,
    final_episodes=50,
)
