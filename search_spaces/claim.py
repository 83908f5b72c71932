"""The main finding in half an hour of one core: the same algorithm keeps its score on medium data and loses it on expert data."""

from search_spaces.sweep import Sweep

SWEEP = Sweep(
    datasets=("winnow/halfcheetah/medium-v1", "winnow/halfcheetah/expert-v1"),
    algorithms=("bc",),
    pruners=("dense", "snip", "random_erk"),
    sparsities=(0.95,),
    seeds=(0, 1, 2),
    updates=100_000,
    evaluations=5,
    episodes=10,
    final_episodes=50,
)
