"""Runs grouped into tasks (what may be compared) and cells (a method at a sparsity), with their statistics."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from service.report import statistics
from service.report.runs import DONE, Run
from service.report.statistics import Estimate, Scores
from trainables.trial import Trial, comparison

DENSE = ("dense", 0.0)
CLAIM = 0.97  # of the dense score, at 95 % sparsity
CLAIMED_AT = 0.95
Place = tuple[str, float]  # method, sparsity


@dataclass(frozen=True)
class Cell:
    """A method at a sparsity on one task: its runs, one a seed, the dense ones of the task beside them."""

    method: str
    sparsity: float
    runs: tuple[Run, ...]
    dense: tuple[Run, ...]

    @property
    def name(self) -> str:
        return self.method if (self.method, self.sparsity) == DENSE else f"{self.method} {100 * self.sparsity:g} %"

    @cached_property
    def done(self) -> list[Run]:
        return [run for run in self.runs if run.outcome == DONE]

    @property
    def absent(self) -> dict[str, int]:
        """How many seeds have no final score, by what became of them."""
        return dict(Counter(run.outcome for run in self.runs if run.outcome != DONE))

    @property
    def absence(self) -> str:
        return ", ".join(f"{count} {what}" for what, count in self.absent.items())

    def scores(self, measure: Callable[[Run], float] = lambda run: run.last) -> Scores:
        """One number per finished seed."""
        return np.array([measure(run) for run in self.done])

    @cached_property
    def mean(self) -> Estimate | None:
        return statistics.interval([self.scores()], statistics.mean_of) if self.done else None

    @cached_property
    def iqm(self) -> Estimate | None:
        return statistics.interval([self.scores()], statistics.iqm_of) if self.done else None

    @cached_property
    def improvement(self) -> Estimate | None:
        """Probability of scoring above dense."""
        below = np.array([run.last for run in self.dense if run.outcome == DONE])
        return statistics.improvement([self.scores()], [below]) if self.done and len(below) and self.method != "dense" else None

    @cached_property
    def retained(self) -> Estimate | None:
        """Score over the dense score, paired by seed; None without common seeds, and where dense is not above 0."""
        if self.method == "dense":
            return None
        dense = {run.trial.seed: run.last for run in self.dense if run.outcome == DONE}
        pairs = [(run.last, dense[run.trial.seed]) for run in self.done if run.trial.seed in dense]
        return statistics.ratio(*np.array(pairs).T) if pairs else None


@dataclass(frozen=True)
class Task:
    """One dataset, algorithm, budget and set of hyperparameters."""

    name: str
    detail: str
    trial: Trial
    measure: str
    cells: dict[Place, Cell]

    @property
    def dense(self) -> Cell | None:
        return self.cells.get(DENSE)

    @property
    def environment(self) -> str:
        return self.trial.dataset.split("/")[-2] if self.trial.dataset.count("/") else self.trial.dataset

    @property
    def tier(self) -> str:
        return self.trial.dataset.split("/")[-1].rsplit("-v", 1)[0]

    def of(self, method: str) -> list[Cell]:
        """The cells of a method, the densest first."""
        return [self.cells[place] for place in sorted(self.cells, key=lambda place: place[1]) if place[0] == method]


@dataclass(frozen=True)
class Aggregate:
    """A method at a sparsity over the tasks where every seed has a score; `left_out` names the others."""

    method: str
    sparsity: float
    tasks: tuple[str, ...]
    left_out: tuple[str, ...]
    mean: Estimate
    iqm: Estimate
    improvement: Estimate | None


def tasks_of(runs: Sequence[Run]) -> list[Task]:
    """Group runs by what may be compared; a name that two tasks would share is followed by what tells them apart."""
    groups: dict[str, list[Run]] = {}
    for run in runs:
        groups.setdefault(comparison(run.trial), []).append(run)
    alike: dict[str, list[Trial]] = {}
    for group in groups.values():
        alike.setdefault(_name(group[0].trial), []).append(group[0].trial)
    found = []
    for group in groups.values():
        trial = group[0].trial
        apart = _apart(trial, alike[_name(trial)])
        found.append(_task(", ".join([_name(trial), *apart]), ", ".join(_details(trial)), group))
    return sorted(found, key=lambda task: task.name)


def methods_of(tasks: Sequence[Task]) -> list[str]:
    """All methods but dense, in a fixed order: colours follow it in every figure."""
    return sorted({method for task in tasks for method, _ in task.cells if method != "dense"})


def places_of(tasks: Sequence[Task]) -> list[Place]:
    """All (method, sparsity), dense first."""
    return sorted({place for task in tasks for place in task.cells}, key=lambda place: (place != DENSE, place))


def aggregates(tasks: Sequence[Task]) -> list[Aggregate]:
    """Over tasks, with seeds drawn within tasks; only normalized scores, and only tasks without an absent seed."""
    own = [task for task in tasks if task.measure == "normalized score"]
    found = []
    for method, sparsity in places_of(own):
        there = [task for task in own if (method, sparsity) in task.cells]
        whole = [task for task in there if not task.cells[method, sparsity].absent]
        if not whole:
            continue
        scores = [task.cells[method, sparsity].scores() for task in whole]
        pairs = [(task.cells[method, sparsity].scores(), task.dense.scores()) for task in whole if task.dense and task.dense.done]
        better = statistics.improvement(*zip(*pairs, strict=True)) if pairs and method != "dense" else None
        names, left_out = tuple(t.name for t in whole), tuple(t.name for t in there if t not in whole)
        mean, middle = (statistics.interval(scores, statistic) for statistic in (statistics.mean_of, statistics.iqm_of))
        found.append(Aggregate(method, sparsity, names, left_out, mean, middle, better))
    return found


def claim(tasks: Sequence[Task], sparsity: float = CLAIMED_AT) -> list[str]:
    """The paper's claim counted: a line for all cells at a sparsity, then one for each method where there are several.

    A cell whose seeds diverged has not kept its score; one that is not finished, or has no dense score above 0, is not counted.
    """
    cells = [cell for task in tasks for cell in task.cells.values() if cell.method != "dense" and cell.sparsity == sparsity]
    if not cells:
        return [f"at {100 * sparsity:g} %: no cell"]
    methods = sorted({cell.method for cell in cells})
    parts = [("", cells), *((f"  {m}", [cell for cell in cells if cell.method == m]) for m in methods if len(methods) > 1)]
    return [_count(name, own, sparsity) for name, own in parts]


def _count(name: str, cells: Sequence[Cell], sparsity: float) -> str:
    diverged = [cell for cell in cells if any("divergence" in what for what in cell.absent)]
    judged = [cell for cell in cells if cell not in diverged and not cell.absent and cell.retained]
    kept = [cell for cell in judged if cell.retained and cell.retained.value >= CLAIM]
    sure = [cell for cell in kept if cell.retained and cell.retained.low >= CLAIM and len(cell.done) > 1]
    rest = len(cells) - len(judged) - len(diverged)
    where = f"{name}, " if name else ""
    text = f"{where}at {100 * sparsity:g} %: {len(kept)} of {len(judged) + len(diverged)} cells retain >= {100 * CLAIM:g} % of dense"
    notes = [f"{len(sure)} with their whole interval"] if kept else []
    notes += [f"{len(diverged)} diverged"] if diverged else []
    notes += [f"{rest} more not counted: incomplete, or no dense score above 0"] if rest else []
    return f"{text} ({'; '.join(notes)})" if notes else text


def _name(trial: Trial) -> str:
    return f"{'-'.join(trial.dataset.rsplit('-v', 1)[0].split('/')[-2:])} {trial.algorithm}"


def _details(trial: Trial) -> list[str]:
    return [trial.dataset, f"{trial.updates:,} updates", *(f"{name} {value}" for name, value in trial.hyper.items())]


def _apart(trial: Trial, others: Sequence[Trial]) -> list[str]:
    """What tells a trial's task from others of its name; the one that has only what they all have is `plain`."""
    if len(others) == 1:
        return []
    common = set.intersection(*(set(_facts(other)) for other in others))
    return [part for part in _facts(trial) if part not in common] or ["plain"]


def _facts(trial: Trial) -> list[str]:
    """All that two tasks can differ in but the algorithm."""
    rest = ("evaluations", "episodes", "calibration_batches", "calibration_size")
    return [*_details(trial), *(f"{name} {getattr(trial, name)}" for name in rest)]


def _task(name: str, detail: str, group: Sequence[Run]) -> Task:
    places: dict[Place, list[Run]] = {}
    for run in sorted(group, key=lambda run: run.trial.seed):
        places.setdefault((run.trial.method, run.trial.sparsity), []).append(run)
    dense = tuple(places.get(DENSE, ()))
    measures = Counter(run.measure for run in group if run.points)
    measure = measures.most_common(1)[0][0] if measures else "normalized score"
    cells = {place: Cell(*place, tuple(places[place]), dense) for place in sorted(places, key=lambda p: (p != DENSE, p))}
    return Task(name, detail, group[0].trial, measure, cells)
