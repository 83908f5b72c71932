"""SET (Mocanu et al. 2018, "Scalable training of artificial neural networks with adaptive sparse connectivity"): RigL with random growth.

The schedule and its defaults are RigL's, as in Graesser et al. 2022, so that the two differ only in what grows.
"""

from torch import Tensor

from trainables.pruners import Scored, random_erk
from trainables.pruners.during_training import rigl

TITLE = "SET"
WITHOUT_LOSS = True
SETTINGS = {"delta": 1000, "zeta": 0.5, "end": 0.8}
RANGES = {"end": "(0, 1]", "zeta": "(0, 1]", "delta": "[1, end * updates)"}

saliency = random_erk.saliency
budgets = random_erk.budgets
mask_schedule = rigl.mask_schedule


def growth(network: Scored) -> list[Tensor]:
    """Uniform noise from the member's own stream."""
    return [network.random(layer) for layer in range(len(network.weights))]
