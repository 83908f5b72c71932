"""Valid ranges of hyperparameters, as mathematical intervals: `(0, 1]` excludes 0; a bound may be another
hyperparameter's name, or a product of some (`end * updates`).

COMMON applies to every algorithm that has a hyperparameter of that name. A file of algorithms/ or pruners/ may add
`RANGES = {"expectile": "(0, 1)"}`, which takes precedence; like Hyper, it is read from the source, because planning must not import torch.
The bound `updates` of a pruner's setting is the trial's number of updates.
A hyperparameter without an entry only needs its default's type. A range says what makes sense at all, not what is wise.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Mapping
from functools import cache
from typing import Any

from trainables import plugins
from trainables.errors import UserError

COMMON = {
    "batch_size": "[1, 1000000]",
    "learning_rate": "[0, inf)",
    "actor_learning_rate": "[0, inf)",
    "critic_learning_rate": "[0, inf)",
    "discount": "[0, 1]",
    "n_step": "[1, inf)",
    "tau": "[0, 1]",
    "policy_noise": "[0, inf)",
    "noise_clip": "[0, inf)",
    "policy_delay": "[1, inf)",
    "weight_cap": "(0, inf)",
    "log_std_min": "(-inf, log_std_max)",
}


def ranges_of(folder: str, plugin: str) -> dict[str, str]:
    """The intervals of an algorithm's or a pruner's settings that have one."""
    return (COMMON if folder == "algorithms" else {}) | plugins.ranges(folder, plugin)


def check(folder: str, plugin: str, values: Mapping[str, Any], given: Collection[str] | None = None) -> None:
    """Raise UserError, naming value and range, for the first setting of an algorithm or a pruner that is outside its range.

    With `given`, only those settings are checked, and those whose range names one of them: the others are defaults, which nobody chose."""
    for said in outside(folder, plugin, values, given):
        raise UserError(said)


def outside(folder: str, plugin: str, values: Mapping[str, Any], given: Collection[str] | None = None) -> Iterator[str]:
    """What `check` would say of each setting that is outside its range."""
    for name, interval in ranges_of(folder, plugin).items():
        if given is not None and name not in given and not any(part in given for part in _parts(interval)):
            continue
        if name in values and not inside(values[name], interval, values):
            yield f"{plugin}'s {name} {values[name]!r} is outside {interval}{_with(interval, values)}"


def inside(value: float, interval: str, values: Mapping[str, Any]) -> bool:
    """Whether the value lies in `interval`; `values` has the hyperparameters that a bound may name."""
    low, high = (_end(end, values) for end in _ends(interval))
    return (value >= low if interval[0] == "[" else value > low) and (value <= high if interval[-1] == "]" else value < high)


@cache  # of the few intervals that there are, for each of ten thousand trials
def _ends(interval: str) -> tuple[str, ...]:
    return tuple(end.strip() for end in interval[1:-1].split(","))


@cache
def _parts(interval: str) -> tuple[str, ...]:
    """The names and numbers of an interval's ends."""
    return tuple(part.strip() for end in _ends(interval) for part in end.split("*"))


def _end(end: str, values: Mapping[str, Any]) -> float:
    return math.prod(float(values.get(part.strip(), part)) for part in end.split("*"))


def _with(interval: str, values: Mapping[str, Any]) -> str:
    """The hyperparameters that an interval names, with their values, for an error."""
    named = [f"{part} {values[part]!r}" for part in _parts(interval) if part in values]
    return f" with {', '.join(named)}" if named else ""
