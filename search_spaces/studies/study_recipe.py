"""What helps where pruned networks lose most, expert data: rescaling, a higher learning rate, layer normalization? Hours on a laptop."""

from search_spaces.sweep import Sweep

SWEEP = Sweep(
    datasets=("winnow/halfcheetah/expert-v1",),
    algorithms=("bc", "td3_bc"),
    pruners=("snip", "random_erk"),
    sparsities=(0.95,),
    seeds=(0, 1, 2),
    updates=250_000,
    evaluations=10,
    episodes=10,
    final_episodes=50,
    rescale=("none", "layer", "unit"),
    network=("mlp", "layer_norm"),
    hyper={"learning_rates": (3e-4, 1e-3)},
)
