"""Random weights, the same density in every layer: the simplest control."""

from torch import Tensor

from trainables import masks
from trainables.pruners import Scored

budgets = masks.even
WITHOUT_LOSS = True


def saliency(network: Scored) -> list[Tensor]:
    """Uniform noise from the member's own stream."""
    return [network.random(layer) for layer in range(len(network.weights))]
