"""`winnow list`: the sweeps that there are, in files, in this storage and in MLflow, with their state and age."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from search_spaces.sweep import sweep_names
from service.ledger import lease, manifest
from service.ledger.ledger import TERMINAL, Ledger
from service.ledger.others import settle
from service.storage import trial_objects
from service.terminal.columns import aligned
from service.terminal.words import duration
from service.tracking.connection import TrackingError
from service.tracking.runs import Tracking
from trainables.output import printable

COLUMNS = ("sweep", "here", "done", "of", "failed", "changed", "in MLflow", "begun")
NEVER, ONLY_THERE = "never run", ""


@dataclass(frozen=True, kw_only=True)
class Listed:
    """A sweep. `state` here: running, finished, unfinished, limit reached, never run, or empty where only MLflow holds it; `age` is in
    seconds since it last changed. `mlflow` is the status of its newest run there, empty without one, begun `mlflow_age` seconds ago."""

    sweep: str
    state: str
    done: int = 0
    trials: int = 0
    failed: int = 0
    age: float | None = None
    mlflow: str = ""
    mlflow_age: float | None = None


def read(storage: Path) -> tuple[list[Listed], str]:
    """All sweeps: those here by their last change, the newest first, then those in MLflow alone, then those never run. Also why MLflow
    could not be read, empty where it could."""
    trial_objects.pull(storage)
    ledgers, there, trouble = manifest.read_all(storage), dict[str, Any](), ""
    try:
        there = {run.data.tags["winnow.sweep"]: run for run in reversed(Tracking(storage).sweep_runs())}
    except TrackingError as error:
        trouble = str(error)
    now = time.time()
    names = dict.fromkeys([*ledgers, *there, *sweep_names()])
    changed = {name: _changed(ledger) for name, ledger in ledgers.items()}  # what `settle` adds happens now
    for name in ledgers:
        settle(ledgers, name)
    found = [_listed(name, ledgers.get(name), there.get(name), changed.get(name), storage, now) for name in names]
    return sorted(found, key=lambda each: (each.age is None, each.state == NEVER, each.age or each.mlflow_age or 0.0, each.sweep)), trouble


def describe(found: Sequence[Listed], trouble: str) -> str:
    """A table, without the columns of MLflow where it could not be read."""
    rows = [COLUMNS, *map(_cells, found)]
    text = aligned(rows if not trouble else [row[:6] for row in rows])
    return text + (f"\nMLflow is not shown: {printable(trouble, lines=False)}" if trouble else "")


def to_json(found: Sequence[Listed], trouble: str) -> dict[str, Any]:
    return {"sweeps": [asdict(each) for each in found], "trouble": trouble}


def _changed(ledger: Ledger) -> float | None:
    """When a sweep's last event was; None without one."""
    return max((entry.events[-1].time for entry in ledger.entries.values()), default=None)


def _listed(name: str, ledger: Ledger | None, run: Any, changed: float | None, storage: Path, now: float) -> Listed:
    about: dict[str, Any] = {"sweep": name, "state": ONLY_THERE if run else NEVER}
    if run:
        about |= {"mlflow": run.info.status.lower(), "mlflow_age": max(0.0, now - run.info.start_time / 1000)}
    if ledger is None or not ledger.epoch:
        return Listed(**about)
    count: Mapping[str, int] = Counter(entry.state for entry in ledger.entries.values())
    left = sum(number for state, number in count.items() if state not in TERMINAL)
    ended = ("limit reached" if ledger.limit else "unfinished") if left else "finished"
    state = "running" if lease.alive(storage, name) else ended
    about |= {"state": state, "done": count["done"], "trials": len(ledger.entries), "failed": count["failed"] + count["diverged"]}
    return Listed(**about, age=None if changed is None else max(0.0, now - changed))


def _cells(each: Listed) -> tuple[str, ...]:
    counts = (str(each.done), str(each.trials), str(each.failed or "")) if each.trials else ("", "", "")
    return (each.sweep, each.state, *counts, _ago(each.age), each.mlflow, _ago(each.mlflow_age))


def _ago(seconds: float | None) -> str:
    return "" if seconds is None else f"{duration(seconds)} ago"
