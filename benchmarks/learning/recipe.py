"""What helps where pruned networks lose most, a table of docs/full-study.md: rescaling, learning rate, layer normalization.

winnow adopt benchmarks/study_recipe.zip     # then `winnow run study_recipe`, `winnow run study_recipe_dense`, as often as needed
python -m benchmarks.learning.recipe [--storage FOLDER]     # renews recipe.json beside this file and the table of the page
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from benchmarks.learning.pages import fill_all, rate_of, runs_of, shown, storage_of, write
from benchmarks.tables import markdown
from search_spaces.studies.study_recipe import SWEEP
from search_spaces.studies.study_recipe_dense import SWEEP as DENSE
from search_spaces.sweep.ranges import values_of
from service.results.runs import Run
from service.results.statistics import mean_interval
from service.terminal.labels import algorithm_name, method_name

MADE = Path(__file__).with_suffix(".json")
PAGE = Path(__file__).parents[2] / "docs" / "full-study.md"
RATES = values_of(SWEEP.hyper["learning_rates"], 0.0)


@dataclass(frozen=True)
class Trained:
    """A finished trial. `score`: mean over the final episodes."""

    algorithm: str
    pruner: str
    network: str
    rescale: str
    rate: float
    seed: int
    score: float


def trained(run: Run) -> Trained:
    trial = run.trial
    return Trained(trial.algorithm, trial.pruner, trial.network, trial.rescale, rate_of(trial), trial.seed, round(run.final, 2))


def read() -> list[Trained]:
    return [Trained(**row) for row in json.loads(MADE.read_text())]


def recipe() -> Iterator[list[str]]:
    """A row per algorithm of which anything is trained, kind of network and rescaling; a column per pruner and learning rate."""
    dense = [("dense", rate) for rate in values_of(DENSE.hyper["learning_rates"], 0.0)]
    columns = [*dense, *((pruner, rate) for pruner in SWEEP.pruners for rate in RATES)]
    yield ["algorithm", "network", "rescale", *(f"{method_name(pruner)}, {rate:g}" for pruner, rate in columns)]
    found = read()
    for algorithm in (name for name in SWEEP.algorithms if any(one.algorithm == name for one in found)):
        for network, rescale in ((network, rescale) for network in SWEEP.values("network") for rescale in SWEEP.values("rescale")):
            own = [one for one in found if (one.algorithm, one.network, one.rescale) == (algorithm, network, rescale)]
            cells = [[one.score for one in own if (one.pruner, one.rate) == column] for column in columns]
            scores = (shown(mean_interval(cell) if cell else None, len(SWEEP.seeds)) for cell in cells)
            yield [algorithm_name(algorithm), network.replace("_", " "), rescale, *scores]


def texts() -> dict[str, str]:
    """What stands between the mark of docs/full-study.md."""
    return {"recipe": markdown(recipe())}


def main() -> None:
    write(MADE, (asdict(trained(run)) for run in runs_of(["study_recipe", "study_recipe_dense"], storage_of(__doc__)) if run.done))
    fill_all(PAGE, texts())


if __name__ == "__main__":
    main()
