"""Keep the largest initial weights; needs no data. With torch's default init a global ranking starves the wide layers (a known trap)."""

from torch import Tensor

from trainables.pruners import Scored

TITLE = "Magnitude"
WITHOUT_LOSS = True


def saliency(network: Scored) -> list[Tensor]:
    """|w|."""
    return [weight.abs() for weight in network.weights]
