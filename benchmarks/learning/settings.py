"""Which settings the full study takes, by the rule of docs/decisions/023-which-settings.md.

winnow adopt benchmarks/study_settings.zip     # then `winnow run study_settings`, `winnow run study_settings_dense`, as often as needed
python -m benchmarks.learning.settings [--storage FOLDER]     # renews settings.json beside this file and the tables of docs/settings.md
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import mean

from benchmarks.learning.pages import fill_all, runs_of, storage_of, write
from benchmarks.tables import markdown
from search_spaces.studies.study_settings import SWEEP as PRUNED
from search_spaces.studies.study_settings_dense import SWEEP as DENSE
from search_spaces.sweep.ranges import values_of
from service.results.runs import Run
from service.terminal.labels import algorithm_name, dataset_name

SWEEPS = ("study_settings", "study_settings_dense")
MADE = Path(__file__).with_suffix(".json")
PAGE = Path(__file__).parents[2] / "docs" / "settings.md"
RATES = values_of(PRUNED.hyper["learning_rates"], 0.0)
CALIBRATIONS = values_of(PRUNED.calibration_batches, 1)
BETTER = 0.05  # by how much, on average, another setting has to be better than the default, the first of its choices
METHODS = (("snip", 1), ("snip", 16), ("random_erk", 1))  # pruner and calibration batches
DIVERGED = "divergence"
Place = tuple[str, str, int, float]  # dataset, pruner, calibration batches, learning rate


@dataclass(frozen=True)
class Trained:
    """A trial: `score` is its mean over the final episodes, 0 if it diverged, None if it is not done."""

    algorithm: str
    dataset: str
    pruner: str
    calibration: int
    rate: float
    seed: int
    score: float | None


@dataclass(frozen=True)
class Choice:
    """Of `options`, each with its mean over the datasets; None where trials are missing, of which there are `missing`."""

    algorithm: str
    what: str
    options: dict[str, float | None]
    missing: int

    @property
    def taken(self) -> str:
        """The default, unless another is better by more than BETTER; empty where trials are missing."""
        if self.missing:
            return ""
        (default, usual), *others = ((name, value or 0.0) for name, value in self.options.items())
        best, value = max(others, key=lambda other: other[1])
        return best if value - usual > BETTER else default


def trained(run: Run) -> Trained:
    trial = run.trial
    rate = max((value for name, value in trial.hyper_values().items() if name.endswith("learning_rate")), default=0.0)
    score = 0.0 if DIVERGED in run.state else run.final if run.done else None
    return Trained(trial.algorithm, trial.dataset, trial.pruner, trial.calibration_batches, rate, trial.seed, score)


def choices(trials: Sequence[Trained]) -> Iterator[Choice]:
    """The rule's three choices for each algorithm, in its order."""
    for algorithm in PRUNED.algorithms:
        own = Cells(trial for trial in trials if trial.algorithm == algorithm)
        dense = {f"{rate:g}": own.share([("dense", 1)], rate) for rate in RATES}
        yield _choice(algorithm, "learning rate, dense", dense)
        pruned = {f"{rate:g}": own.share(METHODS, rate) for rate in RATES}
        rates = _choice(algorithm, "learning rate, pruned", pruned)
        yield rates
        rate = next((rate for rate in RATES if f"{rate:g}" == rates.taken), None)
        calibrations = {
            f"{batches} x {PRUNED.calibration_size}": own.share([("snip", batches)], rate) if rate else (None, rates.missing)
            for batches in CALIBRATIONS
        }
        yield _choice(algorithm, "calibration, SNIP", calibrations)


def _choice(algorithm: str, what: str, options: dict[str, tuple[float | None, int]]) -> Choice:
    return Choice(algorithm, what, {name: value for name, (value, _) in options.items()}, max(missing for _, missing in options.values()))


class Cells:
    """One algorithm's scores by dataset, pruner, calibration and learning rate."""

    def __init__(self, trials: Iterable[Trained]) -> None:
        self.scores: dict[Place, list[float | None]] = {}
        for trial in trials:
            self.scores.setdefault((trial.dataset, trial.pruner, trial.calibration, trial.rate), []).append(trial.score)

    def missing(self, place: Place) -> int:
        """Seeds without a score."""
        return len(PRUNED.seeds) - sum(score is not None for score in self.scores.get(place, []))

    def mean(self, place: Place) -> float:
        return mean(score for score in self.scores[place] if score is not None)

    def share(self, methods: Iterable[tuple[str, int]], rate: float) -> tuple[float | None, int]:
        """The mean share of the reference, which is the better dense learning rate's score, over datasets and methods; and how many
        trials are missing for it."""
        cells: list[Place] = [(dataset, *method, rate) for dataset in PRUNED.datasets for method in methods]
        dense: list[Place] = [(dataset, "dense", 1, each) for dataset in PRUNED.datasets for each in RATES]
        if missing := sum(map(self.missing, {*cells, *dense})):
            return None, missing
        reference = {dataset: max(self.mean((dataset, "dense", 1, each)) for each in RATES) for dataset in PRUNED.datasets}
        return mean(self.mean(place) / reference[place[0]] for place in cells), 0


def read() -> list[Trained]:
    return [Trained(**row) for row in json.loads(MADE.read_text())]


def taken() -> Iterator[list[str]]:
    """A row per choice."""
    yield ["algorithm", "choice", "default", "other", "difference", "taken"]
    for choice in choices(read()):
        values = [f"{name}: {'-' if value is None else f'{value:.2f}'}" for name, value in choice.options.items()]
        usual, other = choice.options.values()
        gain = "-" if usual is None or other is None else f"{other - usual:+.2f}"
        yield [algorithm_name(choice.algorithm), choice.what, *values, gain, choice.taken or f"open: {choice.missing} trials missing"]


def cells() -> Iterator[list[str]]:
    """A row per dataset, algorithm and kind of network, with the seeds' scores at each learning rate."""
    yield ["data", "algorithm", "network", *(f"{rate:g}" for rate in RATES)]
    trials = read()
    for dataset in PRUNED.datasets:
        for algorithm in PRUNED.algorithms:
            own = Cells(trial for trial in trials if trial.algorithm == algorithm)
            for pruner, batches in (("dense", 1), *METHODS):
                rates = [own.scores.get((dataset, pruner, batches, rate), []) for rate in RATES]
                shown = [", ".join("-" if score is None else f"{score:.1f}" for score in seeds) or "-" for seeds in rates]
                yield [dataset_name(dataset), algorithm_name(algorithm), NAMES[pruner, batches], *shown]


NAMES = {
    ("dense", 1): f"dense, {DENSE.updates:,} updates",
    ("snip", 1): "SNIP 95 %, 1 x 256",
    ("snip", 16): "SNIP 95 %, 16 x 256",
    ("random_erk", 1): "Random (ERK) 95 %",
}


def progress() -> str:
    done = [trial for trial in read() if trial.score is not None]
    pruned = sum(trial.pruner != "dense" for trial in done)
    planned = [len(PRUNED.datasets) * len(PRUNED.algorithms) * len(PRUNED.seeds) * len(RATES) * kinds for kinds in (len(METHODS), 1)]
    return f"{pruned} of {planned[0]} pruned trials and {len(done) - pruned} of {planned[1]} dense ones are done."


def texts() -> dict[str, str]:
    """What stands between the marks of docs/settings.md."""
    return {"progress": progress(), "taken": markdown(taken()), "cells": markdown(cells())}


def main() -> None:
    write(MADE, (asdict(trained(run)) for run in runs_of(SWEEPS, storage_of(__doc__))))
    fill_all(PAGE, texts())


if __name__ == "__main__":
    main()
