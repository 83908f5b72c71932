"""`service archive` and `service adopt`: the finished trials of sweeps as one file, and that file taken into another storage.

Whoever has the file can report on a study, check it or go on with it, without training again what is in it. It holds what MLflow is
filled from, not checkpoints and policies: about 10 kB a trial.

sweeps/<name>.json                                 key -> what the journal says of the trial's end
trials/<key>/{trial.json,spool.jsonl,masks.json}   as in a storage
"""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from service.ledger import manifest
from service.ledger.ledger import Entry, Ledger
from service.ledger.manifest import Manifest
from service.spool import lines as spool
from service.storage import paths, trial_objects
from trainables.errors import UserError, unknown
from trainables.storage.files import write
from trainables.trial import Trial

ABOUT = ("device", "execution", "seconds", "updates_per_second")  # of a trial's end
FILES = (paths.trial_json, paths.spool, paths.masks_json)
LONG_AGO = (1980, 1, 1, 0, 0, 0)  # the time of every part, so that the same trials make the same bytes


@dataclass
class Adopted:
    """What became of an archive's trials, by key: taken, done here before, or begun here and so left alone."""

    taken: dict[str, str] = field(default_factory=dict)
    known: list[str] = field(default_factory=list)
    begun: list[str] = field(default_factory=list)


def archive(sweeps: Sequence[str], to: Path, storage: Path) -> int:
    """Write the finished trials of `sweeps` to the zip file `to`, in place of an older one; returns how many.

    Raises UserError where a sweep is not in the storage or has no finished trial.
    """
    trial_objects.pull(storage)
    ledgers = manifest.read_all(storage)
    parts: dict[str, bytes] = {}
    count = 0
    for name in sweeps:
        if name not in ledgers:
            raise unknown(f"sweep in {paths.shown(storage)}", name, ledgers)
        done = ledgers[name].keys_in("done")
        if not done:
            raise UserError(f"sweep {name!r} has no finished trial yet")
        parts[f"sweeps/{name}.json"] = _json({key: _end(ledgers, ledgers[name].entries[key]) for key in done})
        for key in done:
            parts |= {f"trials/{key}/{path.name}": path.read_bytes() for place in FILES if (path := place(storage, key)).exists()}
        count += len(done)
    write(to.expanduser().absolute(), _zipped(parts))
    return count


def adopt(file: Path, storage: Path) -> dict[str, Adopted]:
    """Take the trials of an archive into the storage as done, sweep by sweep; MLflow gets them at the next run or `sync`.

    A trial that has begun here goes on here. Raises UserError for a file that is no archive, and where a driver runs such a sweep.
    """
    if paths.remote(storage)[0]:
        raise UserError(f"{paths.shown(storage)} is on S3: adopt into a folder (--storage)")
    found: dict[str, Adopted] = {}
    for name, trials in _read(file).items():
        journal = Manifest(storage, name)
        try:
            found[name] = _take(trials, journal, storage)
        finally:
            journal.close()
    return found


def describe(found: Mapping[str, Adopted]) -> str:
    lines = []
    for name, of in found.items():
        more = [f"{len(of.known)} were done here before"] * bool(of.known) + [f"{len(of.begun)} have begun here and go on"] * bool(of.begun)
        lines.append(f"{name}: " + ", ".join([f"{len(of.taken)} trials adopted", *more]))
    return "\n".join([*lines, "`run` goes on with a sweep, `sync` fills MLflow"])


@dataclass(frozen=True)
class _Part:
    """A trial of an archive: its end, and its files by name."""

    trial: Trial
    end: Mapping[str, Any]
    files: Mapping[str, bytes]


def _take(trials: Mapping[str, _Part], journal: Manifest, storage: Path) -> Adopted:
    found = Adopted()
    events: list[tuple[str, str, Mapping[str, Any]]] = []
    for key, part in trials.items():
        if journal.ledger.state(key) == "done":
            found.known.append(key)
        elif spool.read(paths.spool(storage, key)) and journal.ledger.state(key):
            found.begun.append(key)
        else:
            for place in reversed(FILES):  # trial.json last: what a kill leaves behind is no trial, and is written again
                if (path := place(storage, key)).name in part.files:
                    write(path, part.files[path.name])
            if not journal.ledger.state(key):
                events.append((key, "planned", {"trial": part.trial.to_json()}))
            events.append((key, "done", part.end))
            found.taken[key] = part.trial.name
    journal.record_all(events)
    return found


def _read(file: Path) -> dict[str, dict[str, _Part]]:
    """The trials of each sweep, all checked: no name in the archive becomes a path, and each file is what its trial's key says."""
    try:
        with zipfile.ZipFile(file.expanduser()) as parts:
            names = [name for name in parts.namelist() if name.startswith("sweeps/")]
            found = {Path(name).stem: {key: _part(parts, key, end) for key, end in json.loads(parts.read(name)).items()} for name in names}
    except (OSError, ValueError, KeyError, TypeError, AttributeError, zipfile.BadZipFile) as error:
        raise UserError(f"{file} is no archive of trials ({error}); `python -m service archive SWEEP --to FILE` makes one") from error
    if not found:
        raise UserError(f"{file} is no archive of trials: it holds no sweep")
    return found


def _part(parts: zipfile.ZipFile, key: str, end: Mapping[str, Any]) -> _Part:
    names = [place(Path(), key).name for place in FILES]
    there = set(parts.namelist())
    files = {name: parts.read(f"trials/{key}/{name}") for name in names if f"trials/{key}/{name}" in there}
    trial = Trial.from_json(json.loads(files["trial.json"]))
    if trial.key != key:
        raise ValueError(f"trial {key} is {trial.key}")
    for line in files["spool.jsonl"].splitlines():
        json.loads(line)
    return _Part(trial, {name: end[name] for name in ABOUT if name in end}, files)


def _end(ledgers: Mapping[str, Ledger], entry: Entry) -> dict[str, Any]:
    """What the journal of the sweep that trained it says of a trial's end."""
    other = ledgers.get(str(entry.detail.get("sweep")))
    trained = other.entries.get(entry.trial.key, entry) if other else entry
    return {name: trained.detail[name] for name in ABOUT if name in trained.detail}


def _zipped(parts: Mapping[str, bytes]) -> bytes:
    whole = io.BytesIO()
    with zipfile.ZipFile(whole, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as file:
        for name in sorted(parts):
            file.writestr(zipfile.ZipInfo(name, LONG_AGO), parts[name], zipfile.ZIP_DEFLATED, 9)
    return whole.getvalue()


def _json(value: object) -> bytes:
    return json.dumps(value, indent=1, sort_keys=True).encode()
