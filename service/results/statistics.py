"""The statistics of Agarwal et al. 2021 (rliable), in numpy: IQM, stratified bootstrap, probability of improvement, performance profiles;
and Student's t intervals of means.

A `Tasks` is a list with one array of scores [seeds] per task; tasks may have different numbers of seeds. Resampling draws seeds within
each task. The same scores always give the same intervals.

Means have Student's t intervals, where rliable has the bootstrap's: with the three to five seeds that people run, a bootstrap over seeds
is no wider than these seeds are apart, and holds the true mean in 75 cases of 100 with three of them. The t interval holds it in 95, if the
scores of seeds are about normally distributed. Of policies that sometimes collapse neither does: see docs/decisions/038-intervals.md.

rliable itself is not used: it needs `arch`, which fails on import or holds back pandas, and asks for as many seeds in every task.
tests/service/results/test_statistics.py holds these functions to values that rliable 1.2.0 computed.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

Scores = NDArray[np.float64]
Tasks = Sequence[Scores]
RESAMPLES, CURVE_RESAMPLES = 5_000, 1_000
LEVEL = (2.5, 97.5)  # percentiles
NORMAL = 1.96  # the normal distribution's 97.5 % quantile
ONE, FEW, EQUAL, BOUNDLESS = "one seed", "a task has one seed", "seeds equal", "no bounds"
NOISE = 1e-9  # of rounding, between numbers that are equal


@dataclass(frozen=True)
class Estimate:
    """A number and its 95 % interval; `seeds`: of how many scores, of pairs for a ratio.

    `note`: what to show in place of an interval that would have no width, or no end. `low` and `high` are nan where there is no interval,
    as of one seed.
    """

    value: float
    low: float
    high: float
    seeds: int
    note: str = ""


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


def mean_interval(scores: Sequence[float] | Scores) -> Estimate:
    """Mean of one task's scores [seeds] with its 95 % t interval."""
    return mean_over([np.asarray(scores, np.float64)])


def mean_over(tasks: Tasks) -> Estimate:
    """Mean over tasks of the means over seeds, with its 95 % t interval: of these tasks, for seeds like these."""
    value, count = float(mean_of(tasks)), sum(task.shape[-1] for task in tasks)
    if not _spread(tasks):
        return Estimate(value, math.nan, math.nan, count, _too_few(tasks))
    half = _half(tasks, len(tasks))
    return Estimate(value, value - half, value + half, count, EQUAL if 2 * half < NOISE else "")


def iqm_over(tasks: Tasks) -> Estimate:
    """IQM over all seeds of all tasks with a 95 % interval: of the stratified bootstrap, from scores so much further from their task's mean
    that the interval of a mean would be Student's."""
    value, count = float(iqm_of(tasks)), sum(task.shape[-1] for task in tasks)
    if not _spread(tasks):
        return Estimate(value, math.nan, math.nan, count, _too_few(tasks))
    if count < 4:  # nothing is cut off: it is the mean
        return mean_over([np.concatenate(tasks)])
    few = student(count - len(tasks)) / NORMAL
    low, high = np.percentile(iqm_of(_resampled([_widened(task, few) for task in tasks])), LEVEL)
    return Estimate(value, float(low), float(high), count, EQUAL if high - low < NOISE else "")


def curve_band(table: Scores) -> tuple[Scores, Scores, Scores]:
    """Mean over seeds [seeds, points] and its 95 % t interval at each point; of one seed the interval is nan."""
    middle, seeds = table.mean(axis=0), len(table)
    half = student(seeds - 1) * table.std(axis=0, ddof=1) / math.sqrt(seeds) if seeds > 1 else np.full_like(middle, math.nan)
    return middle, middle - half, middle + half


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
    """Probability that a run of `tasks` scores above a run of `over` on the same task, ties half, mean over tasks (Mann-Whitney).

    Its interval is the bootstrap's, as in rliable: with three seeds it holds the true probability in about nine cases of ten."""
    both = [*tasks, *over]
    wins = [np.sign(a[:, None] - b[None, :]) for a, b in zip(tasks, over, strict=True)]  # [seeds, dense seeds]
    value, count = float((np.mean([task.mean() for task in wins]) + 1) / 2), sum(map(len, both))
    if not _spread(both):
        return Estimate(value, math.nan, math.nan, count, _too_few(tasks))
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


def difference(tasks: Tasks, other: Tasks, level: float = 0.95) -> Estimate:
    """Mean over tasks of how far the scores of `tasks` are above those of `other`, with its t interval (Welch 1947).

    Where that of `level` 0.9 lies within a margin on both sides of 0, the two are equivalent up to that margin: two one-sided tests at 5 %
    (Schuirmann 1987)."""
    both = [*tasks, *other]
    value, count = float(mean_of(tasks) - mean_of(other)), sum(len(task) for task in tasks)
    if not _spread(both):
        return Estimate(value, math.nan, math.nan, count, FEW)
    half = _half(both, len(tasks), (1 + level) / 2)
    return Estimate(value, value - half, value + half, count, EQUAL if 2 * half < NOISE else "")


def ratio(scores: Scores, dense: Scores) -> Estimate | None:
    """Mean of `scores` over mean of `dense`, paired: both [seeds], of the same seeds. Its interval is Fieller's (1954): all shares of
    `dense` from which a paired t test does not tell `scores`.

    None where the dense mean is not above 0 by two of its standard errors: a share of it would mean nothing. Where the dense mean's own t
    interval reaches 0, the share may be arbitrarily high or low, and its interval has no bounds.
    """
    seeds, level = len(dense), float(dense.mean())
    if level <= 0 or (seeds > 1 and level <= NORMAL * dense.std(ddof=1) / math.sqrt(seeds)):
        return None
    value = float(scores.mean()) / level
    if seeds == 1:
        return Estimate(value, math.nan, math.nan, 1, ONE)
    left = scores - value * dense  # after this share of the dense ones
    (own, common), (_, below) = (student(seeds - 1) ** 2 / seeds * np.cov(left, dense)).tolist()
    above = level**2 - below
    if above <= 0:
        return Estimate(value, math.nan, math.nan, seeds, BOUNDLESS)
    middle = -common / above  # of the interval, beside the value
    half = math.sqrt(middle**2 + own / above)
    return Estimate(value, value + middle - half, value + middle + half, seeds, EQUAL if 2 * half < NOISE else "")


@lru_cache(maxsize=256)
def student(freedom: float, level: float = 0.975) -> float:
    """The quantile of Student's t with so many degrees of freedom, which need not be whole."""
    from scipy.special import stdtrit  # a tenth of a second, which only those pay who have several seeds

    return float(stdtrit(freedom, level))


def _half(tasks: Tasks, over: int, level: float = 0.975) -> float:
    """Half of the t interval of a sum of means, divided by `over`; degrees of freedom after Welch and Satterthwaite."""
    parts = [float(task.var(ddof=1)) / len(task) for task in tasks]
    total = sum(parts)
    if total == 0:
        return 0.0
    freedom = total**2 / sum(part**2 / (len(task) - 1) for part, task in zip(parts, tasks, strict=True))
    return student(freedom, level) * math.sqrt(total) / over


def _widened(task: Scores, factor: float) -> Scores:
    """Scores [seeds] of the same mean, from which drawing has factor^2 times the unbiased variance of a mean; of them as they are it has
    (n - 1) / n of it."""
    return task.mean() + (task - task.mean()) * factor * math.sqrt(len(task) / (len(task) - 1))


def _too_few(tasks: Tasks) -> str:
    return ONE if len(tasks) == 1 else FEW


def _spread(tasks: Tasks) -> bool:
    """Whether seeds can be resampled in every task; with one seed, drawing would always give that one."""
    return all(task.shape[-1] > 1 for task in tasks)


def _resampled(tasks: Tasks) -> list[Scores]:
    """Every task [seeds] -> [RESAMPLES, seeds], drawn with replacement."""
    return [task[draw] for task, draw in zip(tasks, _draws(tuple(map(len, tasks)), RESAMPLES), strict=True)]


@lru_cache(maxsize=16)
def _draws(seeds: tuple[int, ...], times: int) -> list[NDArray[np.int64]]:
    """For every task, so many seeds with replacement, [times, seeds]: the same ones whenever tasks have these numbers of seeds."""
    random = np.random.default_rng(0)
    return [random.integers(count, size=(times, count)) for count in seeds]


def _counts(draw: NDArray[np.int64]) -> Scores:
    """How often each seed is in a draw: [times, seeds] -> [times, seeds]."""
    return np.asarray((draw[:, :, None] == np.arange(draw.shape[1])).sum(axis=1), np.float64)
