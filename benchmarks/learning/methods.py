"""Every algorithm, dense and at 95 %, and what controls say of SNIP: docs/methods.md, from what two sweeps left in MLflow.

winnow run methods --set algorithms=bc,td3_bc     # or any part of it, as often as needed
winnow run methods_controls
python -m benchmarks.learning.methods [--storage FOLDER]      # writes methods.json and methods_controls.json, and the tables of the page
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.tables import fill, markdown
from service.results import controls
from service.results.report.gather import gather
from service.results.runs import Run
from service.results.statistics import mean_interval
from service.storage import paths
from service.terminal.labels import algorithm_name, dataset_name, method_name
from service.tracking.runs import Tracking
from trainables.trial import Trial

FOUND = Path(__file__).with_suffix(".json")
CONTROLS = Path(__file__).with_name("methods_controls.json")
PAGE = Path(__file__).parents[2] / "docs" / "methods.md"
CELLS = (("dense", 0.0), ("snip", 0.95), ("random_erk", 0.95))


def collect(storage: Path) -> list[dict[str, Any]]:
    """A row for each trial that is done."""
    done = [run for run in gather(["methods"], Tracking(storage), storage).runs if run.done]
    return [
        {
            "key": run.trial.key, "dataset": run.trial.dataset, "algorithm": run.trial.algorithm, "pruner": run.trial.pruner,
            "seed": run.trial.seed, "updates": run.trial.updates, "score": run.last, "seconds": run.points[-1].seconds,
            "hyper": dict(run.trial.hyper),
        }
        for run in sorted(done, key=lambda run: run.trial.name)
    ]  # fmt: skip


def collect_controls(storage: Path) -> list[dict[str, Any]]:
    """Every trial with its score, or in words why there is none."""
    runs = sorted(gather(["methods_controls"], Tracking(storage), storage).runs, key=lambda run: run.trial.name)
    return [{"trial": {name: value for name, value in run.trial.to_json().items() if value}, "score": run.outcome} for run in runs]


def verdict() -> str:
    """What the service says of the controls."""
    found = json.loads(CONTROLS.read_text())
    runs = [Run(Trial(**row["trial"]), row["score"]) for row in found]
    return f"```\n{controls.text_of(controls.compare(runs))}\n```"


def rows(found: list[dict[str, Any]]) -> Iterator[list[str]]:
    yield ["dataset", "algorithm", "updates", *(f"{method_name(*cell)}: score" for cell in CELLS), "training, s", "times faster"]
    for place in dict.fromkeys(map(place_of, found)):
        own = [row for row in found if place_of(row) == place]
        cells = {pruner: [row for row in own if row["pruner"] == pruner] for pruner, _ in CELLS}
        times = {pruner: median(row["seconds"] for row in cell) for pruner, cell in cells.items() if cell}
        faster = [f"{times['dense'] / times[p]:.1f}" if "dense" in times and p in times else "-" for p, _ in CELLS[1:]]
        yield [
            *place, *(score(cells[pruner]) for pruner, _ in CELLS),
            " / ".join(f"{times[pruner]:.0f}" if pruner in times else "-" for pruner, _ in CELLS), " / ".join(faster),
        ]  # fmt: skip


def place_of(row: dict[str, Any]) -> tuple[str, str, str]:
    """Dataset, algorithm with hyperparameters that are not its defaults, and updates, as tables show them."""
    widths = {name: "x".join(map(str, value)) for name, value in row.get("hyper", {}).items() if isinstance(value, list | tuple)}
    settings = ", ".join(f"{name} {value}" for name, value in (row.get("hyper", {}) | widths).items())
    return (
        dataset_name(row["dataset"]),
        f"{algorithm_name(row['algorithm'])} {settings}".strip(),
        f"{row['updates']:,}",
    )


def score(cell: list[dict[str, Any]]) -> str:
    if not cell:
        return "-"
    found = mean_interval([row["score"] for row in cell])
    return f"{found.value:.1f} [{found.note or f'{found.low:.1f}, {found.high:.1f}'}]" + (f" n={found.seeds}" if found.seeds != 3 else "")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--storage", help="where the sweep ran (default as for the service)")
    storage = paths.root(parser.parse_args().storage)
    for file, found in ((FOUND, collect(storage)), (CONTROLS, collect_controls(storage))):
        file.write_text("[\n" + ",\n".join(" " + json.dumps(row) for row in found) + "\n]\n")
    for name, text in texts().items():
        fill(PAGE, name, text)


def texts() -> dict[str, str]:
    """What stands between the marks of docs/methods.md."""
    return {"methods": markdown(rows(json.loads(FOUND.read_text()))), "controls": verdict()}


if __name__ == "__main__":
    main()
