"""Every algorithm, dense and with 95 % of its weights gone, on two kinds of data: does each still learn? Hours on a laptop's CPU.

ReBRAC's cloning weights are the dataset's, as published: `--set algorithms=rebrac --set published=1`.
"""

from search_spaces.sweep import Sweep
from trainables import plugins

SWEEP = Sweep(
    datasets=("winnow/hopper/expert-v0", "winnow/halfcheetah/medium-v0"),
    algorithms=tuple(plugins.names("algorithms")),
    pruners=("dense", "snip", "random_erk"),
    sparsities=(0.95,),
    seeds=(0, 1, 2),
    updates=10_000,
    evaluations=2,
    episodes=10,
)
