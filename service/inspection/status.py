"""The state of a sweep as its journal, its lease and its spools tell it."""

from __future__ import annotations

import sys
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from search_spaces.sweep import load_sweep
from service.ledger import lease, manifest
from service.ledger.ledger import Entry, Ledger
from service.planning.plan import duration
from service.spool import lines as spool
from service.storage import paths, trial_objects
from service.terminal.columns import aligned
from service.tracking.shipper import run_id_of
from trainables.errors import UserError

EVERY = 2.0  # seconds between two looks of `--watch`
SHOWN = ("leased", "failed", "diverged")
RUNS_SHOWN = 3  # of the reused ones
HEAD = ("state", "stack", "update", "of", "updates/s", "last report", "trial", "")


@dataclass(frozen=True, kw_only=True)
class Row:
    """One trial: `stack` members train together; `rate` in updates per second and `age` of the newest report in seconds.

    `run` is the id of its MLflow run, empty where nothing of it is shipped yet; `by` the other sweep that did it, where it is reused."""

    key: str
    name: str
    state: str
    stack: int | None = None
    update: int = 0
    updates: int
    rate: float | None = None
    age: float | None = None
    reason: str = ""
    message: str = ""
    warnings: tuple[str, ...] = ()
    run: str = ""
    by: str = ""


@dataclass(frozen=True)
class Status:
    """A sweep: who runs it, `""` where nobody does, and its trials in the order of the plan."""

    sweep: str
    driver: str
    since: str
    rows: tuple[Row, ...]

    @property
    def counts(self) -> dict[str, int]:
        return dict(Counter(row.state for row in self.rows))

    def to_json(self) -> dict[str, Any]:
        rows = [asdict(row) for row in self.rows]
        return {"sweep": self.sweep, "driver": self.driver, "since": self.since, "counts": self.counts, "trials": rows}


def journal_of(name: str, storage: Path) -> Ledger:
    """The ledger of a sweep that has been run; raises UserError for one that has not."""
    load_sweep(name)
    trial_objects.pull(storage)
    ledger = manifest.read(storage, name)
    if not ledger.epoch:
        raise UserError(
            f"sweep {name!r} has not been run in {paths.shown(storage)}; there are: {', '.join(manifest.read_all(storage)) or 'none'}"
        )
    return ledger


def read(name: str, storage: Path) -> Status:
    """The sweep as it is now; raises UserError for one that was never run."""
    ledger = journal_of(name, storage)
    about = lease.holder(storage, name) if lease.alive(storage, name) else {}
    begun = {folder.name for folder in paths.trials(storage).glob("*")}
    rows = tuple(_row(key, entry, storage, key in begun) for key, entry in ledger.entries.items())
    return Status(name, about.get("owner", ""), about.get("since", ""), rows)


def describe(status: Status) -> str:
    """Counts first, then a line for each trial that is under way, waits for another try or ended badly."""
    counts = ", ".join(f"{count} {state}" for state, count in status.counts.items())
    driver = f"run by {status.driver} since {status.since}" if status.driver else "nobody runs it now"
    lines = [f"{status.sweep}: {counts}; {driver}"]
    rows = [row for row in status.rows if row.state in SHOWN or (row.state == "planned" and (row.update or row.reason))]
    if rows:
        lines.append(aligned([HEAD, *map(_cells, rows)]))
    for other in dict.fromkeys(row.by for row in status.rows if row.by):
        runs = [row.run for row in status.rows if row.by == other]
        named = ", ".join(run for run in runs[:RUNS_SHOWN] if run) + (", ... (all: --json)" if len(runs) > RUNS_SHOWN else "")
        lines.append(f"{len(runs)} reused of sweep {other}; MLflow runs: {named or 'not shipped yet'}")
    return "\n".join(lines)


def watch(name: str, storage: Path) -> None:
    """The status again and again, in place on a terminal, until no trial is left to do."""
    while True:
        status = read(name, storage)
        print(("\x1b[H\x1b[2J" if sys.stdout.isatty() else "") + describe(status), flush=True)
        if not status.counts.keys() & {"planned", "leased"} and not (load_sweep(name).search and status.driver):
            return  # but a search has trials that nobody knows yet
        time.sleep(EVERY)


def _row(key: str, entry: Entry, storage: Path, begun: bool) -> Row:
    detail = entry.detail
    found: dict[str, Any] = {"key": key, "name": entry.trial.name, "state": entry.state, "updates": entry.trial.updates}
    found |= {name: str(detail[name]) for name in ("reason", "message") if detail.get(name)}
    found["run"] = run_id_of(storage, key)
    if entry.reused:
        return Row(**found, update=entry.trial.updates, by=str(detail["sweep"]))
    if entry.state == "done":
        return Row(**found, update=entry.trial.updates, rate=detail.get("updates_per_second"))
    if begun:
        lines = spool.read(paths.spool(storage, key))
        found |= {**_at(lines, entry.state), "warnings": warnings_in(lines)}
    return Row(**found, stack=detail.get("size") if entry.state == "leased" else None)


def _at(lines: list[spool.Placed], state: str) -> Mapping[str, Any]:
    """How far the trial is: its newest report where it trains, else what is committed."""
    if state != "leased" or not lines:
        return {"update": max(0, spool.committed_update(lines))}
    rates = [placed.line["metrics"].get("speed/updates_per_second") for placed in lines if placed.line["kind"] == "trained"]
    newest = max(lines, key=lambda placed: placed.line.get("time", 0))
    age = max(0.0, time.time() - newest.line["time"] / 1000)  # of another host's clock perhaps: for people, nothing hangs on it
    return {"update": max(0, *(placed.update for placed in lines)), "rate": rates[-1] if rates else None, "age": round(age, 1)}


def _cells(row: Row) -> tuple[str, ...]:
    rate = f"{row.rate:,.0f}" if row.rate is not None else ""
    age = f"{duration(row.age)} ago" if row.age is not None else ""
    told = "  ".join([*([f"{row.reason}: {row.message}"] if row.reason else []), *row.warnings])
    return row.state, str(row.stack or ""), f"{row.update:,}", f"{row.updates:,}", rate, age, f"{row.key}  {row.name}", told


def warnings_in(lines: list[spool.Placed]) -> tuple[str, ...]:
    """What a trial's newest report on its masks warns of."""
    told = [placed.line["warnings"] for placed in lines if placed.line.get("warnings") is not None]
    return tuple(told[-1]) if told else ()
