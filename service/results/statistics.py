"""The statistics of Agarwal et al. 2021 (rliable), in numpy: IQM, stratified bootstrap, probability of improvement, performance profiles.

A `Tasks` is a list with one array of scores [seeds] per task; tasks may have different numbers of seeds. Resampling draws seeds within
each task. The same scores always give the same intervals.

rliable itself is not used: it needs `arch`, which fails on import or holds back pandas, and asks for as many seeds in every task.
tests/service/results/test_statistics.py holds these functions to values that rliable 1.2.0 computed.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

Scores = NDArray[np.float64]
Tasks = Sequence[Scores]
RESAMPLES = 5_000
LEVEL = (2.5, 97.5)  # percentiles
EQUIVALENCE = (5.0, 95.0)  # of the interval that two one-sided tests at 5 % ask for (Schuirmann 1987)


ONE, FEW, EQUAL = "one seed", "a task has one seed", "seeds equal"
NOISE = 1e-9  # of rounding, between numbers that are equal


@dataclass(frozen=True)
class Estimate:
    """A number and its 95 % interval; `seeds`: of how many scores, of pairs for a ratio.

    `note`: what to show in place of an interval that would have no width. One seed has no interval, and `low` and `high` are nan.
    """

    value: float
    low: float
    high: float
    seeds: int
    note: str = ""

    @property
    def mean(self) -> float:
        """The value, where it is a mean."""
        return self.value


def iqm(scores: Scores) -> Scores:
    """Interquartile mean over the last axis: a quarter of the values, rounded down, is cut off at either end; of less than 4 the mean."""
    cut = scores.shape[-1] // 4
    ordered = np.sort(scores, axis=-1)
    return np.asarray(ordered[..., cut : scores.shape[-1] - cut].mean(axis=-1))


def mean_of(tasks: Tasks) -> Scores:
    """Mean over tasks of the means over seeds; tasks [..., seeds] -> [...]."""
    return np.asarray(np.mean([task.mean(axis=-1) for task in tasks], axis=0))


def iqm_of(tasks: Tasks) -> Scores:
    """IQM over all seeds of all tasks together; tasks [..., seeds] -> [...]."""
    return iqm(np.concatenate(tasks, axis=-1))


def interval(tasks: Tasks, statistic: Callable[[Tasks], Scores], level: tuple[float, float] = LEVEL) -> Estimate:
    """`statistic` of the tasks with its percentile interval, by default of 95 %, by the stratified bootstrap."""
    value, count = float(statistic(tasks)), sum(task.shape[-1] for task in tasks)
    if not _spread(tasks):
        return Estimate(value, math.nan, math.nan, count, ONE if len(tasks) == 1 else FEW)
    low, high = np.percentile(statistic(_resampled(tasks)), level)
    return Estimate(value, float(low), float(high), count, EQUAL if high - low < NOISE else "")


def mean_interval(scores: Sequence[float] | Scores) -> Estimate:
    """Mean of one task's scores [seeds] with its 95 % percentile bootstrap interval."""
    return interval([np.asarray(scores, np.float64)], mean_of)


def band(tasks: Tasks, statistic: Callable[[Tasks], Scores]) -> tuple[Scores, Scores, Scores]:
    """The same for a statistic that is a curve, [..., points]: the curve, and its lower and upper limits point by point, nan for one
    seed."""
    if not _spread(tasks):
        middle = statistic(tasks)
        return middle, np.full_like(middle, math.nan), np.full_like(middle, math.nan)
    low, high = np.percentile(statistic(_resampled(tasks, 1000)), LEVEL, axis=0)
    return statistic(tasks), low, high


def profile(levels: Scores) -> Callable[[Tasks], Scores]:
    """A statistic: the share of runs whose score is above each level, over all seeds of all tasks; [..., levels]."""

    def share(tasks: Tasks) -> Scores:
        pooled = np.concatenate(tasks, axis=-1)
        return np.stack([(pooled > level).mean(axis=-1) for level in levels], axis=-1)

    return share


def improvement(tasks: Tasks, over: Tasks) -> Estimate:
    """Probability that a run of `tasks` scores above a run of `over` on the same task, ties half, mean over tasks (Mann-Whitney)."""
    both = [*tasks, *over]

    def share(drawn: Tasks) -> Scores:
        pairs = zip(drawn[: len(tasks)], drawn[len(tasks) :], strict=True)
        wins = [np.sign(a[..., :, None] - b[..., None, :]).mean(axis=(-2, -1)) for a, b in pairs]
        return np.asarray((np.mean(wins, axis=0) + 1) / 2)

    found = interval(both, share)
    if not _spread(both):
        return replace(found, note=ONE if len(tasks) == 1 else FEW)
    if found.note == EQUAL:  # whichever seeds are drawn, the answer is the same
        certain = {0.0: "all below", 1.0: "all above"} | ({0.5: "all tied"} if len(tasks) == 1 else {})
        return replace(found, low=math.nan, high=math.nan, note=certain.get(found.value, EQUAL))
    return found


def difference(tasks: Tasks, other: Tasks) -> Estimate:
    """Mean over tasks of how far the scores of `tasks` are above those of `other`, with a 90 % interval: where that lies within a margin
    on both sides of 0, the two are equivalent up to that margin at the level of 5 %."""

    def above(drawn: Tasks) -> Scores:
        return mean_of(drawn[: len(tasks)]) - mean_of(drawn[len(tasks) :])

    found = interval([*tasks, *other], above, EQUIVALENCE)
    return replace(found, seeds=sum(len(task) for task in tasks))


def ratio(scores: Scores, dense: Scores) -> Estimate | None:
    """Mean of `scores` over mean of `dense`, paired: both [seeds], of the same seeds, which are drawn together.

    None where the dense mean, or a resampled one, is not above 0: a share of it would mean nothing.
    """
    seeds = np.random.default_rng(0).integers(len(dense), size=(RESAMPLES, len(dense)))
    below = dense[seeds].mean(axis=1)
    if dense.mean() <= 0 or below.min() <= 0:
        return None
    value = float(scores.mean() / dense.mean())
    if len(dense) == 1:
        return Estimate(value, math.nan, math.nan, 1, ONE)
    low, high = np.percentile(scores[seeds].mean(axis=1) / below, LEVEL)
    return Estimate(value, float(low), float(high), len(dense), EQUAL if high - low < NOISE else "")


def _spread(tasks: Tasks) -> bool:
    """Whether seeds can be drawn anew in every task; with one seed, drawing would always give that one."""
    return all(task.shape[-1] > 1 for task in tasks)


def _resampled(tasks: Tasks, times: int = RESAMPLES) -> list[Scores]:
    """Every task [seeds] -> [times, seeds], drawn with replacement."""
    random = np.random.default_rng(0)
    return [task[random.integers(len(task), size=(times, len(task)))] for task in tasks]
