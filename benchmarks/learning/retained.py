"""What share of the dense score a network pruned to 95 % keeps, and what that share depends on: behaviour cloning on two expert sets.

    python -m benchmarks.learning.retained            # run or go on; every finished trial is added to benchmarks/learning/retained.json
    python -m benchmarks.learning.retained table      # writes the tables of docs/retained.md from what is there

SNIP and random ERK masks against dense, over updates, rescaling, learning rate and calibration; three seeds. The initial weights,
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

from benchmarks.tables import fill, markdown
from service.storage import paths
from service.terminal.labels import method_name
from trainables.reports import Checkpointed, Evaluated
from trainables.trial import Stack, Trial

RESULTS = Path(__file__).with_suffix(".json")
PAGE = Path(__file__).parents[2] / "docs" / "retained.md"
DATASETS = ("winnow/halfcheetah/expert-v0", "winnow/walker2d/expert-v0")
SEEDS = (0, 1, 2)
PRUNERS = ("snip", "random_erk")
COLUMNS = [(dataset, pruner) for dataset in DATASETS for pruner in PRUNERS]
LONG = {"updates": 60_000, "evaluations": 3}  # evaluated at 20,000, 40,000 and 60,000
SHORT = {"updates": 20_000, "evaluations": 1}
FAST = {"hyper": {"learning_rate": 1e-3}}
CALIBRATIONS: tuple[dict[str, Any], ...] = ({"calibration_size": 4096}, {"calibration_batches": 16})

# What a row is: updates, learning rate, batches of calibration, their size, rescaling.
Setting = tuple[int, float, int, int, str]


def plan() -> Iterator[tuple[Trial, int]]:
    """What to train and how far, in the order of what one wants to know first."""
    base, dense, variants, fast = [], [], [], []
    for seed in SEEDS:
        for dataset in DATASETS:
            plain: dict[str, Any] = {"dataset": dataset, "algorithm": "bc", "seed": seed}
            dense.append(Trial(**plain, **LONG))
            fast.append(Trial(**plain, **SHORT, **FAST))
            for pruner in PRUNERS:
                pruned = plain | {"pruner": pruner, "sparsity": 0.95}
                base += [Trial(**pruned, **LONG, rescale=how) for how in ("none", "layer")]
                variants += [Trial(**pruned, **SHORT, **FAST, rescale=how) for how in ("none", "layer")]
                variants.append(Trial(**pruned, **SHORT, rescale="unit"))
            variants += [Trial(**plain, pruner="snip", sparsity=0.95, **SHORT, **data) for data in CALIBRATIONS]  # ERK sees no data
    yield from ((trial, 20_000) for trial in (*base, *dense, *variants, *fast))
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
                entry["scores"][str(report.update)] = round(statistics.fmean(report.episodes[0]["scores"]), 2)
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


def cells(found: dict[str, Any]) -> dict[tuple[str, str], dict[Setting, dict[int, float]]]:
    """All that was measured: (dataset, pruner) -> setting -> seed -> score."""
    sorted_out: dict[tuple[str, str], dict[Setting, dict[int, float]]] = {}
    for entry in found.values():
        trial = Trial.from_json(entry["trial"])
        rate = trial.hyper_values()["learning_rate"]
        for update, score in entry["scores"].items():
            setting = (int(update), rate, trial.calibration_batches, trial.calibration_size, trial.rescale)
            sorted_out.setdefault((trial.dataset, trial.pruner), {}).setdefault(setting, {})[trial.seed] = score
    return sorted_out


def table(found: dict[str, Any]) -> Iterator[list[str]]:
    """A row per setting: mean of the seeds' scores (lowest to highest) and the share of dense over the seeds that both have."""
    measured = cells(found)
    yield ["updates", "learning rate", "calibration", "rescale", *(f"{d.split('/')[1]} {method_name(p)}" for d, p in COLUMNS)]
    settings = {setting for (_, pruner), own in measured.items() if pruner != "dense" for setting in own}
    for setting in sorted(settings, key=lambda s: (s[1], s[2:4], s[0], ("none", "layer", "unit").index(s[4]))):
        update, rate, batches, size, rescale = setting
        row = []
        for dataset, pruner in COLUMNS:
            dense = measured.get((dataset, "dense"), {}).get((update, rate, 1, 256, "none"), {})
            row.append(cell(measured.get((dataset, pruner), {}).get(setting, {}), dense))
        yield [f"{update:,}", f"{rate:g}", f"{batches} x {size}", rescale, *row]


def dense_table(found: dict[str, Any]) -> Iterator[list[str]]:
    """A row per budget and learning rate of the dense networks."""
    measured = {dataset: cells(found).get((dataset, "dense"), {}) for dataset in DATASETS}
    yield ["updates", "learning rate", *(f"{dataset.split('/')[1]} dense" for dataset in DATASETS)]
    for setting in sorted({setting for own in measured.values() for setting in own}, key=lambda s: (s[1], s[0])):
        yield [f"{setting[0]:,}", f"{setting[1]:g}", *(cell(measured[dataset].get(setting, {}), {}) for dataset in DATASETS)]


def cell(own: dict[int, float], dense: dict[int, float]) -> str:
    """`47.0 (43.1 to 50.0), 72 %`, with the number of seeds where it is not all of them."""
    if not own:
        return ""
    text = f"{statistics.fmean(own.values()):.1f} ({min(own.values()):.1f} to {max(own.values()):.1f})"
    both = sorted(own.keys() & dense.keys())
    if both:
        text += f", {100 * statistics.fmean(own[s] for s in both) / statistics.fmean(dense[s] for s in both):.0f} %"
    return text + (f" n={len(own)}" if len(own) < len(SEEDS) else "")


if __name__ == "__main__":
    if sys.argv[1:] == ["table"]:
        fill(PAGE, "retained", markdown(table(load())))
        fill(PAGE, "dense", markdown(dense_table(load())))
    else:
        run()
