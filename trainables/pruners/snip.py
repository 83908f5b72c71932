"""SNIP (Lee, Ajanthan & Torr 2019): keep the connections whose removal would change the loss most, by a single gradient."""

from torch import Tensor

from trainables.pruners import Scored

TITLE = "SNIP"


def saliency(network: Scored) -> list[Tensor]:
    """|w dL/dw|: the gradient of the loss with respect to the mask, at mask = 1."""
    return [(weight * gradient).abs() for weight, gradient in zip(network.weights, network.gradient(), strict=True)]
