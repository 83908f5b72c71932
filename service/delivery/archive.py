"""`service archive`: the trials of sweeps as one file, for another storage (adopt.py).

With the file others can report on a study, verify it or continue it without training its trials again. It holds the logs that MLflow is
populated from, but no policies: about 10 kB a trial. Of unfinished trials it may hold the newest checkpoint, some 100 kB to 4 MB each, of
ensembles more.

sweeps/<name>.json                                 key -> the details of the trial's last event
suggestions/<name>.json                            of an adaptive sweep: what its studies have suggested, without what is not done
unfinished/<name>.json                             key -> the update of the checkpoint that the trial goes on from
trials/<key>/{trial.json,spool.jsonl,masks.json}   as in a storage
trials/<key>/checkpoints/<update>.{json,safetensors}
"""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from service.delivery import archive_file
from service.delivery.unfinished import Unfinished, take_along
from service.ledger.ledger import TERMINAL, Entry, Ledger
from service.ledger.manifest import read_all
from service.ledger.others import settle
from service.planning.data_here import DataHere, versions
from service.storage import paths, trial_objects
from service.storage.commands import command
from trainables import project
from trainables.errors import UserError, unknown
from trainables.storage import checkpoint_files
from trainables.storage.files import write

DETAILS = {"device": str, "execution": str, "seconds": float, "updates_per_second": float}  # of the event `done`
SUGGESTION = ("study", "params", "keys")  # in the details of a trial: so older archives have the suggestion that it is of
FILES = (paths.trial_json, paths.spool, paths.masks_json)
EARLIEST = (1980, 1, 1, 0, 0, 0)  # the time of every part, so that the same trials give the same bytes


@dataclass(frozen=True)
class Archived:
    """How many trials an archive holds: finished, and unfinished with a checkpoint. `behind`: how many have begun and are not in it, since
    no checkpoint of theirs is whole and fits their log."""

    finished: int
    unfinished: int
    behind: int = 0


def archive(sweeps: Sequence[str], to: Path, storage: Path, unfinished: bool = False) -> Archived:
    """Write the finished trials of `sweeps`, with those of their parts, to the zip file `to`, replacing it; with `unfinished` also those
    that have a checkpoint, unless a search has suggested them: its trials are told of to the end or not at all.

    Raises UserError if a sweep is not in the storage or has no such trial, and for a part of one.
    """
    trial_objects.pull(storage)
    ledgers = read_all(storage)
    parts: dict[str, bytes] = {}
    keys: set[str] = set()
    taken: dict[str, Unfinished | None] = {}
    for name in sweeps:
        if project.part(name):
            again = command("archive", project.typed(project.whole(name)), "--to", str(to), storage=storage)
            raise UserError(f"{name} is a part of a sweep, whose trials the sweep's own archive holds: `{again}`")
        done = _done(ledgers, name, storage)
        if left_out := ledgers[name].left_out():
            raise UserError(f"sweep {name!r}: {left_out}: an archive would lack them; restore what they need first")
        found = _unfinished(ledgers, name, done, storage, taken) if unfinished else {}
        taken |= found
        goes_on = {key: files for key, files in found.items() if files}
        if not done and not goes_on:
            raise UserError(f"sweep {name!r} has no finished trial yet" + ", and no checkpoint" * unfinished)
        parts[f"sweeps/{name}.json"] = _json({key: _end(ledgers, entry) for key, entry in done.items()})
        if suggested := [each for study in ledgers[name].suggestions.values() for each in study if done.keys() >= {*each["keys"]}]:
            parts[f"suggestions/{name}.json"] = _json(suggested)
        for key in done:
            parts |= {f"trials/{key}/{path.name}": path.read_bytes() for path_of in FILES if (path := path_of(storage, key)).exists()}
        if goes_on:
            parts[f"unfinished/{name}.json"] = _json({key: files.update for key, files in goes_on.items()})
            parts |= {f"trials/{key}/{path}": content for key, files in goes_on.items() for path, content in files.parts.items()}
        keys |= set(done)
    write(to.expanduser().absolute(), _zipped(parts))
    begun = {key for key, files in taken.items() if files}
    return Archived(len(keys), len(begun - keys), len(taken.keys() - begun - keys))


def version_notes(sweeps: Iterable[str], storage: Path) -> list[str]:
    """A line for each dataset of which finished trials of `sweeps` have seen several versions, or another than the one on this machine."""
    ledgers = read_all(storage)
    trials = {key: entry.trial for name in sweeps for key, entry in _done(ledgers, name, storage).items()}
    return versions(list(trials.values()), DataHere(storage, Ledger()))


def _done(ledgers: Mapping[str, Ledger], name: str, storage: Path) -> dict[str, Entry]:
    """The finished trials of a sweep by key, also those that one of its parts or another sweep has done for it."""
    own = [other for other in ledgers if project.whole(other) == name]
    if not own:
        raise unknown("sweep", name, ledgers, f" in {paths.shown(storage)}")
    settle(ledgers, name)
    found: dict[str, Entry] = {}
    for ledger in (ledgers[other] for other in sorted(own, key=lambda other: other != name)):
        found = {key: ledger.entries[key] for key in ledger.keys_in("done")} | found
    return found


def _unfinished(
    ledgers: Mapping[str, Ledger], name: str, done: Mapping[str, Entry], storage: Path, taken: Mapping[str, Unfinished | None]
) -> dict[str, Unfinished | None]:
    """What the trials that have not ended and have checkpoints go on from elsewhere, by key; None where none of these will do.

    Of a trial that another sweep has, too, it is what was `taken` for that one: training may have come further meanwhile."""
    entries = {key: entry for other, ledger in ledgers.items() if project.whole(other) == name for key, entry in ledger.entries.items()}
    going_on = [
        entry.trial
        for key, entry in entries.items()
        if entry.state not in TERMINAL and "study" not in entry.events[0].detail and key not in done
    ]
    found: dict[str, Unfinished | None] = {}
    for trial in going_on:
        if trial.key in taken:
            found[trial.key] = taken[trial.key]
            continue
        with trial_objects.whole(storage, trial.key) as place:
            if checkpoint_files.updates(place, trial.key):
                found[trial.key] = take_along(place, trial)
    return found


def _end(ledgers: Mapping[str, Ledger], entry: Entry) -> dict[str, Any]:
    """The details of a trial's end, from the sweep that trained it."""
    other = ledgers.get(str(entry.detail.get("sweep")))
    trained = other.entries.get(entry.trial.key, entry) if other else entry
    return {name: trained.detail[name] for name in DETAILS if name in trained.detail}


def _zipped(parts: Mapping[str, bytes]) -> bytes:
    made = _zip(parts, zipfile.ZIP_DEFLATED)
    if sum(map(len, parts.values())) > archive_file.allowed(len(made)):  # checkpoints of hardly anything but zeros
        made = _zip(parts, zipfile.ZIP_STORED)
    return made


def _zip(parts: Mapping[str, bytes], tensors: int) -> bytes:
    """`tensors` is the method by which checkpoints are packed."""
    whole = io.BytesIO()
    with zipfile.ZipFile(whole, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as file:
        for name in sorted(parts):
            method = tensors if name.endswith(".safetensors") else zipfile.ZIP_DEFLATED
            file.writestr(zipfile.ZipInfo(name, EARLIEST), parts[name], method, 9)
    return whole.getvalue()


def _json(value: object) -> bytes:
    return json.dumps(value, indent=1, sort_keys=True).encode()
