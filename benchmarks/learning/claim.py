"""The main finding in half an hour: `make claim`, and its table on the first page.

make claim                                              # on one core; resumed as often as needed
python -m benchmarks.learning.claim [--storage FOLDER]  # renews claim.json beside this file and the table of README.md
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from benchmarks.tables import fill, markdown
from search_spaces.claim import SWEEP
from service.results import statistics
from service.results.report.gather import gather
from service.storage import paths
from service.terminal.labels import dataset_name, method_name
from service.tracking.runs import Tracking

MADE = Path(__file__).with_suffix(".json")
PAGE = Path(__file__).parents[2] / "README.md"
Cells = dict[str, dict[str, list[float]]]  # by dataset and pruner, a score per seed


def read() -> Cells:
    found: Cells = json.loads(MADE.read_text())
    return found


def table() -> Iterator[list[str]]:
    """A row per dataset: the dense score, and the share of it that each mask keeps, with intervals over seeds."""
    pruned = [pruner for pruner in SWEEP.pruners if pruner != "dense"]
    yield ["data", "dense: score", *(f"{method_name(pruner, SWEEP.sparsities[0])} keeps" for pruner in pruned)]
    for dataset, cells in read().items():
        dense = np.array(cells["dense"])
        score = statistics.mean_interval(dense)
        shares = [statistics.ratio(np.array(cells[pruner]), dense) for pruner in pruned]
        yield [
            dataset_name(dataset),
            f"{score.value:.1f} [{score.low:.1f}, {score.high:.1f}]",
            *(f"{100 * share.value:.0f} % [{100 * share.low:.0f}, {100 * share.high:.0f}]" if share else "-" for share in shares),
        ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--storage", help="where the sweep ran (default as for the service)")
    storage = paths.root(parser.parse_args().storage)
    runs = sorted((run for run in gather(["claim"], Tracking(storage), storage).runs), key=lambda run: run.trial.seed)
    if missing := [run.trial.name for run in runs if not run.done]:
        raise SystemExit(f"{len(missing)} trials are not done ({missing[0]}, ...): `make claim` trains them")
    cells: Cells = {dataset: {pruner: [] for pruner in SWEEP.pruners} for dataset in SWEEP.datasets}
    for run in runs:
        cells[run.trial.dataset][run.trial.pruner].append(round(run.final, 2))
    MADE.write_text(json.dumps(cells, indent=1) + "\n")
    fill(PAGE, "claim", markdown(table()))


if __name__ == "__main__":
    main()
