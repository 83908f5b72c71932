"""Every algorithm, dense and at 95 %: the table of docs/methods.md, from what the sweep `methods` left in MLflow.

python -m service run methods --set algorithms=bc,td3_bc     # or any part of it, as often as needed
python benchmarks/methods.py [--storage FOLDER]              # writes benchmarks/methods.json and the table
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from pathlib import Path
from statistics import median
from typing import Any

from tables import fill, markdown

from service.report.runs import read
from service.results import estimate
from service.tracking import Tracking
from trainables import paths

FOUND = Path(__file__).with_suffix(".json")
PAGE = Path(__file__).parent.parent / "docs" / "methods.md"
CELLS = (("dense", "dense"), ("snip", "SNIP 95 %"), ("random_erk", "ERK 95 %"))


def collect(storage: Path) -> list[dict[str, Any]]:
    """A row for each trial that is done."""
    runs, _ = read(["methods"], Tracking(storage), storage)
    done = [run for run in runs if run.outcome == "done"]
    return [
        {
            "key": run.trial.key, "dataset": run.trial.dataset, "algorithm": run.trial.algorithm, "pruner": run.trial.pruner,
            "seed": run.trial.seed, "updates": run.trial.updates, "score": run.last, "seconds": run.points[-1].seconds,
            "hyper": dict(run.trial.hyper),
        }
        for run in sorted(done, key=lambda run: run.trial.name)
    ]  # fmt: skip


def rows(found: list[dict[str, Any]]) -> Iterator[list[str]]:
    yield ["dataset", "algorithm", "updates", *(f"{title}: score" for _, title in CELLS), "training, s", "times faster"]
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
    """Dataset, algorithm with what it does not have by default, and updates, as they are shown."""
    settings = ", ".join(f"{name} {value}" for name, value in row.get("hyper", {}).items())
    return row["dataset"].removeprefix("winnow/").removesuffix("-v0"), f"{row['algorithm']} {settings}".strip(), f"{row['updates']:,}"


def score(cell: list[dict[str, Any]]) -> str:
    if not cell:
        return "-"
    found = estimate([row["score"] for row in cell])
    return f"{found.mean:.1f} [{found.low:.1f}, {found.high:.1f}]" + (f" n={found.seeds}" if found.seeds != 3 else "")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--storage", help="where the sweep ran (default as for the service)")
    found = collect(paths.root(parser.parse_args().storage))
    FOUND.write_text("[\n" + ",\n".join(" " + json.dumps(row) for row in found) + "\n]\n")
    fill(PAGE, "methods", markdown(rows(found)))


if __name__ == "__main__":
    main()
