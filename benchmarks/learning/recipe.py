"""What helps where pruned networks lose most, two tables of docs/full-study.md: rescaling, learning rate, layer normalization.

winnow adopt benchmarks/study_recipe.zip     # and study_full.zip; then `winnow run` of SWEEPS, as often as needed
python -m benchmarks.learning.recipe [--storage FOLDER]     # renews recipe.json beside this file and the tables of the page
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from itertools import product
from pathlib import Path

from benchmarks.learning.pages import fill_all, finished, rate_of, runs_of, shown, storage_of, write
from benchmarks.tables import markdown
from search_spaces.studies.study_recipe import SWEEP
from search_spaces.studies.study_recipe_dense import SWEEP as DENSE
from search_spaces.sweep.ranges import values_of
from service.results.controls import Difference, paired
from service.results.runs import Run
from service.results.statistics import mean_interval
from service.terminal.labels import algorithm_name, method_name

MADE = Path(__file__).with_suffix(".json")
PAGE = Path(__file__).parents[2] / "docs" / "full-study.md"
SWEEPS = ("study_recipe", "study_recipe_dense", "study_recipe_long", "study_full", "study_full_dense")
RATES = values_of(SWEEP.hyper["learning_rates"], 0.0)
(SPARSITY,) = SWEEP.sparsities
SHOWN = "bc"  # the algorithm that is done


@dataclass(frozen=True)
class Trained:
    """A finished trial. `score`: mean over the final episodes."""

    algorithm: str
    pruner: str
    network: str
    rescale: str
    updates: int
    rate: float
    seed: int
    score: float


def trained(run: Run) -> Trained:
    trial, score = run.trial, round(run.final, 2)
    return Trained(trial.algorithm, trial.pruner, trial.network, trial.rescale, trial.updates, rate_of(trial), trial.seed, score)


def read() -> list[Trained]:
    return [Trained(**row) for row in json.loads(MADE.read_text())]


def recipe() -> Iterator[list[str]]:
    """A row per algorithm, kind of network, rescaling and number of updates of which anything is trained, a column per pruner and rate."""
    dense = [("dense", rate) for rate in values_of(DENSE.hyper["learning_rates"], 0.0)]
    columns = [*dense, *((pruner, rate) for pruner in SWEEP.pruners for rate in RATES)]
    yield ["algorithm", "network", "rescale", "updates", *(f"{method_name(pruner)}, {rate:g}" for pruner, rate in columns)]
    found = read()
    budgets = sorted({one.updates for one in found})
    for row in product(SWEEP.algorithms, budgets, SWEEP.values("network"), SWEEP.values("rescale")):
        own = [one for one in found if (one.algorithm, one.updates, one.network, one.rescale) == row]
        cells = [[one.score for one in own if (one.pruner, one.rate) == column] for column in columns]
        if any(cells):
            algorithm, updates, network, rescale = row
            scores = (shown(mean_interval(cell) if cell else None, len(SWEEP.seeds)) for cell in cells)
            yield [algorithm_name(algorithm), network.replace("_", " "), rescale, f"{updates:,}", *scores]


def gains() -> Iterator[list[str]]:
    """A row per network, rescaling and learning rate: how much higher each pruner's scores are than those of plain networks at the first
    rate, paired by seed."""
    found, plain = read(), ("mlp", "none", RATES[0])
    yield ["updates", "network", "rescale", "learning rate", *(method_name(pruner, SPARSITY) for pruner in SWEEP.pruners)]
    budgets = sorted({one.updates for one in found if one.algorithm == SHOWN})
    for updates, *setting in product(budgets, SWEEP.values("network"), SWEEP.values("rescale"), RATES):
        cells = []
        for pruner in SWEEP.pruners:
            own = [one for one in found if (one.algorithm, one.updates, one.pruner) == (SHOWN, updates, pruner)]
            by_seed, before = (
                {one.seed: one.score for one in own if (one.network, one.rescale, one.rate) == of} for of in (tuple(setting), plain)
            )
            both = sorted(by_seed.keys() & before.keys())
            cells.append(gained(paired([by_seed[seed] - before[seed] for seed in both])) if both else "-")
        if tuple(setting) != plain and any(cell != "-" for cell in cells):
            network, rescale, rate = setting
            yield [f"{updates:,}", str(network).replace("_", " "), str(rescale), f"{rate:g}", *cells]


def gained(found: Difference) -> str:
    span = f" [{found.interval[0]:+.1f}, {found.interval[1]:+.1f}]" if found.interval else f" {found.seeds}/{len(SWEEP.seeds)}"
    return f"{found.mean:+.1f}{span}"


def texts() -> dict[str, str]:
    """What stands between the marks of docs/full-study.md."""
    return {"recipe": markdown(recipe()), "gains": markdown(gains())}


def main() -> None:
    runs = [run for run in runs_of(SWEEPS, storage_of(__doc__)) if run.trial.dataset in SWEEP.datasets]
    write(MADE, (asdict(trained(run)) for run in finished(runs)))
    fill_all(PAGE, texts())


if __name__ == "__main__":
    main()
