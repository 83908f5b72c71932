"""The main finding in half an hour: `make claim`, and its table on the first page.

make claim                                              # on one core; resumed as often as needed
python -m benchmarks.learning.claim [--storage FOLDER]  # renews claim.json beside this file and the table of README.md
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from benchmarks.learning.pages import fill_all, runs_of, shown, storage_of
from benchmarks.tables import markdown
from search_spaces.claim import SWEEP
from service.results import statistics
from service.terminal.labels import dataset_name, method_name

MADE = Path(__file__).with_suffix(".json")
PAGE = Path(__file__).parents[2] / "README.md"
Cells = dict[str, dict[str, list[float]]]  # by dataset and pruner, a score per seed


def read() -> Cells:
    found: Cells = json.loads(MADE.read_text())
    return found


def table() -> Iterator[list[str]]:
    """A row per dataset: the dense score, and the share of it that each mask keeps, with intervals over seeds."""
    pruned = [pruner for pruner in SWEEP.pruners if pruner != "dense"]
    planned = len(SWEEP.seeds)
    yield ["data", "dense: score", *(f"{method_name(pruner, SWEEP.sparsities[0])} keeps" for pruner in pruned)]
    for dataset, cells in read().items():
        dense = np.array(cells["dense"])
        shares = [statistics.ratio(np.array(cells[pruner]), dense) for pruner in pruned]
        score = shown(statistics.mean_interval(dense), planned)
        yield [dataset_name(dataset), score, *(shown(share, planned, 100.0, 0, " %") for share in shares)]


def main() -> None:
    runs = sorted(runs_of(["claim"], storage_of(__doc__)), key=lambda run: run.trial.seed)
    if missing := [run.trial.name for run in runs if not run.done]:
        raise SystemExit(f"{len(missing)} trials are not done ({missing[0]}, ...): `make claim` trains them")
    cells: Cells = {dataset: {pruner: [] for pruner in SWEEP.pruners} for dataset in SWEEP.datasets}
    for run in runs:
        cells[run.trial.dataset][run.trial.pruner].append(round(run.final, 2))
    MADE.write_text(json.dumps(cells, indent=1) + "\n")
    fill_all(PAGE, {"claim": markdown(table())})


if __name__ == "__main__":
    main()
