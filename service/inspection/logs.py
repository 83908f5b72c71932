"""`winnow logs`: the history of one trial and its files."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from service.ledger import manifest
from service.ledger.lookup import lookup, nearest
from service.spool import lines as spool
from service.storage import paths, trial_objects
from trainables.errors import UserError
from trainables.output import printable

FILES = (paths.spool, paths.checkpoints, paths.masks, paths.policy)


def story(wanted: str, storage: Path) -> dict[str, Any]:
    """Everything in manifests and spool about the trial `wanted`: a key, the beginning of one, or a name. Raises UserError for others."""
    trial_objects.pull(storage)
    ledgers = manifest.read_all(storage)
    entries = {key: entry for ledger in ledgers.values() for key, entry in ledger.entries.items()}
    names = {key: entry.trial.name for key, entry in entries.items()}
    key = lookup(wanted, names)
    if key is None:
        raise UserError(f"no trial {wanted!r} in {paths.shown(storage)}; the nearest: {nearest(wanted, names)}")
    events = [
        {"sweep": name, "state": event.state, "time": event.time, "epoch": event.epoch, **_without_trial(event.detail)}
        for name, ledger in ledgers.items()
        if key in ledger.entries
        for event in ledger.entries[key].events
    ]
    lines = spool.read(paths.spool(storage, key))
    return {
        "key": key,
        "trial": entries[key].trial.to_json(),
        "name": entries[key].trial.name,
        "manifest": sorted(events, key=lambda event: float(event["time"])),
        "committed_update": committed if (committed := spool.committed_update(lines)) >= 0 else None,
        "spool": [placed.line for placed in lines],
        "files": [str(path_of(storage, key)) for path_of in FILES if path_of(storage, key).exists()],
    }


def describe(story: dict[str, Any]) -> str:
    """The story as text: events by time, the spool in brief, the traceback of the last failure."""
    lines = [printable(f"{story['key']}  {story['name']}", lines=False), "", "manifest (times in UTC)"]
    for event in story["manifest"]:
        about = ", ".join(printable(f"{name} {event[name]}", lines=False) for name in event if name not in ("state", "time", "traceback"))
        lines.append(f"  {_when(event['time'])}  {event['state']:<9}{about}")
    committed = story["committed_update"]
    lines += ["", f"spool ({'nothing' if committed is None else f'{committed:,} updates'} committed)"]
    lines += [f"  {_when(line['time'] / 1000)}  {line['kind']:<13}{_brief(line)}" for line in story["spool"]]
    tracebacks = [event["traceback"] for event in story["manifest"] if "traceback" in event]
    if tracebacks:
        lines += ["", "the last failure", *(f"  {line}" for line in tracebacks[-1].rstrip().splitlines())]
    lines += ["", "files", *(f"  {file}" for file in story["files"])]
    return "\n".join(lines)


def _without_trial(detail: Any) -> dict[str, Any]:
    return {name: value for name, value in detail.items() if name != "trial"}


def _brief(line: dict[str, Any]) -> str:
    """The line without its time and kind, with rounded numbers."""
    values = {n: v for n, v in line.items() if n not in ("time", "kind", "metrics", "returns", "scores", "successes")} | line.get(
        "metrics", {}
    )
    shown = (f"{name} {value:.4g}" if isinstance(value, float) else f"{name} {value}" for name, value in values.items())
    return printable(", ".join(shown), lines=False)


def _when(seconds: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(seconds))
