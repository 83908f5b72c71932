"""Keep the weights with the steepest loss, whatever their size: SNIP without the factor w."""

from torch import Tensor

from trainables.pruners import Scored


def saliency(network: Scored) -> list[Tensor]:
    """|dL/dw|."""
    return [gradient.abs() for gradient in network.gradient()]
