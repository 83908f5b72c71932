"""Did the mask itself do anything? A pruned trial against its controls (Frankle et al. 2021), paired over seeds.

Trials of one seed share initial weights, minibatches and evaluation episodes, so differences are taken seed by seed. Their mean has
Student's t interval: with the three to five seeds that people run, a bootstrap over seeds has few distinct resamples and is too narrow,
while t pays for the small number with its width (4.3 standard errors either side for three seeds). It takes the differences for normal.
"""

from __future__ import annotations

import math
import statistics
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace

from service.results.cells import details
from service.results.outcomes import Outcome
from service.results.runs import Run
from service.results.statistics import EQUAL, NOISE, student
from service.terminal.labels import algorithm_name, dataset_name, method_name
from trainables.trial import CALIBRATION, CHOICES, MAPPINGS, REWARDS, TRAINING_CHOICES, Trial, comparison, with_seed

WORDS = {
    "shuffle": "its mask shuffled within layers",
    "reinit": "its kept weights reinitialized",
    "erk": "a random ERK mask",
    "small_dense": "a small dense network",
}
HEAD = "did the mask itself do anything? score minus the control's, paired over seeds [95 % t interval]"
FOOT = "a mask that is not better than itself shuffled has chosen how many weights each layer keeps, not which"


@dataclass(frozen=True)
class Difference:
    """Mean over `seeds` of score minus the control's score, with its 95 % t interval; one seed has no interval."""

    mean: float
    interval: tuple[float, float] | None
    seeds: int

    @property
    def verdict(self) -> str:
        if self.interval is None:
            return "one seed says nothing"
        low, high = self.interval
        if low == high == 0:
            return "identical scores"
        return "better" if low > 0 else "worse" if high < 0 else "no difference shown"


def paired(differences: Sequence[float]) -> Difference:
    """The estimate from one difference per seed, all of them numbers."""
    count, mean = len(differences), statistics.fmean(differences)
    if count == 1:
        return Difference(mean, None, 1)
    if max(differences) - min(differences) < NOISE:
        mean = mean if abs(mean) >= NOISE else 0.0
        return Difference(mean, (mean, mean), count)
    half = student(count - 1) * statistics.stdev(differences) / math.sqrt(count)
    return Difference(mean, (mean - half, mean + half), count)


@dataclass(frozen=True)
class Comparison:
    """A cell, known by one of its trials, against one of its controls: a difference per seed, and of the other seeds why there is none."""

    trial: Trial
    control: str
    differences: tuple[float, ...]
    absent: tuple[str, ...]

    @property
    def cell(self) -> str:
        """The cell in identifiers: algorithm, dataset, what was pruned and how, and whatever else is not at its default."""
        own = self.trial
        return f"{own.algorithm} on {own.dataset}, {own.cell}, {', '.join([*details(own)[1:], *_rest(own)])}"

    @property
    def name(self) -> str:
        """`BC on hopper-expert, SNIP 95 %`."""
        own = self.trial
        return f"{algorithm_name(own.algorithm)} on {dataset_name(own.dataset)}, {method_name(own.method, own.sparsity)}"

    @property
    def facts(self) -> list[str]:
        """The dataset's identifier, the budget, and whatever is not at its default."""
        return [*details(self.trial), *_rest(self.trial)]

    @property
    def heading(self) -> str:
        """The cell for people, with the identifiers in brackets."""
        return f"{self.name} ({', '.join(self.facts)})"

    @property
    def difference(self) -> Difference | None:
        return paired(self.differences) if self.differences else None

    @property
    def seeds(self) -> str:
        """`3`, or `1 of 3 (2 failed: divergence)`."""
        if not self.absent:
            return str(len(self.differences))
        why = ", ".join(f"{count} {what}" for what, count in Counter(self.absent).items())
        return f"{len(self.differences)} of {len(self.differences) + len(self.absent)} ({why})"

    @property
    def columns(self) -> tuple[str, str, str, str, str]:
        """Control, mean difference, interval, seeds, verdict."""
        found = self.difference
        if found is None:
            return WORDS[self.control], "", "", self.seeds, "no seed has both"
        span = EQUAL if found.interval and found.interval[0] == found.interval[1] else ""
        interval = span or ("[{:+.1f}, {:+.1f}]".format(*found.interval) if found.interval else "")
        return WORDS[self.control], f"{found.mean:+.1f}", interval, self.seeds, found.verdict


def compare(runs: Sequence[Run]) -> list[Comparison]:
    """Every cell that has controls among `runs`, against each; cells of other data, budgets and hyperparameters are kept apart."""
    cells = [_cell(run.trial) for run in runs]
    known = {(cell, run.trial.seed): run for cell, run in zip(cells, runs, strict=True)}
    controls: dict[str, dict[str, str]] = {}  # of a cell: the cells of its controls, found once for all its seeds
    differences: dict[tuple[str, str, float, str], list[Outcome]] = {}
    leads: dict[tuple[str, str, float, str], Trial] = {}
    for cell, run in zip(cells, runs, strict=True):
        if cell not in controls:
            controls[cell] = {kind: _cell(control) for kind, control in run.trial.controls().items()}
        for kind, control in controls[cell].items():
            if other := known.get((control, run.trial.seed)):
                compared = (comparison(run.trial), run.trial.method, run.trial.sparsity, kind)
                leads.setdefault(compared, run.trial)
                differences.setdefault(compared, []).append(_difference(run.outcome, other.outcome))
    found = []
    for key, lead in leads.items():
        numbers = tuple(each for each in differences[key] if not isinstance(each, str))
        found.append(Comparison(lead, key[-1], numbers, tuple(each for each in differences[key] if isinstance(each, str))))
    return found


def text_of(found: Sequence[Comparison]) -> str:
    """The section of the results, empty where there is no control."""
    if not found:
        return ""
    lines = [HEAD]
    for number, each in enumerate(found):
        if number == 0 or found[number - 1].heading != each.heading:
            lines.append(each.heading)
        what, mean, interval, seeds, verdict = each.columns
        lines.append(f"  against {what:<33}{mean:>6}{' ' if interval else ''}{interval}  n={seeds}  {verdict}")
    return "\n".join([*lines, FOOT])


def _rest(trial: Trial) -> list[str]:
    """The fields that neither a cell's name nor its task's details show, where they are not at their defaults."""
    shown = {"dataset", "algorithm", "pruner", "sparsity", "seed", "updates", "transitions", "fresh", "data"}
    shown |= {*MAPPINGS, *REWARDS, *TRAINING_CHOICES, *CHOICES, *CALIBRATION}
    return [f"{f.name} {getattr(trial, f.name)}" for f in fields(trial) if f.name not in shown and getattr(trial, f.name) != f.default]


def _cell(trial: Trial) -> str:
    """What a trial computes, but for its seed and whichever sweep trains it for itself, as a comparable string."""
    return with_seed(replace(trial, fresh="", data="") if trial.fresh or trial.data else trial, 0).key


def _difference(score: Outcome, control: Outcome) -> Outcome:
    """The difference, or why there is none: how the control ended, else the trial."""
    if isinstance(control, str):
        return control
    if isinstance(score, str):
        return f"without the pruned trial: {score}"
    return score - control if math.isfinite(score - control) else "no number"
