"""FORCE (de Jorge et al. 2021, "Progressive Skeletonization"): prune in rounds for the gradients of the network that will be left.

Unlike iterative SNIP, a weight that was masked is scored with its initial value and the gradient it would get, and may return.
"""

from torch import Tensor

from trainables.pruners import Scored, iterative_snip

TITLE = "FORCE"
REGROWS = True
schedule = iterative_snip.schedule


def saliency(network: Scored) -> list[Tensor]:
    """|w_initial dL/dw| with the gradient of the masked network, also where the mask is 0."""
    return [(weight * gradient).abs() for weight, gradient in zip(network.initial, network.gradient(), strict=True)]
