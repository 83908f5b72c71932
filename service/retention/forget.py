"""`winnow forget`: removes sweeps, or their failed trials, with everything of theirs that no other sweep uses, for good.

The order makes a kill at any moment harmless: the journal first says what is no longer the sweep's; then runs go, then files, then the
sweep.
What another sweep has planned by then stays. A driver that plans a trial later finds it whole, or gone (docs/decisions/032-forget.md).
"""

from __future__ import annotations

import math
import re
import time
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from service.ledger import lease, manifest
from service.ledger.heartbeat import Heartbeat
from service.ledger.ledger import Ledger
from service.ledger.manifest import Manifest
from service.results.summary import Summary
from service.retention import room
from service.retention.room import Sizes
from service.retention.runs import Removal, folder_of, parent_of
from service.storage import paths, removal, trial_objects
from service.storage.commands import command
from service.storage.trial_objects import in_parallel
from service.tracking.cursor import run_id_of
from service.tracking.shipping.shipper import Shipper
from service.tracking.sql.many import AT_ONCE
from trainables.errors import SupersededError, UserError, unknown

FAILED = ("failed", "diverged")
UNITS = {"min": 60.0, "h": 3600.0, "d": 86_400.0, "w": 604_800.0}


@dataclass
class Chosen:
    """A sweep and which of its trials go: all of them, with the sweep (`whole`), or those that failed.

    before      what has changed since that time does not go
    kept        trials that stay because other sweeps use them, by key, and one such sweep
    sizes       bytes by kind of what goes; `artifacts` those of MLflow's files on this machine
    runs        MLflow runs that go, the sweep's own included; `registered` of them stay for a registered model
    elsewhere   trials whose runs are in another MLflow than the one that is asked
    """

    sweep: str
    whole: bool
    running: bool
    keys: list[str]
    before: float = math.inf
    kept: dict[str, str] = field(default_factory=dict)
    sizes: Sizes = field(default_factory=Counter)
    artifacts: int = 0
    runs: int = 0
    registered: int = 0
    elsewhere: int = 0

    def to_json(self) -> dict[str, Any]:
        about = {"sweep": self.sweep, "whole": self.whole, "running": self.running, "trials": len(self.keys), "kept": self.kept}
        numbers = {"runs": self.runs, "registered": self.registered, "elsewhere": self.elsewhere}
        return {**about, "bytes": {**self.sizes, "artifacts": self.artifacts}, **numbers}


def age(text: str) -> float:
    """`30d`, `12h`, `90min` or `2w` in seconds. Raises UserError."""
    if not (found := re.fullmatch(rf"(\d+(?:\.\d+)?)({'|'.join(UNITS)})", text)):
        raise UserError(f"--older-than {text!r} is not an age: a number and {', '.join(UNITS)}, e.g. 30d")
    return float(found[1]) * UNITS[found[2]]


def choose(storage: Path, names: Collection[str], older_than: float | None, failed: bool) -> tuple[list[Chosen], Removal]:
    """What would go, and the connection to MLflow that can remove it. Writes nothing.

    Raises UserError for an unknown sweep, and where MLflow does not answer."""
    trial_objects.pull(storage)
    ledgers, tracking = manifest.read_all(storage), Removal(storage)
    for name in names:
        if name not in ledgers:
            manifest.read(storage, name)  # says how its journal is damaged, where it has one
            raise unknown("sweep", name, ledgers, f" in {paths.shown(storage)}")
    found, before = [], math.inf if older_than is None else time.time() - older_than
    for name in dict.fromkeys(names) or list(ledgers):
        keys = _keys(ledgers[name], before, failed)
        if keys is None:
            continue
        chosen = Chosen(name, not failed, lease.alive(storage, name), keys, before)
        chosen.kept = _users(keys, ledgers, name)
        chosen.keys = [key for key in keys if key not in chosen.kept]
        if not failed:
            del ledgers[name]  # what only this one and a later one of them share goes with that one
        else:
            for key in keys:  # the same
                ledgers[name].entries.pop(key, None)
        found.append(chosen)
    _measure(found, tracking, storage)
    return found, tracking


def forget(chosen: Chosen, tracking: Removal, storage: Path) -> None:
    """Remove it. Raises UserError where a driver runs the sweep or has run it since, and where MLflow does not answer; called again, it
    continues."""
    name, lost = chosen.sweep, list[str]()
    settings = dict(manifest.read(storage, name).settings)
    journal = Manifest(storage, name, settings or None)
    try:
        with Heartbeat(journal.lease, paths.stop_request(storage, name), lambda why, code=1: lost.append(why)):
            ledger = journal.ledger
            if not {*chosen.keys, *chosen.kept} <= {*(_keys(ledger, chosen.before, not chosen.whole) or ())}:
                raise UserError(f"sweep {name!r} was run meanwhile: nothing of it is removed")
            whole = (*ledger.entries, *ledger.unreadable) if chosen.whole else ()
            keys = sorted({*chosen.keys, *chosen.kept, *whole, *_leftovers(ledger)})
            journal.forget(keys, everything=chosen.whole)
            runs, registered = tracking.runs(keys), tracking.registered()
            kept = dict[str, str]()
            for start in range(0, len(keys), AT_ONCE):
                if lost:
                    raise SupersededError(lost[0])
                kept |= _remove(keys[start : start + AT_ONCE], name, runs, registered, tracking, storage)
            if chosen.whole:
                _remove_sweeps_runs(name, kept, runs, tracking)
        if chosen.whole:
            removal.remove_sweep(storage, name)
            removal.remove_bookkeeping(storage, name)
        elif tracking.sweep_runs_of(name):
            # What the sweep's run says of all its trials: the plan, curves, means.
            Shipper(storage, name, journal.ledger, tracking, summary=Summary(journal.ledger, tracking)).ship()
    except SupersededError as error:
        raise UserError(f"sweep {name!r} is not forgotten: {error}; `forget` again finishes it") from None
    finally:
        journal.close()
    removal.remove_leftovers(storage)


def describe(found: Sequence[Chosen], tracking: Removal, storage: Path, *, done: bool) -> str:
    """A paragraph per sweep."""
    lines = []
    for each in found:
        what = "and the sweep" if each.whole else "that failed"
        size, gone = room.shown(sum(each.sizes.values()) + each.artifacts), " removed" if done and not each.running else ""
        lines.append(f"{each.sweep}: {len(each.keys)} trials {what}, {each.runs} MLflow runs, {size}{gone}")
        if each.keys:
            local = f", MLflow's artifacts {room.shown(each.artifacts)}" if each.artifacts else ""
            lines.append(f"  {room.by_kind(each.sizes)}{local}")
        for other, count in Counter(each.kept.values()).items():
            lines.append(f"  {count} {'stay' if count > 1 else 'stays'}: sweep {other} uses {'them' if count > 1 else 'it'}")
        if each.running:
            lines.append(f"  a driver runs it: nothing of it is removed; `{command('stop', each.sweep, storage=storage)}` ends it")
        if each.registered:
            lines.append(f"  {each.registered} runs stay in MLflow: their policies are versions of registered models")
        if each.elsewhere:
            lines.append(f"  {each.elsewhere} trials have runs in another MLflow, which stay; set MLFLOW_TRACKING_URI to remove them, too")
    if not tracking.for_good and any(each.runs for each in found):
        lines.append("a server of MLflow keeps runs as deleted, without artifacts, until `mlflow gc` is run on its host")
    return "\n".join(lines) or f"nothing to forget in {paths.shown(storage)}"


def _keys(ledger: Ledger, before: float, failed: bool) -> list[str] | None:
    """The trials of a sweep whose last change was `before` that time; None where the sweep itself is not chosen."""
    left = _leftovers(ledger)
    if failed:
        keys = [key for key, entry in ledger.entries.items() if entry.state in FAILED and entry.events[-1].time < before]
        return [*keys, *left] or None
    if any(entry.events and entry.events[-1].time >= before for entry in ledger.entries.values()):
        return None
    return [*ledger.entries, *ledger.unreadable, *left]


def _leftovers(ledger: Ledger) -> list[str]:
    """Trials that an earlier `forget` has not removed, as far as the journal knows."""
    return sorted(ledger.forgotten - ledger.entries.keys())


def _users(keys: Iterable[str], ledgers: Mapping[str, Ledger], name: str) -> dict[str, str]:
    """Those of the trials that other sweeps have planned, whatever became of them there, and one such sweep."""
    others = [(other, ledger.entries.keys() | ledger.unreadable.keys()) for other, ledger in ledgers.items() if other != name]
    return {key: other for key in keys for other, entries in others if key in entries}


def _measure(found: Sequence[Chosen], tracking: Removal, storage: Path) -> None:
    keys = [key for each in found for key in each.keys]
    runs, registered = tracking.runs(keys), tracking.registered() if keys else set()
    sizes = room.of_trials(storage, keys)
    for each in found:
        own = [run for key in each.keys for run in runs.get(key, [])]
        each.registered = sum(run.info.run_id in registered for run in own)
        each.runs = len(own) - each.registered + (len(tracking.sweep_runs_of(each.sweep)) if each.whole else 0)
        each.artifacts = sum(room.of_folder(folder) for run in own if (folder := folder_of(run)) and run.info.run_id not in registered)
        each.elsewhere = sum(bool(run_id_of(storage, key)) and key not in runs for key in each.keys)
        for key in each.keys:
            each.sizes.update(sizes.get(key, {}))


def _remove(
    keys: Sequence[str], name: str, runs: Mapping[str, list[Any]], registered: Collection[str], tracking: Removal, storage: Path
) -> dict[str, str]:
    """Remove those of the trials that no other sweep has planned by now, unless a worker claims one meanwhile; returns the others."""
    versions = removal.versions(storage, keys)
    kept = _users(keys, manifest.read_all(storage, without=name), name)
    gone = [key for key in keys if key not in kept]
    own = [run for key in gone for run in runs.get(key, [])]
    for run in (run for run in own if run.info.run_id in registered):
        tracking.disown(run)
    tracking.remove([run for run in own if run.info.run_id not in registered])
    in_parallel(lambda key: removal.remove_trial(storage, key, versions[key]), gone)
    return kept


def _remove_sweeps_runs(name: str, kept: Mapping[str, str], runs: Mapping[str, list[Any]], tracking: Removal) -> None:
    """Remove the sweep's own run, after what other sweeps use has moved below theirs."""
    own = tracking.sweep_runs_of(name)
    ids = {run.info.run_id for run in own}
    for other in dict.fromkeys(kept.values()):
        below = [run.info.run_id for key in kept if kept[key] == other for run in runs.get(key, []) if parent_of(run) in ids]
        if below:
            tracking.move_children(below, other)
    tracking.remove(own)
    tracking.compact()
