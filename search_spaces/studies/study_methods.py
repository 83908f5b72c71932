"""Dense networks and nine ways to smaller ones, side by side, at two learning rates (docs/side-by-side.md). A day on a laptop's CPU.

2:4 at half the weights is in study_methods_half.py, another schedule of `sparse_reg` in study_methods_until.py. IMP's
100,000 updates are those of all its trainings together.
"""

from search_spaces.sweep import Sweep

SWEEP = Sweep(
    datasets=("winnow/hopper/medium-v0", "winnow/halfcheetah/expert-v1"),
    algorithms=("bc", "td3_bc", "iql"),
    pruners=("dense", "snip", "random_erk", "rigl", "set", "sparse_reg", "gmp", "imp", "small_dense"),
    sparsities=(0.95,),
    seeds=(0, 1, 2),
    updates=100_000,
    evaluations=10,
    episodes=10,
    final_episodes=50,
    hyper={"learning_rates": (3e-4, 1e-3)},
)
