"""Gradual magnitude pruning (Zhu & Gupta 2017): remove small weights during training. Not single-shot: an upper bound.

It starts dense, so it costs as much as a dense trial until the mask is sparse. Layer budgets are ERK's (random_erk.py): ranking over
layers of different widths would starve the wide ones.
"""

from torch import Tensor

from trainables.pruners import Scored, random_erk

TITLE = "GMP"
WITHOUT_LOSS = True
BEGIN, END, EVENTS = 0.2, 0.8, 100  # the mask changes EVENTS times between these fractions of training

budgets = random_erk.budgets


def mask_schedule(updates: int) -> dict[int, float]:
    """Update -> share of all weights to be removed that are gone from then on: 1 - (1 - x)^3, x from 0 at 20 % to 1 at 80 % of training.

    No change comes later than the last update: with one or two updates, 80 % would round to a change after training."""
    parts = [(event + 1) / EVENTS for event in range(EVENTS)]
    return {min(round(updates * (BEGIN + (END - BEGIN) * x)), updates - 1): 1 - (1 - x) ** 3 for x in parts}


def saliency(network: Scored) -> list[Tensor]:
    """|w| of the weights as trained so far."""
    return [weight.detach().abs() for weight in network.weights]
