"""Winnow: prune once, train offline, at the scale of a grid. The command `winnow` and `import winnow` work in any folder.

    import winnow
    winnow.run("quickstart", {"seeds": (0, 1, 2)})       # or continue it
    winnow.results("quickstart")                         # a data frame with a row per trial
    winnow.cells("quickstart")                           # means with intervals
    winnow.report("quickstart")                          # the page, shown inline in a notebook
    winnow.trial("winnow/hopper/medium-v0", "bc")        # one trial, without a cluster
    policy = winnow.load_policy("storage/trials/<key>")  # observations -> actions, numpy alone

Its names are imported when they are used: the command needs none of them.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from winnow.rooms import claim

if TYPE_CHECKING:
    from search_spaces.sweep import LogRange, Range, Search, Sweep
    from trainables.errors import UserError
    from trainables.policy.policy import load_policy
    from winnow.one import trial
    from winnow.reports import report
    from winnow.sweeps import cells, curves, plan, results, run

claim()

__all__ = [
    "LogRange",
    "Range",
    "Search",
    "Sweep",
    "UserError",
    "cells",
    "curves",
    "load_policy",
    "plan",
    "report",
    "results",
    "run",
    "trial",
]
_PLACES = {
    "search_spaces.sweep": ("LogRange", "Range", "Search", "Sweep"),
    "trainables.errors": ("UserError",),
    "trainables.policy.policy": ("load_policy",),
    "winnow.one": ("trial",),
    "winnow.reports": ("report",),
    "winnow.sweeps": ("cells", "curves", "plan", "results", "run"),
}


def __getattr__(name: str) -> Any:
    if name == "__version__":
        return importlib.import_module("trainables.version").version()
    for module, names in _PLACES.items():
        if name in names:
            return getattr(importlib.import_module(module), name)
    raise AttributeError(f"winnow has no {name!r}; there are: {', '.join(__all__)}")


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
