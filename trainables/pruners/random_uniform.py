"""Random weights, the same density in every layer: the simplest control."""

from torch import Tensor

from trainables.pruners import Scored
from trainables.pruning import ranking

budgets = ranking.even
WITHOUT_LOSS = True


def saliency(network: Scored) -> list[Tensor]:
    """Uniform noise from the member's own stream."""
    return [network.random(layer) for layer in range(len(network.weights))]
