"""What can go wrong, and protections that can be taken away, as functions by name; `install(["die_at=12", "no_cut"])`."""

from __future__ import annotations

from collections.abc import Sequence

import faults
import observation
import protections
from hooks import passed

__all__ = ["install", "passed"]


def install(names: Sequence[str]) -> None:
    """Call a switch's function with what stands behind `=`."""
    for switch in names:
        name, _, argument = switch.partition("=")
        (function,) = (vars(kind)[name] for kind in (faults, observation, protections) if name in vars(kind))
        function(*([argument] if argument else []))
