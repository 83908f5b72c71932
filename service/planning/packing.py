"""Trials to stacks: which trials train together as one batched model, and in what size of stack a failed one is tried again."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from itertools import pairwise

from trainables.trial import Stack, Trial, company, shape_of

RETRIES = 5  # in a row, of a trial whose worker, node or storage failed; it goes on from its own checkpoint


def pack(
    trials: Iterable[Trial],
    size: int,
    progress: Mapping[str, int] | None = None,
    most: Mapping[str, int] | None = None,
    place: tuple[str, str] = ("cpu", "auto"),
) -> tuple[Stack, ...]:
    """Stacks of at most `size` trials that agree in shape and, by `progress` (trial key -> update), in where they go on from.

    `most` holds those to smaller stacks that have failed in larger ones, by trial key. Trials that fit together are split evenly: ten
    at `size` 8 make two stacks of five, which end at the same time. Where `place`, device and execution, is a CPU's
    `auto`, those that it would compute another way alone than in each other's company stay apart. On a GPU all members of a stack
    cost what its widest does, so those of like sparsity share one.
    """
    groups: dict[tuple[str, int, str, int], list[Trial]] = {}
    for trial in trials:
        limit = min(size, (most or {}).get(trial.key, size))
        alike = (shape_of(trial), (progress or {}).get(trial.key, 0), company(trial) if place == ("cpu", "auto") else "", limit)
        groups.setdefault(alike, []).append(trial)
    stacks = []
    for (*_, limit), group in groups.items():
        if place[0] != "cpu":
            group.sort(key=lambda trial: trial.sparsity)
        count = math.ceil(len(group) / limit)
        bounds = [len(group) * i // count for i in range(count + 1)]
        stacks += [Stack(tuple(group[a:b])) for a, b in pairwise(bounds)]
    return tuple(stacks)


def retry(size: int, reason: str, failures: int) -> int | None:
    """The size of stack to try a failed trial in again, None where it is not tried again: the policy of retries.

    Infrastructure: the same stack, unless it has failed so RETRIES times before (`failures`, this one counted) without getting any
    further. Out of memory: half the size. Any other failure, in company: alone, since an input that is wrong for one member fails them
    all. What has another owner now is left to that one.
    """
    if reason == "infrastructure":
        return size if failures <= RETRIES else None
    if size == 1 or reason == "superseded":
        return None
    return size // 2 if reason == "out_of_memory" else 1
