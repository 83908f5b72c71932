"""IMP, lottery tickets (Frankle & Carbin 2019): train, remove the smallest weights, set the others back to their first values, again.

The trial's updates are those of all its trainings together: with 14 rounds, each of the 15 trainings gets a 15th of them, and at 95 %
a fifth of the weights goes in each round. Not single-shot: the early trainings cost as much as dense. Layer budgets are ERK's, as GMP's.
"""

from trainables.pruners import random_erk
from trainables.pruners.during_training import gmp

TITLE = "IMP"
WITHOUT_LOSS = True
REWINDS = True
SETTINGS = {"rounds": 14}
RANGES = {"rounds": "[1, updates)"}

budgets = random_erk.budgets
saliency = gmp.saliency


def mask_schedule(updates: int, rounds: int) -> dict[int, float]:
    """Update -> the share of the rounds that are over from then on; with fewer updates than trainings, several are over at once."""
    return {min(round(updates * (turn + 1) / (rounds + 1)), updates - 1): (turn + 1) / rounds for turn in range(rounds)}
