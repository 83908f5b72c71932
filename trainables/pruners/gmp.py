"""Gradual magnitude pruning (Zhu & Gupta 2017): remove small weights while training goes on. Not single-shot: the upper bound.

Starts dense, so it costs like a dense trial until the mask is sparse. Layer budgets are ERK's (random_erk.py): a ranking over layers of
different widths would starve the wide ones.
"""

from torch import Tensor

from trainables.pruners import Scored, random_erk

TITLE = "GMP"
BEGIN, END, EVENTS = 0.2, 0.8, 100  # of the updates; between them the mask changes so many times

budgets = random_erk.budgets


def mask_schedule(updates: int) -> dict[int, float]:
    """Update -> share of what is to be removed that is gone from then on: 1 - (1 - x)^3, x from 0 at 20 % to 1 at 80 % of the updates.

    The last is the last update's at the latest: of one or two updates, 80 % would round to a change after all training."""
    parts = [(event + 1) / EVENTS for event in range(EVENTS)]
    return {min(round(updates * (BEGIN + (END - BEGIN) * x)), updates - 1): 1 - (1 - x) ** 3 for x in parts}


def saliency(network: Scored) -> list[Tensor]:
    """|w| of the weights as trained so far."""
    return [weight.detach().abs() for weight in network.weights]
