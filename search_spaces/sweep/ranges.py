"""What makes a sweep adaptive: a Range in place of a tuple of values, and Search, the settings of the search."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from trainables.errors import UserError, unknown
from trainables.trial.numbers import real

# The fields of Search that are words, and their choices.
CHOICES: Mapping[str, tuple[str, ...]] = {
    "objective": ("score", "pareto"),  # the best score, or all that trade score against the actor's effective density
    "sampler": ("tpe", "random"),
    "stop": ("none", "asha", "median"),  # which of Optuna's rules ends members early
}
REDUCTION = 3  # ASHA: one suggestion in three passes each rung
UNSTOPPED = 5  # suggestions that Optuna's median rule lets end before it stops any


@dataclass(frozen=True)
class Range:
    """All numbers from `low` to `high`, ends included; raises UserError for ends that are not numbers or in the wrong order."""

    low: float
    high: float
    log: ClassVar[bool] = False

    def __post_init__(self) -> None:
        for end in (self.low, self.high):
            if isinstance(end, bool) or not isinstance(end, int | float) or not math.isfinite(end):
                raise UserError(f"the end {end!r} of a range is not a number")
        object.__setattr__(self, "low", float(self.low))  # draws are never integers, so neither are the ends
        object.__setattr__(self, "high", float(self.high))
        if self.low >= self.high:
            raise UserError(f"{self}: the low end {self.low:g} is not below the high end {self.high:g}")
        if self.log and self.low <= 0:
            raise UserError(f"{self}: the low end {self.low:g} has no logarithm; it has to be above 0")

    def __str__(self) -> str:
        return f"{type(self).__name__}({self.low:g}, {self.high:g})"


class LogRange(Range):
    """A Range searched evenly in the logarithm: every factor of ten gets the same share."""

    log = True


@dataclass(frozen=True, kw_only=True)
class Search:
    """How an adaptive sweep searches; raises UserError, with the choices, for invalid settings.

    For each dataset and algorithm `suggestions` are tried, each with every seed; the values of
    `objective`, `sampler` and `stop` are in CHOICES.
    No member is stopped before its evaluation number `grace`. The same `seed` draws the same suggestions from the same results.
    """

    suggestions: int = 40
    objective: str = "score"
    sampler: str = "tpe"
    stop: str = "none"
    grace: int = 1
    seed: int = 0

    def __post_init__(self) -> None:
        for name, choices in CHOICES.items():
            if getattr(self, name) not in choices:
                raise unknown(f"{name} of a search", getattr(self, name), choices)
        for name, least in (("suggestions", 1), ("grace", 1), ("seed", 0)):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < least:
                raise UserError(f"{name} {value!r} of a search is not an integer >= {least}")
        if self.objective == "pareto" and self.stop != "none":
            raise UserError(f"stop {self.stop!r} goes with the objective 'score' only: one score decides who is behind")

    def share_trained(self, evaluations: Sequence[int], suggestions: int) -> float:
        """The share of their updates that so many suggestions get, as far as it can be foreseen: of those that reach a rung of ASHA one in
        three goes on, and the median rule stops half of those after the first ones. `evaluations`: the updates after which a trial is
        evaluated."""
        updates, first = evaluations[-1], evaluations[min(self.grace, len(evaluations)) - 1]
        if self.stop == "median":
            stopped = max(0, suggestions - UNSTOPPED) / (2 * max(1, suggestions))
            return 1 - stopped * (1 - first / updates)
        share, going_on, rung = 1.0, 1.0, first
        while self.stop == "asha" and rung < updates:
            at = next(update for update in evaluations if update >= rung)
            share -= going_on * (1 - 1 / REDUCTION) * (1 - at / updates)
            going_on, rung = going_on / REDUCTION, rung * REDUCTION
        return share

    def __str__(self) -> str:
        return f"{self.objective} by {self.sampler}, {self.suggestions} suggestions, stop {self.stop}"


def values_of(value: Any, default: Any) -> tuple[Any, ...]:
    """The values of a hyperparameter's axis; one whose default is a tuple, e.g. `hidden`, needs a tuple of tuples to be an axis."""
    if isinstance(default, tuple):
        is_axis = isinstance(value, tuple) and bool(value) and all(isinstance(v, tuple | list) for v in value)
    else:
        is_axis = isinstance(value, tuple | list)
    values = tuple(value) if is_axis else (value,)
    if not values:
        raise UserError("the grid is empty: a hyperparameter has no value")
    whole = isinstance(default, float)  # 1 and 1.0 are one value, and must be one trial key
    return tuple(real(v) if whole and isinstance(v, int) and not isinstance(v, bool) else v for v in values)
