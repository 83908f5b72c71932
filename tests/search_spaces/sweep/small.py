"""A small grid, for the tests."""

from __future__ import annotations

from search_spaces.sweep import Sweep

DATA = ("winnow/halfcheetah/expert-v0", "winnow/hopper/medium-v0")


def small(**changes: object) -> Sweep:
    given = {
        "datasets": DATA, "algorithms": ("bc", "td3_bc"), "pruners": ("dense", "snip", "random_erk"),
        "sparsities": (0.8, 0.95), "seeds": (0, 1, 2), "updates": 100,
    }  # fmt: skip
    return Sweep(**(given | changes))
