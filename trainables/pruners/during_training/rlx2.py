"""RLx2 (Tan et al. 2022, arXiv 2205.15043): RigL with rare changes until the end, and TD targets of several steps after a while.

The changes are RigL's, with the schedule of the authors' code (tyq1024/RLx2). From `n_step_from` on, a share of the updates,
algorithms that have an `n_step` look at least `n_step` steps ahead; for the others (BC, EDAC, SAC-N), this is RigL with that schedule.
Four things differ from that code. It starts from each layer's largest initial weights; here, as in RigL, the first mask is random. It
shrinks its replay buffer where the policy has moved away from the oldest data: a fixed dataset has no oldest data, so there is nothing
to shrink. It counts `delta` in a network's own updates, so that a delayed actor's mask changes half as often; here all masks change
together. And Adam's moments of weights that grow begin at zero here, while that code keeps them.
"""

from __future__ import annotations

from trainables.pruners import random_erk
from trainables.pruners.during_training import rigl

TITLE = "RLx2"
# Updates between changes, the first share replaced, the part of training with changes, the steps of TD targets, and the part of training
# before they are taken: in the authors' code up to update 300,000, of 3,000,000 by default.
SETTINGS = {"delta": 10_000, "zeta": 0.5, "end": 1.0, "n_step": 3, "n_step_from": 0.1}
RANGES = {"end": "(0, 1]", "zeta": "(0, 1]", "delta": "[1, end * updates)", "n_step": "[1, inf)", "n_step_from": "[0, 1]"}

saliency = random_erk.saliency
budgets = random_erk.budgets
growth = rigl.growth


def mask_schedule(updates: int, delta: int, zeta: float, end: float, **_: float) -> dict[int, float]:
    """Update -> share of each layer's kept weights that is replaced, as in RigL."""
    return rigl.mask_schedule(updates, delta, zeta, end)
