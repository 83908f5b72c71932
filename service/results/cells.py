"""The one model of results: runs grouped into tasks (what may be compared) and cells (a method at a sparsity), with their statistics."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from service.results import statistics
from service.results.outcomes import DONE
from service.results.runs import Run
from service.results.statistics import Estimate, Scores
from service.terminal import labels
from trainables.trial import REWARDS, TRAINING_CHOICES, Trial, comparison
from trainables.trial.pruner_traits import traits_of

DENSE = (labels.DENSE, 0.0)
EVALUATION = ("evaluations", "episodes", "final_episodes")  # fields of a trial in which tasks of one budget may differ
Place = tuple[str, float]  # method, sparsity


@dataclass(frozen=True)
class Cell:
    """A method at a sparsity on one task: its runs, one per seed, and the task's dense ones to compare them with."""

    method: str
    sparsity: float
    runs: tuple[Run, ...]
    dense: tuple[Run, ...]

    @property
    def name(self) -> str:
        return labels.method_name(self.method, self.sparsity)

    @property
    def label(self) -> str:
        """The name, followed by `n/m` where some of the seeds are absent: what a figure calls it."""
        return f"{self.name} {len(self.done)}/{len(self.runs)}" if self.absent else self.name

    @property
    def control(self) -> bool:
        """Whether other cells are compared with this one: shuffled, reinitialized, or a small dense network."""
        trial = self.runs[0].trial
        return trial.control != "none" or traits_of(trial.pruner).shrinks

    @cached_property
    def done(self) -> list[Run]:
        return [run for run in self.runs if run.done]

    @property
    def absent(self) -> list[str]:
        """Of every seed without a last score, why."""
        return [run.state for run in self.runs if not run.done]

    @property
    def absence(self) -> str:
        """The same, counted: `1 missing, 2 failed: divergence`."""
        return _counted(self.absent)

    @cached_property
    def pairs(self) -> list[tuple[float, float]]:
        """(score, dense score) of every seed that has both."""
        dense = {run.trial.seed: run.last for run in self.dense if run.done}
        return [(run.last, dense[run.trial.seed]) for run in self.done if run.trial.seed in dense]

    @property
    def unpaired(self) -> str:
        """Why seeds of this cell have no dense score to be compared with, counted; empty where all have one."""
        dense = {run.trial.seed: run.state for run in self.dense}
        return _counted(why for run in self.runs if (why := dense.get(run.trial.seed, "not in the sweep")) != DONE)

    @property
    def whole(self) -> bool:
        """Whether every planned seed has a score and a dense score."""
        return len(self.pairs) == len(self.runs)

    def scores(self, measure: Callable[[Run], float] = lambda run: run.last) -> Scores:
        """One number per finished seed."""
        return np.array([measure(run) for run in self.done])

    def estimate(self, measure: Callable[[Run], float]) -> Estimate | None:
        """Mean over the finished seeds of any number that a run has."""
        return statistics.mean_interval(self.scores(measure)) if self.done else None

    @cached_property
    def mean(self) -> Estimate | None:
        return self.estimate(lambda run: run.last)

    @cached_property
    def returns(self) -> Estimate | None:
        """The mean return of the last evaluation."""
        return self.estimate(lambda run: run.returns)

    @cached_property
    def success(self) -> Estimate | None:
        """The share of episodes with a success in the last evaluation; None where a seed reports none."""
        return None if any(np.isnan(run.successes) for run in self.done) else self.estimate(lambda run: run.successes)

    @cached_property
    def iqm(self) -> Estimate | None:
        return statistics.iqm_over([self.scores()]) if self.done else None

    @cached_property
    def improvement(self) -> Estimate | None:
        """Probability of scoring above dense."""
        below = np.array([run.last for run in self.dense if run.done])
        return statistics.improvement([self.scores()], [below]) if self.done and len(below) and self.method != labels.DENSE else None

    @cached_property
    def curve(self) -> tuple[list[int], Scores, Scores, Scores] | None:
        """The updates at which every finished seed was evaluated, with the mean score and its interval (nan for one seed); None without."""
        runs = [{point.update: point.score for point in run.points} for run in self.done]
        common = sorted(set.intersection(*map(set, runs))) if runs else []
        if not common:
            return None
        return common, *statistics.curve_band(np.array([[run[update] for update in common] for run in runs]))

    @cached_property
    def retained(self) -> Estimate | None:
        """Score over the dense score, paired by seed; None without common seeds, and where dense is not above 0."""
        return statistics.ratio(*np.array(self.pairs).T) if self.pairs and self.method != labels.DENSE else None

    @cached_property
    def retained_in_time(self) -> Estimate | None:
        """Score over that of dense after no less time on a core, paired by seed; None also where times are not known."""
        dense = {run.trial.seed: run for run in self.dense if run.done}
        done = [run for run in self.done if run.trial.seed in dense and run.points]
        pairs = np.array([(run.last, dense[run.trial.seed].after(run.points[-1].seconds)) for run in done])
        known = len(pairs) == len(self.pairs) > 0 and not np.isnan(pairs).any()
        return statistics.ratio(*pairs.T) if known and self.method != labels.DENSE else None


@dataclass(frozen=True, eq=False)
class Task:
    """The cells that may be compared: one dataset, algorithm, budget and set of hyperparameters. Cells are in the order of methods; `apart`
    is what distinguishes the task from others of its dataset and algorithm."""

    apart: tuple[str, ...]
    detail: str
    trial: Trial
    measure: str
    dataset_score: float | None
    cells: dict[Place, Cell]

    @property
    def name(self) -> str:
        return ", ".join([_name(self.trial), *self.apart])

    @property
    def dense(self) -> Cell | None:
        return self.cells.get(DENSE)

    @property
    def runs(self) -> list[Run]:
        return [run for cell in self.cells.values() for run in cell.runs]

    @property
    def environment(self) -> str:
        return self.trial.dataset.split("/")[-2] if self.trial.dataset.count("/") else self.trial.dataset

    @property
    def tier(self) -> str:
        return self.trial.dataset.split("/")[-1].rsplit("-v", 1)[0]

    @property
    def methods(self) -> list[str]:
        """All methods but dense."""
        return list(dict.fromkeys(method for method, _ in self.cells if method != labels.DENSE))

    @property
    def sparsities(self) -> list[float]:
        """Of the pruned cells, ascending."""
        return sorted({sparsity for method, sparsity in self.cells if method != labels.DENSE})

    def of(self, method: str) -> list[Cell]:
        """The cells of a method, the densest first."""
        return [self.cells[place] for place in sorted(self.cells, key=lambda place: place[1]) if place[0] == method]


def tasks_of(runs: Sequence[Run]) -> list[Task]:
    """Group runs by what may be compared; a name that two tasks would share is followed by what distinguishes them."""
    groups: dict[str, list[Run]] = {}
    for run in runs:
        groups.setdefault(comparison(run.trial), []).append(run)
    leads = {group: own[0].trial for group, own in groups.items()}
    alike: dict[str, list[Trial]] = {}
    for lead in leads.values():
        alike.setdefault(_identifiers(lead), []).append(lead)
    apart = {group: _differences(lead, alike[_identifiers(lead)]) for group, lead in leads.items()}
    ordered = sorted(groups, key=lambda group: ", ".join([_identifiers(leads[group]), *apart[group]]))
    return [_task(groups[group], apart[group]) for group in ordered]


def suites_of(tasks: Sequence[Task]) -> list[tuple[str, list[Task]]]:
    """Tasks that may be averaged: of one budget, and each dataset and algorithm once. The smallest budget first, each suite under what
    sets it apart, `50,000 updates`; where there is one, under no name."""
    suites: dict[tuple[int, str], list[Task]] = {}
    for task in tasks:
        twins = [other.trial for other in tasks if other.trial.updates == task.trial.updates and _place(other) == _place(task)]
        apart = ", ".join(_differences(task.trial, twins))
        suites.setdefault((task.trial.updates, apart), []).append(task)
    several = len({updates for updates, _ in suites}) > 1
    return [
        (", ".join([f"{updates:,} updates"] * several + [apart] * bool(apart)), own) for (updates, apart), own in sorted(suites.items())
    ]


def budgets_of(tasks: Sequence[Task]) -> list[tuple[str, list[Task]]]:
    """Tasks that differ only in the number of updates and evaluations, the smallest budget first, under what their names share."""
    groups: dict[str, list[Task]] = {}
    for task in tasks:
        groups.setdefault(comparison(task.trial, "updates", "evaluations"), []).append(task)
    found = []
    for group in groups.values():
        group.sort(key=lambda task: task.trial.updates)
        shared = [part for part in group[0].apart if all(part in task.apart for task in group)]
        found.append((", ".join([_name(group[0].trial), *shared]), group))
    return found


def places_of(tasks: Iterable[Task]) -> list[Place]:
    """All (method, sparsity) in the order of methods, dense first."""
    return sorted({place for task in tasks for place in task.cells}, key=_order)


def by_identifier(task: Task) -> list[Cell]:
    """The task's cells as files for programs list them: dense, then methods in alphabetical order."""
    return [task.cells[place] for place in sorted(task.cells, key=lambda place: (place != DENSE, place))]


def details(trial: Trial) -> list[str]:
    """What the cells of a trial's task share: dataset, budget, and the settings that are not defaults."""
    return [trial.dataset, f"{trial.updates:,} updates", *(f"{name} {value}" for name, value in settings(trial).items())]


def settings(trial: Trial) -> dict[str, Any]:
    """The settings of training and the hyperparameters that are not defaults."""
    cut = {"transitions": trial.transitions} if trial.transitions else {}
    options = {name: getattr(trial, name) for name, choices in TRAINING_CHOICES.items() if getattr(trial, name) != choices[0]}
    rewards = {name: getattr(trial, name) for name, default in REWARDS.items() if getattr(trial, name) != default}
    return cut | options | rewards | dict(trial.hyper)


def facts_of(trial: Trial) -> list[str]:
    """All that two tasks can differ in but the algorithm."""
    return [*details(trial), *(f"{name} {getattr(trial, name)}" for name in EVALUATION)]


def _place(task: Task) -> tuple[str, str]:
    return task.trial.dataset, task.trial.algorithm


def _order(place: Place) -> tuple[tuple[int, str, str], float]:
    return labels.rank(place[0]), place[1]


def _counted(states: Iterable[str]) -> str:
    return ", ".join(f"{count} {state}" for state, count in Counter(states).items())


def _name(trial: Trial) -> str:
    return f"{labels.dataset_name(trial.dataset)} {labels.algorithm_name(trial.algorithm)}"


def _identifiers(trial: Trial) -> str:
    """The name that tasks are sorted by: it does not depend on how plug-ins call themselves."""
    return f"{labels.dataset_name(trial.dataset)} {trial.algorithm}"


def _differences(trial: Trial, others: Sequence[Trial]) -> list[str]:
    """What distinguishes a trial's task from others of its name; the one that has only what they all have is `plain`."""
    if len(others) == 1:
        return []
    common = set.intersection(*(set(facts_of(other)) for other in others))
    return [part for part in facts_of(trial) if part not in common] or ["plain"]


def _task(group: Sequence[Run], differences: Sequence[str]) -> Task:
    places: dict[Place, list[Run]] = {}
    for run in sorted(group, key=lambda run: run.trial.seed):
        places.setdefault((run.trial.method, run.trial.sparsity), []).append(run)
    dense, trial = tuple(places.get(DENSE, ())), group[0].trial
    return Task(
        apart=tuple(differences),
        detail=", ".join(details(trial)),
        trial=trial,
        measure=group[0].measure,
        dataset_score=next((run.dataset_score for run in group if run.dataset_score is not None), None),
        cells={place: Cell(*place, tuple(places[place]), dense) for place in sorted(places, key=_order)},
    )
