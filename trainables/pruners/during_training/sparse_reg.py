"""Sparse-Reg (Arnob et al. 2025, arXiv 2506.17155; SaminYeasar/sparse_reg): SNIP, scored again on the current weights during training.

Each time, all weights compete: those that are masked have the values with which they were masked. The defaults are those of the authors'
code, for a million updates.
"""

from trainables.pruners import snip

TITLE = "Sparse-Reg"
RESCORES = True
SETTINGS = {"delta": 1000, "until": 200000}  # updates between two scorings, and the update from which the mask stays
RANGES = {"delta": "[1, updates)", "until": "(delta, inf)"}

saliency = snip.saliency


def mask_schedule(updates: int, delta: int, until: int) -> dict[int, float]:
    """The updates ahead of which all weights are scored again; the share, 1, says that all are."""
    return dict.fromkeys(range(delta, min(until, updates), delta), 1.0)
