"""`service archive` and `service adopt`: the finished trials of sweeps as one file, and their import into another storage.

With the file others can report on a study, verify it or continue it without training its trials again. It holds the logs that MLflow is
populated from, but no checkpoints and policies: about 10 kB a trial.

sweeps/<name>.json                                 key -> the details of the trial's last event
trials/<key>/{trial.json,spool.jsonl,masks.json}   as in a storage
"""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from service.ledger.ledger import Entry, Ledger
from service.ledger.manifest import Manifest, read_all
from service.planning.data_here import DataHere, versions
from service.spool import lines as spool
from service.storage import paths, trial_objects
from trainables.errors import UserError, unknown
from trainables.storage.files import write
from trainables.trial import Trial

DETAILS = ("device", "execution", "seconds", "updates_per_second")  # of the event `done`
FILES = (paths.trial_json, paths.spool, paths.masks_json)
EARLIEST = (1980, 1, 1, 0, 0, 0)  # the time of every part, so that the same trials give the same bytes


@dataclass
class Adopted:
    """The trials of an archive, by key: imported, already done here, or begun here and so skipped."""

    imported: dict[str, str] = field(default_factory=dict)
    done: list[str] = field(default_factory=list)
    begun: list[str] = field(default_factory=list)


def archive(sweeps: Sequence[str], to: Path, storage: Path) -> int:
    """Write the finished trials of `sweeps` to the zip file `to`, replacing it; returns their number.

    Raises UserError if a sweep is not in the storage or has no finished trial.
    """
    trial_objects.pull(storage)
    ledgers = read_all(storage)
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
            parts |= {f"trials/{key}/{path.name}": path.read_bytes() for path_of in FILES if (path := path_of(storage, key)).exists()}
        count += len(done)
    write(to.expanduser().absolute(), _zipped(parts))
    return count


def adopt(file: Path, storage: Path) -> dict[str, Adopted]:
    """Import the trials of an archive into the storage as done, by sweep; the next `run` or `sync` ships them to MLflow.

    Skips trials that have begun here. Raises UserError for a file that is not an archive, and if a driver runs one of its sweeps.
    """
    if paths.remote(storage)[0]:
        raise UserError(f"{paths.shown(storage)} is on S3: adopt into a folder (--storage)")
    adopted: dict[str, Adopted] = {}
    for name, trials in _read(file).items():
        manifest = Manifest(storage, name)
        try:
            adopted[name] = _import(trials, manifest, storage)
        finally:
            manifest.close()
    return adopted


def describe(adopted: Mapping[str, Adopted]) -> str:
    lines = []
    for name, trials in adopted.items():
        done = [f"{len(trials.done)} were already done here"] * bool(trials.done)
        begun = [f"{len(trials.begun)} have begun here and were skipped"] * bool(trials.begun)
        lines.append(f"{name}: " + ", ".join([f"{len(trials.imported)} trials adopted", *done, *begun]))
    return "\n".join([*lines, "`run` continues a sweep, `sync` ships it to MLflow"])


def version_notes(sweeps: Iterable[str], storage: Path) -> list[str]:
    """A line for each dataset of which finished trials of `sweeps` have seen several versions, or another than the one on this machine."""
    ledgers = read_all(storage)
    trials = {key: ledgers[name].entries[key].trial for name in sweeps for key in ledgers[name].keys_in("done")}
    return versions(list(trials.values()), DataHere(storage, Ledger()))


@dataclass(frozen=True)
class _Part:
    """A trial of an archive: the details of its end, and its files by name."""

    trial: Trial
    end: Mapping[str, Any]
    files: Mapping[str, bytes]


def _import(trials: Mapping[str, _Part], manifest: Manifest, storage: Path) -> Adopted:
    adopted = Adopted()
    events: list[tuple[str, str, Mapping[str, Any]]] = []
    for key, part in trials.items():
        if manifest.ledger.state(key) == "done":
            adopted.done.append(key)
        elif spool.read(paths.spool(storage, key)) and manifest.ledger.state(key):
            adopted.begun.append(key)
        else:
            for path_of in reversed(FILES):  # trial.json last, so that a kill leaves no trial, only files that are written again
                if (path := path_of(storage, key)).name in part.files:
                    write(path, part.files[path.name])
            if not manifest.ledger.state(key):
                events.append((key, "planned", {"trial": part.trial.to_json()}))
            events.append((key, "done", part.end))
            adopted.imported[key] = part.trial.name
    manifest.record_all(events)
    return adopted


def _read(file: Path) -> dict[str, dict[str, _Part]]:
    """The trials of each sweep, validated: no name in the archive becomes a path, and each trial has the key that it is stored under."""
    try:
        with zipfile.ZipFile(file.expanduser()) as parts:
            names = [name for name in parts.namelist() if name.startswith("sweeps/")]
            sweeps = {Path(name).stem: {key: _part(parts, key, end) for key, end in json.loads(parts.read(name)).items()} for name in names}
    except (OSError, ValueError, KeyError, TypeError, AttributeError, zipfile.BadZipFile) as error:
        raise UserError(f"{file} is not an archive of trials ({error}); `python -m service archive SWEEP --to FILE` makes one") from error
    if not sweeps:
        raise UserError(f"{file} is not an archive of trials: it holds no sweep")
    return sweeps


def _part(parts: zipfile.ZipFile, key: str, end: Mapping[str, Any]) -> _Part:
    names = [path_of(Path(), key).name for path_of in FILES]
    existing = set(parts.namelist())
    files = {name: parts.read(f"trials/{key}/{name}") for name in names if f"trials/{key}/{name}" in existing}
    trial = Trial.from_json(json.loads(files["trial.json"]))
    if trial.key != key:
        raise ValueError(f"trial {key} is {trial.key}")
    for line in files["spool.jsonl"].splitlines():
        json.loads(line)
    return _Part(trial, {name: end[name] for name in DETAILS if name in end}, files)


def _end(ledgers: Mapping[str, Ledger], entry: Entry) -> dict[str, Any]:
    """The details of a trial's end, from the sweep that trained it."""
    other = ledgers.get(str(entry.detail.get("sweep")))
    trained = other.entries.get(entry.trial.key, entry) if other else entry
    return {name: trained.detail[name] for name in DETAILS if name in trained.detail}


def _zipped(parts: Mapping[str, bytes]) -> bytes:
    whole = io.BytesIO()
    with zipfile.ZipFile(whole, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as file:
        for name in sorted(parts):
            file.writestr(zipfile.ZipInfo(name, EARLIEST), parts[name], zipfile.ZIP_DEFLATED, 9)
    return whole.getvalue()


def _json(value: object) -> bytes:
    return json.dumps(value, indent=1, sort_keys=True).encode()
