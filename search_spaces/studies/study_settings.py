"""Which settings the full study uses for pruned networks (docs/decisions/023-which-settings.md). Half a day on a laptop's CPU."""

from search_spaces.sweep import Sweep

SWEEP = Sweep(
    datasets=("winnow/halfcheetah/medium-v1", "winnow/halfcheetah/expert-v1", "winnow/walker2d/medium-v1"),
    algorithms=("bc", "td3_bc", "iql"),
    pruners=("snip", "random_erk"),
    sparsities=(0.95,),
    seeds=(0, 1),
    updates=250_000,
    evaluations=10,
    episodes=10,
    final_episodes=50,
    calibration_batches=(1, 16),
    hyper={"learning_rates": (3e-4, 1e-3)},
)
