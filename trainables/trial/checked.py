"""Many trials at once: of those that differ in nothing but their seeds, one is checked. No torch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from trainables.trial.trial import Trial


class Checked:
    """Makes trials of what `to_json` has written. Short-lived: a plug-in may be edited, and then a trial may make no sense any more."""

    def __init__(self) -> None:
        self._known: dict[str, Trial] = {}

    def from_json(self, value: Mapping[str, Any]) -> Trial:
        """As Trial.from_json; raises UserError as that does."""
        seed = value.get("seed", 0)
        if type(seed) is not int or seed < 0:
            return Trial.from_json(value)
        alike = repr({**value, "seed": 0})  # tells 1, 1.0 and True apart
        if alike not in self._known:
            self._known[alike] = Trial.from_json(value)
        return with_seed(self._known[alike], seed)


def with_seed(trial: Trial, seed: int) -> Trial:
    """The trial with another seed, an integer >= 0, which is all that is checked of it."""
    if type(seed) is not int or seed < 0:
        return Trial(**{**{name: getattr(trial, name) for name in Trial.__dataclass_fields__}, "seed": seed})  # raises
    made = object.__new__(Trial)
    made.__dict__.update(trial.__dict__)
    for name in made.__dict__.keys() - Trial.__dataclass_fields__.keys():  # what it has found out about itself, as its key
        del made.__dict__[name]
    made.__dict__["seed"] = seed
    return made
