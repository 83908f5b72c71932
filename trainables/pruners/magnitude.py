"""Magnitude: keep the largest initial weights; needs no data.

A known trap: with torch's default initialization, a ranking over the whole network starves the wide layers.
"""

from torch import Tensor

from trainables.pruners import Scored

TITLE = "Magnitude"
WITHOUT_LOSS = True


def saliency(network: Scored) -> list[Tensor]:
    """|w|."""
    return [weight.abs() for weight in network.weights]
