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
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

Scores = NDArray[np.float64]
Tasks = Sequence[Scores]
RESAMPLES, CURVE_RESAMPLES = 5_000, 1_000
LEVEL = (2.5, 97.5)  # percentiles
EQUIVALENCE = (5.0, 95.0)  # of the interval that two one-sided tests at 5 % ask for (Schuirmann 1987)


# 97.5 % quantiles of Student's t with 1, 2, ... 60 degrees of freedom; the normal distribution's beyond.
T = (
    12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.160, 2.145, 2.131,
    2.120, 2.110, 2.101, 2.093, 2.086, 2.080, 2.074, 2.069, 2.064, 2.060, 2.056, 2.052, 2.048, 2.045, 2.042,
    2.040, 2.037, 2.035, 2.032, 2.030, 2.028, 2.026, 2.024, 2.023, 2.021, 2.020, 2.018, 2.017, 2.015, 2.014,
    2.013, 2.012, 2.011, 2.010, 2.009, 2.008, 2.007, 2.006, 2.005, 2.004, 2.003, 2.002, 2.002, 2.001, 2.000,
)  # fmt: skip
NORMAL = 1.96
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


def curve_band(table: Scores) -> tuple[Scores, Scores, Scores]:
    """Mean over seeds [seeds, points] and its bootstrap interval, seeds drawn as whole curves; of one seed the interval is nan."""
    if len(table) == 1:
        return table[0], np.full_like(table[0], math.nan), np.full_like(table[0], math.nan)
    (draw,) = _draws((len(table),), CURVE_RESAMPLES)
    low, high = np.percentile(table[draw].mean(axis=1), LEVEL, axis=0)
    return table.mean(axis=0), low, high


def profile(tasks: Tasks, levels: Scores) -> tuple[Scores, Scores, Scores]:
    """The share of runs whose score is above each level, over all seeds of all tasks, and its lower and upper limits level by level, nan
    where a task has one seed."""
    above, count = [np.asarray(task[:, None] > levels, np.float64) for task in tasks], sum(map(len, tasks))
    middle = np.sum([task.sum(axis=0) for task in above], axis=0) / count
    if not _spread(tasks):
        return middle, np.full_like(middle, math.nan), np.full_like(middle, math.nan)
    draws = _draws(tuple(map(len, tasks)), CURVE_RESAMPLES)
    drawn = sum((_counts(draw) @ task for draw, task in zip(draws, above, strict=True)), np.zeros((CURVE_RESAMPLES, len(levels))))
    low, high = np.percentile(drawn / count, LEVEL, axis=0)
    return middle, low, high


def improvement(tasks: Tasks, over: Tasks) -> Estimate:
    """Probability that a run of `tasks` scores above a run of `over` on the same task, ties half, mean over tasks (Mann-Whitney)."""
    both = [*tasks, *over]
    wins = [np.sign(a[:, None] - b[None, :]) for a, b in zip(tasks, over, strict=True)]  # [seeds, dense seeds]
    value, count = float((np.mean([task.mean() for task in wins]) + 1) / 2), sum(map(len, both))
    if not _spread(both):
        return Estimate(value, math.nan, math.nan, count, ONE if len(tasks) == 1 else FEW)
    # Wins are whole numbers, so that counting how often each seed was drawn gives the very mean over all pairs of drawn ones.
    times = [_counts(draw) for draw in _draws(tuple(map(len, both)), RESAMPLES)]
    pairs = zip(times[: len(tasks)], wins, times[len(tasks) :], strict=True)
    shares = [((own @ task) * other).sum(axis=1) / task.size for own, task, other in pairs]
    low, high = np.percentile((np.mean(shares, axis=0) + 1) / 2, LEVEL)
    found = Estimate(value, float(low), float(high), count, EQUAL if high - low < NOISE else "")
    if found.note == EQUAL:  # whichever seeds are drawn, the answer is the same
        certain = {0.0: "all below", 1.0: "all above"} | ({0.5: "all tied"} if len(tasks) == 1 else {})
        return replace(found, low=math.nan, high=math.nan, note=certain.get(found.value, EQUAL))
    return found


def difference(tasks: Tasks, other: Tasks) -> Estimate:
    """Mean over tasks of how far the scores of `tasks` are above those of `other`, with a 90 % interval: where that lies within a margin
    on both sides of 0, the two are equivalent up to that margin at the level of 5 %.

    Of n seeds drawn anew the mean varies (n - 1) / n as much as that of n new seeds: of three, a third too little for that level. So
    scores are taken that lie further from their task's mean by as much."""

    def above(drawn: Tasks) -> Scores:
        return mean_of(drawn[: len(tasks)]) - mean_of(drawn[len(tasks) :])

    found = interval([_widened(task) for task in (*tasks, *other)], above, EQUIVALENCE)
    return replace(found, seeds=sum(len(task) for task in tasks))


def ratio(scores: Scores, dense: Scores) -> Estimate | None:
    """Mean of `scores` over mean of `dense`, paired: both [seeds], of the same seeds, with Student's t interval of what is left of the
    scores after this share of the dense ones. A bootstrap over three seeds would hold the true share in three cases of four.

    None where the dense mean, or one of seeds that are drawn anew, is not above 0: a share of it would mean nothing.
    """
    (seeds,) = _draws((len(dense),), RESAMPLES)
    if dense.mean() <= 0 or dense[seeds].mean(axis=1).min() <= 0:
        return None
    value = float(scores.mean() / dense.mean())
    if len(dense) == 1:
        return Estimate(value, math.nan, math.nan, 1, ONE)
    half = student(len(dense)) * float((scores - value * dense).std(ddof=1)) / math.sqrt(len(dense)) / float(dense.mean())
    return Estimate(value, value - half, value + half, len(dense), EQUAL if 2 * half < NOISE else "")


def student(count: int) -> float:
    """The 97.5 % quantile of Student's t for the mean of `count` >= 2 numbers."""
    return T[count - 2] if count - 2 < len(T) else NORMAL


def _widened(task: Scores) -> Scores:
    """Scores [seeds] of the same mean, whose variance, divided by n, is the unbiased one."""
    seeds = len(task)
    return task.mean() + (task - task.mean()) * math.sqrt(seeds / (seeds - 1)) if seeds > 1 else task


def _spread(tasks: Tasks) -> bool:
    """Whether seeds can be drawn anew in every task; with one seed, drawing would always give that one."""
    return all(task.shape[-1] > 1 for task in tasks)


def _resampled(tasks: Tasks, times: int = RESAMPLES) -> list[Scores]:
    """Every task [seeds] -> [times, seeds], drawn with replacement."""
    return [task[draw] for task, draw in zip(tasks, _draws(tuple(map(len, tasks)), times), strict=True)]


@lru_cache(maxsize=16)
def _draws(seeds: tuple[int, ...], times: int) -> list[NDArray[np.int64]]:
    """For every task, so many seeds with replacement, [times, seeds]: the same ones whenever tasks have these numbers of seeds."""
    random = np.random.default_rng(0)
    return [random.integers(count, size=(times, count)) for count in seeds]


def _counts(draw: NDArray[np.int64]) -> Scores:
    """How often each seed is in a draw: [times, seeds] -> [times, seeds]."""
    return np.asarray((draw[:, :, None] == np.arange(draw.shape[1])).sum(axis=1), np.float64)
