"""FORCE (de Jorge et al. 2021, "Progressive Skeletonization"): prune in rounds, by the gradients of the network pruned so far.

Unlike in iterative SNIP, a masked weight is scored too, with its initial value and the gradient it would get, and may return.
"""

from torch import Tensor

from trainables.pruners import Scored, iterative_snip

TITLE = "FORCE"
REGROWS = True
schedule = iterative_snip.schedule


def saliency(network: Scored) -> list[Tensor]:
    """|w_initial dL/dw|, with the gradient of the masked network, for masked weights too."""
    return [(weight * gradient).abs() for weight, gradient in zip(network.initial, network.gradient(), strict=True)]
