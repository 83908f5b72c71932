"""Trials to stacks: which trials train together as one batched model, and in what size of stack a failed one is tried again."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from itertools import pairwise

from trainables.trial import Stack, Trial, shape_of, stack_mates

RETRIES = 5  # without progress, of a trial whose worker, node or storage failed; it continues from its own checkpoint


def pack(
    trials: Iterable[Trial],
    stack_size: int,
    progress: Mapping[str, int] | None = None,
    limits: Mapping[str, int] | None = None,
    computed_by: tuple[str, str] = ("cpu", "auto"),
) -> tuple[Stack, ...]:
    """Stacks of at most `stack_size` trials that agree in shape and, by `progress` (trial key -> update), in where they continue from.

    `limits` (trial key -> size) holds those to smaller stacks that have failed in larger ones. Trials that fit together are split
    evenly: ten at `stack_size` 8 make two stacks of five, which end at the same time. `computed_by` is device and execution. A CPU's
    `auto` computes some trials another way alone than together with others: these stay apart. On a GPU all members of a stack cost
    what its widest does, so trials of similar sparsity share one.
    """
    groups: dict[tuple[str, int, str, int], list[Trial]] = {}
    for trial in trials:
        limit = min(stack_size, (limits or {}).get(trial.key, stack_size))
        alike = (shape_of(trial), (progress or {}).get(trial.key, 0), stack_mates(trial) if computed_by == ("cpu", "auto") else "", limit)
        groups.setdefault(alike, []).append(trial)
    stacks = []
    for (*_, limit), group in groups.items():
        if computed_by[0] != "cpu":
            group.sort(key=lambda trial: trial.sparsity)
        count = math.ceil(len(group) / limit)
        bounds = [len(group) * i // count for i in range(count + 1)]
        stacks += [Stack(tuple(group[a:b])) for a, b in pairwise(bounds)]
    return tuple(stacks)


def retry(size: int, reason: str, failures: int) -> int | None:
    """The policy of retries: the stack size to try a failed trial in again, None where it is not tried again.

    Infrastructure failures: the same size, up to RETRIES times without progress (`failures` counts them, this one included). Out of
    memory: half the size. Any other failure in a larger stack: alone, since input that is wrong for one member fails them all. A
    superseded trial is left to its new owner.
    """
    if reason == "infrastructure":
        return size if failures <= RETRIES else None
    if size == 1 or reason == "superseded":
        return None
    return size // 2 if reason == "out_of_memory" else 1
