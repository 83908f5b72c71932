"""`winnow show`: the grid of a sweep as a picture, one sign for each trial."""

from __future__ import annotations

import sys
from collections import Counter
from pathlib import Path
from typing import Any

from search_spaces.sweep import expand, load_sweep
from service.inspection.status import word
from service.ledger import lease, manifest
from service.ledger.others import settle
from service.storage import trial_objects
from service.terminal.columns import aligned
from service.terminal.labels import dataset_name, rank
from trainables.trial import Trial

PLAIN = {"done": "#", "leased": ">", "planned": ".", "failed": "x", "diverged": "!", "stopped": "-"}
DRAWN = PLAIN | {"done": "■", "leased": "▶", "planned": "·", "failed": "✗"}


Found = list[tuple[Trial, str]]


def read(name: str, storage: Path) -> tuple[Found, bool]:
    """All trials that the sweep's runs have planned with their states, and whether a driver runs; of a sweep that was never run
    those of its file, as planned.

    Raises UserError for a sweep that is neither here nor a file's."""
    trial_objects.pull(storage)
    ledger = settle(manifest.read_all(storage, required=name), name)
    if ledger.entries:
        return [(entry.trial, entry.state) for entry in ledger.entries.values()], lease.alive(storage, name)
    return [(trial, "planned") for trial in expand(load_sweep(name))], False


def describe(name: str, found: Found, driven: bool, signs: dict[str, str] | None = None) -> str:
    """A row for each dataset, algorithm and method, a column for each sparsity, and in it a sign for each seed."""
    signs = signs or _signs()
    sparsities = sorted({trial.sparsity for trial, _ in found})
    cells: dict[tuple[str, str, str], dict[float, str]] = {}
    for trial, state in sorted(found, key=lambda each: (each[0].dataset, each[0].algorithm, rank(each[0].method), each[0].seed)):
        row = cells.setdefault((dataset_name(trial.dataset), trial.algorithm, trial.method), {})
        row[trial.sparsity] = row.get(trial.sparsity, "") + signs[state]
    head = ("dataset", "algorithm", "method", *(f"{100 * sparsity:g} %" for sparsity in sparsities))
    count = Counter(state for _, state in found)
    legend = ", ".join(f"{signs[state]} {number} {word(state, driven)}" for state in PLAIN if (number := count[state]))
    rows = [(*labels, *(row.get(sparsity, "") for sparsity in sparsities)) for labels, row in cells.items()]
    return f"{name}: {legend or 'no trials yet: a search suggests them'}" + (f"\n{aligned([head, *rows])}" if rows else "")


def to_json(name: str, found: Found, driven: bool) -> dict[str, Any]:
    fields = ("key", "name", "dataset", "algorithm", "method", "sparsity", "seed")
    trials = [{field: getattr(trial, field) for field in fields} | {"state": word(state, driven)} for trial, state in found]
    return {"sweep": name, "counts": dict(Counter(trial["state"] for trial in trials)), "trials": trials}


def _signs() -> dict[str, str]:
    """Those that stdout's encoding has."""
    try:
        "".join(DRAWN.values()).encode(getattr(sys.stdout, "encoding", None) or "ascii")
    except (UnicodeEncodeError, LookupError):
        return PLAIN
    return DRAWN
