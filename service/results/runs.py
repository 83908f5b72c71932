"""A trial with what became of it, as MLflow knows it: the one value that the quick table, the report and the note are made of."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from service.planning.data_here import SHOWN
from service.results.outcomes import DONE, MEASURES, Outcome, metric_of, outcome
from service.spool.scores import FINAL_RETURN, FINAL_SCORE, RETURN, SCORE, SUCCESS
from service.tracking.reading import RunRow
from trainables.trial import Trial, comparison

TAIL = 0.7  # evaluations after this share of the updates make up the tail
FINAL = {SCORE: FINAL_SCORE, RETURN: FINAL_RETURN}


@dataclass(frozen=True)
class Point:
    """An evaluation: the mean over its episodes after `update`, and what training had cost by then (nan where it is not known).

    flops     of the kept weights
    seconds   the trial's share of its stack's time in updates
    """

    update: int
    score: float
    flops: float
    seconds: float


@dataclass(frozen=True)
class Run:
    """A trial and its outcome. The quick table needs no more; a report reads `points` and `masks` too.

    metric          what `outcome`, `points` and `final` are of
    returns         the mean return of the last evaluation, nan without
    successes       its share of episodes with a success, nan where the environment reports none
    final           the mean over the trial's `final_episodes`, nan without: many episodes of the last policy, none of which chose anything
    dataset_score   the mean score of the dataset's episodes
    data            the hash of the data that it was trained on, empty where that is not known
    apart           its data is another version of the dataset than that of most trials it would be compared with: it has no last score
    alone           the size of the stack is not known, so the seconds of `points` are the whole stack's
    speed           the trial's updates per second while its stack trained, nan where it is not known
    stack           how many trials trained as one model
    """

    trial: Trial
    outcome: Outcome
    points: tuple[Point, ...] = ()
    metric: str = SCORE
    returns: float = float("nan")
    successes: float = float("nan")
    final: float = float("nan")
    dataset_score: float | None = None
    masks: Mapping[str, Mapping[str, Any]] | None = None
    data: str = ""
    apart: bool = False
    alone: bool = False
    speed: float = float("nan")
    stack: float = float("nan")

    @property
    def done(self) -> bool:
        """Whether there is a last score."""
        return not isinstance(self.outcome, str)

    @property
    def state(self) -> str:
        """`done`, or why there is no last score."""
        return self.outcome if isinstance(self.outcome, str) else DONE

    @property
    def last(self) -> float:
        """The score after the last update: the field's protocol. Raises ValueError where there is none."""
        if isinstance(self.outcome, str):
            raise ValueError(f"{self.trial.name} has no last score: {self.outcome}")
        return self.outcome

    @property
    def measure(self) -> str:
        return MEASURES[self.metric]

    @property
    def best(self) -> float:
        """The highest of all evaluations: chosen after the fact, so too high by the luck of its episodes."""
        return max(point.score for point in self.points)

    def after(self, seconds: float) -> float:
        """The score of the first evaluation that comes no earlier than after `seconds` of training; nan where none does, and where times
        are not known."""
        if math.isnan(seconds) or any(math.isnan(point.seconds) for point in self.points):
            return math.nan
        return next((point.score for point in self.points if point.seconds >= seconds), math.nan)

    @property
    def tail(self) -> float:
        """Mean of the evaluations after the first 70 % of the updates: many episodes, of policies near the last one."""
        late = [point.score for point in self.points if point.update > TAIL * self.trial.updates]
        return sum(late) / len(late)


def runs_of(trials: Iterable[Trial], rows: Mapping[str, RunRow]) -> list[Run]:
    """A run per trial, in the order of the trials, whether or not `rows` (by trial key) has it. Comparable runs share one metric and one
    version of their dataset; of a trial that was trained on another version, too, only the run on that one is left, and of one that was
    trained afresh only the fresh copy."""
    trials, comparable = list(trials), dict[str, list[Trial]]()
    groups = [comparison(trial) for trial in trials]
    for group, trial in zip(groups, trials, strict=True):
        comparable.setdefault(group, []).extend([trial] if trial.key in rows else [])
    metrics = {group: metric_of(rows[trial.key] for trial in own) for group, own in comparable.items()}
    versions = {group: _version(own, rows) for group, own in comparable.items()}
    runs = [_run(trial, rows.get(trial.key), metrics[group], versions[group]) for group, trial in zip(groups, trials, strict=True)]
    if any(run.apart for run in runs):
        there = {replace(run.trial, data="").key for run in runs if not run.apart}
        runs = [run for run in runs if not (run.apart and replace(run.trial, data="").key in there)]
    return _one_copy(runs) if any(run.trial.fresh for run in runs) else runs


def _one_copy(runs: Sequence[Run]) -> list[Run]:
    """Of the copies of a trial, which have one seed and so are no further evidence, the last fresh one that is done."""
    best: dict[str, tuple[bool, bool, int]] = {}
    ranks = [(run.done, bool(run.trial.fresh), place) for place, run in enumerate(runs)]
    plain = [replace(run.trial, fresh="").key for run in runs]
    for key, rank in zip(plain, ranks, strict=True):
        best[key] = max(rank, best.get(key, rank))
    return [run for run, key, rank in zip(runs, plain, ranks, strict=True) if best[key] == rank]


def version_notes(runs: Sequence[Run]) -> list[str]:
    """A line for each dataset of which the runs have seen several versions."""
    notes = []
    for dataset in dict.fromkeys(run.trial.dataset for run in runs):
        own = [run for run in runs if run.trial.dataset == dataset and run.data]
        count, left_out = Counter(run.data[:SHOWN] for run in own), sum(run.apart for run in own)
        if len(count) > 1:
            versions = ", ".join(f"{number} on {version}" for version, number in count.most_common())
            apart = f"; {left_out} have no score here, since others of their task are on another" if left_out else ""
            notes.append(f"warning: trials of {dataset} were trained on several versions of its data: {versions}{apart}")
    return notes


def _version(trials: Sequence[Trial], rows: Mapping[str, RunRow]) -> str:
    """The version of the dataset that most of the comparable trials were trained on; of two that are as frequent, the one for which trials
    were trained apart."""
    seen = Counter(data for trial in trials if (data := _data_of(rows[trial.key])))
    apart = {_data_of(rows[trial.key]) for trial in trials if trial.data}
    return max(seen, key=lambda data: (seen[data], data in apart, data), default="")


def _data_of(row: RunRow) -> str:
    return row.tags.get("winnow.dataset_hash", "")


def _run(trial: Trial, row: RunRow | None, metric: str, version: str) -> Run:
    if row is None:
        return Run(trial, outcome(row, metric), metric=metric)
    data = _data_of(row)
    if data and data != version:
        return Run(trial, f"other data {data[:SHOWN]}", metric=metric, data=data, apart=True)
    score = row.tags.get("winnow.dataset_score")
    return Run(
        trial, outcome(row, metric), metric=metric, returns=row.metrics.get(RETURN, float("nan")), data=data,
        successes=row.metrics.get(SUCCESS, float("nan")), final=row.metrics.get(FINAL[metric], float("nan")),
        dataset_score=float(score) if score is not None else None,
    )  # fmt: skip
