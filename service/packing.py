"""Trials to stacks: which trials train together as one batched model."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from itertools import pairwise

from trainables.trial import Stack, Trial, company, shape_of


def pack(trials: Iterable[Trial], size: int, progress: Mapping[str, int] | None = None) -> tuple[Stack, ...]:
    """Stacks of at most `size` trials that agree in shape and, by `progress` (trial key -> update), in where they go on from.

    Trials that fit together are split evenly: ten at `size` 8 make two stacks of five, which end at the same time. Those that
    `auto` would compute another way alone than in each other's company stay apart.
    """
    groups: dict[tuple[str, int, str], list[Trial]] = {}
    for trial in trials:
        groups.setdefault((shape_of(trial), (progress or {}).get(trial.key, 0), company(trial)), []).append(trial)
    stacks = []
    for group in groups.values():
        count = math.ceil(len(group) / size)
        bounds = [len(group) * i // count for i in range(count + 1)]
        stacks += [Stack(tuple(group[a:b])) for a, b in pairwise(bounds)]
    return tuple(stacks)


def smaller(size: int, reason: str) -> int | None:
    """The size of stack to try a failed trial in again, None where it is not tried again: the policy of retries.

    Out of memory: half the size. In company, an input that is wrong for one member fails them all: alone, only that one.
    Infrastructure failures that reach this point have been retried by Ray already.
    """
    if size == 1 or reason == "infrastructure":
        return None
    return size // 2 if reason == "out_of_memory" else 1
