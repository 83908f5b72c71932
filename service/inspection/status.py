"""`winnow status`: the state of a sweep, from its journal, its lease and its spools."""

from __future__ import annotations

import json
import sys
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from service.ledger import lease
from service.ledger.ledger import Entry, Ledger
from service.ledger.others import ledger_of
from service.spool import lines as spool
from service.storage import paths, shared_files
from service.storage.commands import command
from service.terminal.columns import aligned
from service.terminal.display import is_screen
from service.terminal.words import duration
from service.tracking.cursor import run_id_of
from trainables.output import printable

EVERY = 2.0  # seconds between two updates of `--watch`
SHOWN = ("leased", "failed", "diverged")
RUNS_SHOWN = 3  # runs named for each sweep whose trials are reused
COLUMNS = ("state", "stack", "update", "of", "updates/s", "last report", "trial", "")


@dataclass(frozen=True, kw_only=True)
class Row:
    """One trial: `stack` members train together; `rate` in its own updates per second, `age` of the newest report in seconds.

    `silent`: seconds for which the driver has heard nothing of its worker, where that is much longer than usual.
    `run` is the id of its MLflow run, `""` if nothing has been shipped or it was not asked for; `by` is the other sweep that trained it,
    if it is reused."""

    key: str
    name: str
    state: str
    stack: int | None = None
    update: int = 0
    updates: int
    rate: float | None = None
    age: float | None = None
    silent: float | None = None
    reason: str = ""
    message: str = ""
    warnings: tuple[str, ...] = ()
    run: str = ""
    by: str = ""


@dataclass(frozen=True)
class Status:
    """A sweep: its driver, `""` if none runs, how many trials are in which state, and its trials in the order of the plan."""

    sweep: str
    driver: str
    since: str
    counts: Mapping[str, int]
    rows: tuple[Row, ...]
    resume: str  # the command that finishes it
    limit: str = ""  # that ended its newest run, e.g. `--max-hours=2`
    adaptive: bool = False
    share: Mapping[str, Any] | None = None  # of a cluster that other sweeps use, too, as the driver has written it

    def to_json(self) -> dict[str, Any]:
        rows = [asdict(row) | {"state": word(row.state, bool(self.driver))} for row in self.rows]
        counts = dict(Counter(row["state"] for row in rows))
        about = {"sweep": self.sweep, "driver": self.driver, "since": self.since, "limit": self.limit, "share": self.share}
        return about | {"counts": counts, "trials": rows}


def read(name: str, storage: Path, *, whole: bool = True) -> Status:
    """The current state of a sweep. Raises UserError if it has never been run. What is not `whole` has only the rows that `describe` shows,
    and ids of runs as far as it names them."""
    ledger = ledger_of(name, storage)
    about = lease.holder(storage, name) if lease.alive(storage, name) else {}
    silent = _silent(name, storage) if about else {}
    begun = {folder.name for folder in paths.trials(storage).glob("*")}
    named = set(ledger.entries) if whole else _named(ledger)
    rows = tuple(
        _row(key, entry, storage, key in begun, silent.get(key), run_id_of(storage, key) if key in named else "")
        for key, entry in ledger.entries.items()
        if whole or entry.state != "done" or entry.reused
    )
    counts = Counter(entry.state for entry in ledger.entries.values())
    resume = command("resume", name, storage=storage)
    share = _share(name, storage) if about else None
    limit = "" if about else ledger.limit
    return Status(name, about.get("owner", ""), about.get("since", ""), counts, rows, resume, limit, ledger.adaptive, share)


def _named(ledger: Ledger) -> set[str]:
    """The trials whose runs `describe` names: the first few of each other sweep."""
    known: dict[str, list[str]] = {}
    for key, entry in ledger.entries.items():
        if entry.reused and len(some := known.setdefault(str(entry.detail["sweep"]), [])) < RUNS_SHOWN:
            some.append(key)
    return {key for some in known.values() for key in some}


def describe(status: Status) -> str:
    """Counts first, then a line for each trial that is training, waits to be retried, or failed."""
    counts = ", ".join(f"{count} {word(state, bool(status.driver))}" for state, count in status.counts.items())
    driver = f"run by {status.driver} since {status.since}" if status.driver else "nobody runs it now"
    if status.limit:
        driver = f"limit reached ({status.limit})"
    if not status.driver and status.counts.keys() & {"planned", "leased"}:
        driver += f"; `{status.resume}` finishes it"
    lines = [f"{status.sweep}: {counts}; {driver}"]
    if status.share:
        lines.append(f"share: {status.share['text']}")
    rows = [row for row in status.rows if row.state in SHOWN or (row.state == "planned" and (row.update or row.reason))]
    if rows:
        lines.append(aligned([COLUMNS, *(_cells(row, bool(status.driver)) for row in rows)]))
    for other in dict.fromkeys(row.by for row in status.rows if row.by):
        runs = [row.run for row in status.rows if row.by == other]
        named = ", ".join(run for run in runs[:RUNS_SHOWN] if run) + (", ... (all: --json)" if len(runs) > RUNS_SHOWN else "")
        lines.append(f"{len(runs)} reused of sweep {other}; MLflow runs: {named or 'not shipped yet'}")
    return "\n".join(lines)


def word(state: str, driven: bool) -> str:
    """A state as commands show it, as text and as JSON; the journal keeps its own words. What is leased runs only where a driver does."""
    return ("running" if driven else "interrupted") if state == "leased" else state


def watch(name: str, storage: Path) -> None:
    """Print the status repeatedly, in place on a terminal, until no trial is left to train."""
    while True:
        status = read(name, storage, whole=False)
        print(("\x1b[H\x1b[2J" if is_screen(sys.stdout) else "") + printable(describe(status)), flush=True)
        if not status.counts.keys() & {"planned", "leased"} and not (status.driver and (status.adaptive or not status.counts)):
            return  # a running search may still suggest trials, and a driver that has just begun plans some
        time.sleep(EVERY)


def _silent(name: str, storage: Path) -> dict[str, float]:
    """The trials whose workers are silent, as the driver has written; seconds by key."""
    try:
        return {str(key): float(seconds) for key, seconds in json.loads(shared_files.read(paths.silent(storage, name))).items()}
    except (FileNotFoundError, ValueError, AttributeError, TypeError):
        return {}


def _share(name: str, storage: Path) -> Mapping[str, Any] | None:
    """What the sweep may use of a cluster that it shares, as its driver has written; None where it shares none."""
    try:
        about = json.loads(shared_files.read(paths.share(storage, name)))
    except (FileNotFoundError, ValueError):
        return None
    return about if isinstance(about, dict) and isinstance(about.get("text"), str) else None


def _row(key: str, entry: Entry, storage: Path, begun: bool, silent: float | None, run: str) -> Row:
    detail = entry.detail
    columns: dict[str, Any] = {"key": key, "name": entry.trial.name, "state": entry.state, "updates": entry.trial.updates}
    columns |= {name: str(detail[name]) for name in ("reason", "message") if detail.get(name)}
    columns["run"] = run
    if entry.reused:
        return Row(**columns, update=entry.trial.updates, by=str(detail["sweep"]))
    if entry.state == "done":
        return Row(**columns, update=entry.trial.updates, rate=_own_rate(entry))
    if begun:
        lines = spool.read(paths.spool(storage, key))
        columns |= {**_at(lines, entry.state), "warnings": warnings_in(lines)}
    if entry.state == "leased":
        columns |= {"stack": detail.get("size"), "silent": silent}
    return Row(**columns)


def _own_rate(entry: Entry) -> float | None:
    """A finished trial's own updates per second, as those of one that trains are shown; None where its stack's size is not known.

    The journal has the stack's, all its members' together.
    """
    rate = entry.detail.get("updates_per_second")
    size = next((event.detail["size"] for event in reversed(entry.events) if event.state == "leased" and "size" in event.detail), None)
    return round(rate / size, 1) if rate and size else None


def _at(lines: list[spool.Placed], state: str) -> Mapping[str, Any]:
    """How far the trial is: its newest report while it trains, else its last committed update."""
    if state != "leased" or not lines:
        return {"update": max(0, spool.committed_update(lines))}
    rates = [placed.line["metrics"].get("speed/updates_per_second") for placed in lines if placed.line["kind"] == "trained"]
    newest = max(lines, key=lambda placed: placed.line.get("time", 0))
    age = max(0.0, time.time() - newest.line["time"] / 1000)  # perhaps by another host's clock; only shown
    return {"update": max(0, *(placed.update for placed in lines)), "rate": rates[-1] if rates else None, "age": round(age, 1)}


def _cells(row: Row, driven: bool) -> tuple[str, ...]:
    rate = f"{row.rate:,.0f}" if row.rate is not None else ""
    age = f"{duration(row.age)} ago" if row.age is not None else ""
    silent = [f"its worker has been silent for {duration(row.silent)}"] if row.silent is not None else []
    why = ": ".join(filter(None, [row.reason, row.message]))
    notes = "  ".join([*silent, *filter(None, [why]), *row.warnings])
    return (
        word(row.state, driven),
        str(row.stack or ""),
        f"{row.update:,}",
        f"{row.updates:,}",
        rate,
        age,
        f"{row.key}  {row.name}",
        notes,
    )


def warnings_in(lines: list[spool.Placed]) -> tuple[str, ...]:
    """The warnings of a trial's newest report on its masks."""
    warnings = [placed.line["warnings"] for placed in lines if placed.line.get("warnings") is not None]
    return tuple(warnings[-1]) if warnings else ()
