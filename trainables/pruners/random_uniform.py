"""Random (uniform): random weights with the same density in every layer, the simplest control."""

from torch import Tensor

from trainables.pruners import Scored
from trainables.pruning import ranking

TITLE = "Random (uniform)"
WITHOUT_LOSS = True
EVEN = True  # so a structure, which takes the place of layer budgets, may go with it
budgets = ranking.even


def saliency(network: Scored) -> list[Tensor]:
    """Uniform noise from the member's own stream."""
    return [network.random(layer) for layer in range(len(network.weights))]
