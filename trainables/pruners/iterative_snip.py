"""Iterative SNIP (de Jorge et al. 2021, "Progressive Skeletonization"): apply SNIP repeatedly to the network that is left.

Each round uses new calibration batches; a removed weight stays removed. The number of rounds is our choice (naver/force: 10 by default).
"""

from torch import Tensor

from trainables.pruners import Scored, snip

TITLE = "Iterative SNIP"
ROUNDS = 30


def schedule(density: float) -> list[float]:
    """Density after each round: d^(t / T), as in naver/force."""
    return [density ** ((t + 1) / ROUNDS) for t in range(ROUNDS)]


def saliency(network: Scored) -> list[Tensor]:
    """|w dL/dw| of the masked network."""
    return snip.saliency(network)
