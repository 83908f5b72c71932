"""The reports that run_stack yields. Plain values, no torch: a listener (a progress line, the spool) needs nothing else.

Every list over members has one entry per member of the stack, in the order of `Stack.trials`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Pruned:
    """The masks were made, or have changed since the last report (a pruner that works during training).

    `statistics[k]` maps `mask/<what>/<network>` to a number; `details[k]` has everything else by network (mask_statistics.describe);
    `warnings[k]` are sentences on what makes a network fragile or slow."""

    update: int
    statistics: list[dict[str, float]]
    details: list[dict[str, Any]]
    warnings: list[list[str]]


@dataclass(frozen=True)
class Trained:
    """Losses at `update`: `metrics[k]` maps `train/<what>` to a number; `updates_per_second` is summed over members."""

    update: int
    metrics: list[dict[str, float]]
    updates_per_second: float


@dataclass(frozen=True)
class Evaluated:
    """The E evaluation episodes after `update`: `episodes[k]` maps a quantity to a number per episode, at least `returns`, undiscounted,
    and `scores`, normalized (nan if no reference returns are known). `final`: of the trial's `final_episodes`, after its last
    evaluation. trainables/evaluation/metrics.py makes metrics of them."""

    update: int
    episodes: list[dict[str, list[float]]]
    final: bool = False


@dataclass(frozen=True)
class Checkpointed:
    """All members' state after `update` is on disk: nothing reported so far will be computed again."""

    update: int


@dataclass(frozen=True)
class Diverged:
    """The member's parameters are no longer finite; its stack-mates continue. Its entries in later reports mean nothing."""

    update: int
    member: int
    reason: str


@dataclass(frozen=True)
class Finished:
    """The last update is done; `seconds` is the wall time of this attempt, `execution` how the layers were computed."""

    update: int
    seconds: float
    execution: str


Report = Pruned | Trained | Evaluated | Checkpointed | Diverged | Finished
