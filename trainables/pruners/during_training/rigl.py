"""RigL (Evci et al. 2020, "Rigging the Lottery"): replace the smallest weights by those with the largest gradients, during training.

It starts from a random ERK mask and keeps each layer's number of weights. The share that is replaced falls along a cosine. The defaults
are those of Graesser et al. 2022 for MuJoCo (google-research/rigl, rl/tfagents/configs). There, a change takes the place of an update;
here the update follows it.
"""

import math

from torch import Tensor

from trainables.pruners import Scored, random_erk

TITLE = "RigL"
SETTINGS = {"delta": 1000, "zeta": 0.5, "end": 0.8}  # updates between changes, the first share replaced, the part of training with changes
RANGES = {"end": "(0, 1]", "zeta": "(0, 1]", "delta": "[1, end * updates)"}

saliency = random_erk.saliency
budgets = random_erk.budgets


def mask_schedule(updates: int, delta: int, zeta: float, end: float) -> dict[int, float]:
    """Update -> share of each layer's kept weights that is replaced: zeta/2 (1 + cos(pi t / T)) with T = end x updates."""
    last = end * updates
    return {update: zeta / 2 * (1 + math.cos(math.pi * update / last)) for update in range(delta, math.ceil(last), delta)}


def growth(network: Scored) -> list[Tensor]:
    """|dL/dw| of all weights, masked ones included."""
    return [gradient.abs() for gradient in network.gradient()]
