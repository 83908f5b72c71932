"""Runs grouped into tasks (what may be compared) and cells (a method at a sparsity), with their statistics."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from service.results import statistics
from service.results.outcomes import DONE
from service.results.report.gather import Run
from service.results.statistics import Estimate, Scores
from trainables import plugins
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

    @property
    def label(self) -> str:
        """The name, and how many of its seeds there are where some are absent: what a figure calls it."""
        return f"{self.name} {len(self.done)}/{len(self.runs)}" if self.absent else self.name

    @property
    def control(self) -> bool:
        """Whether it is there for others to be held against: shuffled, drawn again, or a small dense network."""
        trial = self.runs[0].trial
        return trial.control != "none" or "shrink" in plugins.defines("pruners", trial.pruner)

    @cached_property
    def done(self) -> list[Run]:
        return [run for run in self.runs if run.outcome == DONE]

    @property
    def absent(self) -> dict[str, int]:
        """How many seeds have no last score, by what became of them."""
        return dict(Counter(run.outcome for run in self.runs if run.outcome != DONE))

    @property
    def absence(self) -> str:
        return _counted(run.outcome for run in self.runs if run.outcome != DONE)

    @cached_property
    def pairs(self) -> list[tuple[float, float]]:
        """(score, dense score) of every seed that has both."""
        dense = {run.trial.seed: run.last for run in self.dense if run.outcome == DONE}
        return [(run.last, dense[run.trial.seed]) for run in self.done if run.trial.seed in dense]

    @property
    def unpaired(self) -> str:
        """Why seeds of this cell have no dense score beside them, empty where all have one."""
        dense = {run.trial.seed: run.outcome for run in self.dense}
        return _counted(what for run in self.runs if (what := dense.get(run.trial.seed, "not in the sweep")) != DONE)

    @property
    def whole(self) -> bool:
        """Whether every planned seed has a score and a dense score beside it."""
        return len(self.pairs) == len(self.runs)

    def scores(self, measure: Callable[[Run], float] = lambda run: run.last) -> Scores:
        """One number per finished seed."""
        return np.array([measure(run) for run in self.done])

    def estimate(self, measure: Callable[[Run], float]) -> Estimate | None:
        """Mean over the finished seeds of any number that a run has."""
        return statistics.interval([self.scores(measure)], statistics.mean_of) if self.done else None

    @cached_property
    def mean(self) -> Estimate | None:
        return self.estimate(lambda run: run.last)

    @cached_property
    def returns(self) -> Estimate | None:
        """The mean return of the last evaluation."""
        return self.estimate(lambda run: run.returns)

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
        return statistics.ratio(*np.array(self.pairs).T) if self.pairs and self.method != "dense" else None


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
    """A method at a sparsity over the tasks of its comparison: those where each method at that sparsity, and dense, has every seed.

    `at` is the comparison's sparsity, also for dense. Without a whole task of its own a method takes no part: no numbers, all left out.
    """

    at: float
    method: str
    sparsity: float
    tasks: tuple[str, ...]
    left_out: tuple[str, ...]  # `task`, or `task (what became of its seeds)`
    mean: Estimate | None = None
    iqm: Estimate | None = None
    improvement: Estimate | None = None

    @property
    def name(self) -> str:
        return f"dense, for {100 * self.at:g} %" if self.method == "dense" else f"{self.method} {100 * self.sparsity:g} %"


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


def budgets_of(tasks: Sequence[Task]) -> list[tuple[str, list[Task]]]:
    """Tasks that differ in how many updates they have and how often they were evaluated alone, under what their names share."""
    groups: dict[str, list[Task]] = {}
    for task in sorted(tasks, key=lambda task: task.trial.updates):
        groups.setdefault(comparison(task.trial, "updates", "evaluations"), []).append(task)
    found = []
    for group in groups.values():
        parts = [task.name.split(", ") for task in group]
        found.append((", ".join(part for part in parts[0] if all(part in other for other in parts)), group))
    return sorted(found, key=lambda named: named[0])


def methods_of(tasks: Sequence[Task]) -> list[str]:
    """All methods but dense, in a fixed order: colours follow it in every figure."""
    return sorted({method for task in tasks for method, _ in task.cells if method != "dense"})


def places_of(tasks: Sequence[Task]) -> list[Place]:
    """All (method, sparsity), dense first."""
    return sorted({place for task in tasks for place in task.cells}, key=lambda place: (place != DENSE, place))


def aggregates(tasks: Sequence[Task]) -> list[Aggregate]:
    """Over tasks, with seeds drawn within tasks; only normalized scores. The rows of one sparsity are about the same tasks."""
    own = [task for task in tasks if task.measure == "normalized score"]
    levels = sorted({sparsity for task in own for method, sparsity in task.cells if method != "dense"}) or [0.0]
    return [row for level in levels for row in _comparison(own, level)]


def _comparison(tasks: Sequence[Task], level: float) -> list[Aggregate]:
    """Dense, and all methods at one sparsity, over the tasks where every one of them that has a whole task is whole."""
    places = [place for place in places_of(tasks) if place == DENSE or place[1] == level]
    taking_part = [place for place in places if any(_seeded(task, place) for task in tasks)]
    common = [task for task in tasks if taking_part and all(_seeded(task, place) for place in taking_part)]
    return [_aggregate(level, place, common if place in taking_part else [], tasks) for place in places]


def _aggregate(level: float, place: Place, used: Sequence[Task], tasks: Sequence[Task]) -> Aggregate:
    left_out = tuple(f"{task.name}{_why(task, place)}" for task in tasks if task not in used)
    if not used:
        return Aggregate(level, *place, (), left_out)
    scores = [task.cells[place].scores() for task in used]
    dense = [task.dense.scores() for task in used if task.dense and task.dense.done]
    better = statistics.improvement(scores, dense) if len(dense) == len(used) and place != DENSE else None
    mean, middle = (statistics.interval(scores, statistic) for statistic in (statistics.mean_of, statistics.iqm_of))
    return Aggregate(level, *place, tuple(task.name for task in used), left_out, mean, middle, better)


def _seeded(task: Task, place: Place) -> bool:
    """Whether a cell is there with every seed."""
    return place in task.cells and not task.cells[place].absent


def _why(task: Task, place: Place) -> str:
    if place not in task.cells:
        return " (not in the sweep)"
    return f" ({task.cells[place].absence})" if task.cells[place].absent else ""


def claim(tasks: Sequence[Task], sparsity: float = CLAIMED_AT) -> list[str]:
    """The paper's claim counted: a line for all cells at a sparsity, then one for each method where there are several.

    Only cells where every planned seed has a dense score beside it are judged. One whose seeds diverged has not kept its score; one that
    is not finished, lacks dense seeds or has no dense score above 0 is not counted. Controls claim nothing.
    """
    cells = [cell for task in tasks for cell in task.cells.values() if cell.method != "dense" and cell.sparsity == sparsity]
    cells = [cell for cell in cells if not cell.control]
    if not cells:
        return [f"at {100 * sparsity:g} %: no cell"]
    methods = sorted({cell.method for cell in cells})
    parts = [("", cells), *((f"  {m}", [cell for cell in cells if cell.method == m]) for m in methods if len(methods) > 1)]
    return [_count(name, own, sparsity) for name, own in parts]


def _count(name: str, cells: Sequence[Cell], sparsity: float) -> str:
    diverged = [cell for cell in cells if not cell.unpaired and any("divergence" in what for what in cell.absent)]
    judged = [cell for cell in cells if cell.whole and cell.retained]
    kept = [cell for cell in judged if cell.retained and cell.retained.value >= CLAIM]
    sure = [cell for cell in kept if cell.retained and cell.retained.low >= CLAIM and len(cell.done) > 1]
    rest = len(cells) - len(judged) - len(diverged)
    where = f"{name}, " if name else ""
    text = f"{where}at {100 * sparsity:g} %: {len(kept)} of {len(judged) + len(diverged)} cells retain >= {100 * CLAIM:g} % of dense"
    notes = [f"{len(sure)} with their whole interval"] if kept else []
    notes += [f"{len(diverged)} diverged"] if diverged else []
    notes += [f"{rest} more not judged: seeds missing, dense seeds missing, or dense not above 0"] if rest else []
    return f"{text} ({'; '.join(notes)})" if notes else text


def _counted(outcomes: Iterable[str]) -> str:
    """`1 missing, 2 failed: divergence`."""
    return ", ".join(f"{count} {what}" for what, count in Counter(outcomes).items())


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
    rest = ("evaluations", "episodes", "final_episodes", "calibration_batches", "calibration_size")
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
