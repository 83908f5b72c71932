"""What share of the dense score a network pruned to 95 % keeps, and what that share depends on: behaviour cloning on two expert sets.

    python benchmarks/retained.py            # run or go on; every finished trial is added to benchmarks/retained.json
    python benchmarks/retained.py table      # writes the tables of docs/retained.md from what is there

SNIP and random ERK masks against dense, over updates, rescaling, learning rate and calibration size; three seeds. The initial weights,
minibatches and evaluation episodes of a seed are the same in every cell, so that differences are paired.
"""

from __future__ import annotations

import json
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tables import fill

from trainables import paths
from trainables.reports import Checkpointed, Evaluated
from trainables.trial import Stack, Trial

RESULTS = Path(__file__).with_suffix(".json")
PAGE = RESULTS.parent.parent / "docs" / "retained.md"
DATASETS = ("winnow/halfcheetah/expert-v0", "winnow/walker2d/expert-v0")
SEEDS = (0, 1, 2)
PRUNERS = ("snip", "random_erk")
LONG = {"updates": 60_000, "evaluations": 3}  # evaluated at 20,000, 40,000 and 60,000
SHORT = {"updates": 20_000, "evaluations": 1}
FAST = {"hyper": {"learning_rate": 1e-3}}


def plan() -> Iterator[tuple[Trial, int]]:
    """What to train and how far, in the order of what one wants to know first."""
    base, dense, variants = [], [], []
    for seed in SEEDS:
        for dataset in DATASETS:
            plain: dict[str, Any] = {"dataset": dataset, "algorithm": "bc", "seed": seed}
            dense.append(Trial(**plain, **LONG))
            for pruner in PRUNERS:
                pruned = plain | {"pruner": pruner, "sparsity": 0.95}
                base += [Trial(**pruned, **LONG, rescale=how) for how in ("none", "layer")]
                variants += [Trial(**pruned, **SHORT, **FAST, rescale=how) for how in ("none", "layer")]
                variants.append(Trial(**pruned, **SHORT, rescale="unit"))
            variants.append(Trial(**plain, pruner="snip", sparsity=0.95, **SHORT, calibration_size=4096))
    yield from ((trial, 20_000) for trial in (*base, *dense, *variants))
    yield from ((trial, 60_000) for trial in (*base, *dense))


def run() -> None:
    """Train what is missing, one trial at a time; checkpoints in the storage root, so that what was cut short goes on."""
    from trainables.run import run_stack

    found = load()
    todo = [(trial, until) for trial, until in plan() if str(until) not in found.get(trial.key, {"scores": {}})["scores"]]
    begun, trained = time.monotonic(), 0
    for number, (trial, until) in enumerate(todo, 1):
        entry = found.setdefault(trial.key, {"trial": trial.to_json(), "scores": {}})
        for report in run_stack(Stack((trial,)), paths.root()):
            if isinstance(report, Evaluated):
                entry["scores"][str(report.update)] = round(statistics.fmean(report.scores[0]), 2)
            elif isinstance(report, Checkpointed) and report.update >= until:
                break
        store(found)
        trained += 20_000
        left = sum(20_000 for _ in todo[number:]) / trained * (time.monotonic() - begun)
        print(f"{number} of {len(todo)}, {left / 60:.0f} min left: {trial.name}: {entry['scores']}", flush=True)


def load() -> dict[str, Any]:
    return json.loads(RESULTS.read_text()) if RESULTS.exists() else {}


def store(found: dict[str, Any]) -> None:
    """Whole or as it was, whenever it is cut short."""
    with tempfile.NamedTemporaryFile("w", dir=RESULTS.parent, delete=False) as file:
        json.dump(found, file, indent=1)
    Path(file.name).replace(RESULTS)


def table() -> str:
    """Markdown: a row per setting, a column per dataset and pruner; mean of the seeds' scores (lowest to highest), share of dense."""
    found = load()
    columns = [(dataset, pruner) for dataset in DATASETS for pruner in PRUNERS]
    head = ["updates", "learning rate", "calibration", "rescale", *(f"{d.split('/')[1]} {p}" for d, p in columns)]
    lines = ["| " + " | ".join(head) + " |", "|" + " --- |" * len(head)]
    settings = {
        (update, t.hyper_values()["learning_rate"], t.calibration_size, t.rescale)
        for t, _ in plan() if t.pruner != "dense" for update in t.evaluation_updates()
    }  # fmt: skip
    for setting in sorted(settings, key=lambda s: (s[1], s[2], s[0], ("none", "layer", "unit").index(s[3]))):
        update, rate, calibration, rescale = setting
        cells = []
        for dataset, pruner in columns:
            own, dense = (
                scores_of(found, dataset, *what, update, rate) for what in ((pruner, rescale, calibration), ("dense", "none", 256))
            )
            share = f", {100 * statistics.fmean(own) / statistics.fmean(dense):.0f} %" if own and dense else ""
            cells.append(f"{statistics.fmean(own):.1f} ({min(own):.1f} to {max(own):.1f}){share}" if own else "")
        lines.append(f"| {update:,} | {rate:g} | {calibration} | {rescale} | " + " | ".join(cells) + " |")
    for dataset in DATASETS:
        levels = [
            (u, r, scores_of(found, dataset, "dense", "none", 256, u, r)) for u, r in ((20_000, 3e-4), (60_000, 3e-4), (20_000, 1e-3))
        ]
        lines.append(f"\nDense on {dataset}: " + "; ".join(f"{statistics.fmean(s):.1f} at {u:,} ({r:g})" for u, r, s in levels if s))
    return "\n".join(lines)


def scores_of(found: dict[str, Any], dataset: str, pruner: str, rescale: str, calibration: int, update: int, rate: float) -> list[float]:
    """The seeds' scores of one cell after `update`."""
    wanted = {"dataset": dataset, "pruner": pruner, "rescale": rescale, "calibration_size": calibration}
    return [
        entry["scores"][str(update)]
        for entry in found.values()
        if all(entry["trial"][name] == value for name, value in wanted.items())
        and entry["trial"]["hyper"].get("learning_rate", 3e-4) == rate and str(update) in entry["scores"]
    ]  # fmt: skip


if __name__ == "__main__":
    fill(PAGE, "retained", table()) if sys.argv[1:] == ["table"] else run()
