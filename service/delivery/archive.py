"""`service archive` and `service adopt`: the finished trials of sweeps as one file, and their import into another storage.

With the file others can report on a study, verify it or continue it without training its trials again. It holds the logs that MLflow is
populated from, but no checkpoints and policies: about 10 kB a trial. A file may come from anybody, so all of it is checked before anything
is written.

sweeps/<name>.json                                 key -> the details of the trial's last event
suggestions/<name>.json                            of an adaptive sweep: what its studies have suggested, without what is not done
trials/<key>/{trial.json,spool.jsonl,masks.json}   as in a storage
"""

from __future__ import annotations

import contextlib
import io
import json
import re
import zipfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from service.delivery.archive_file import read_parts
from service.ledger.ledger import Entry, Ledger
from service.ledger.manifest import Manifest, read, read_all
from service.ledger.others import settle
from service.planning.data_here import DataHere, versions
from service.spool import complete
from service.spool import lines as spool
from service.storage import paths, trial_objects
from service.storage.commands import command
from trainables import plugins, project
from trainables.errors import UserError, one_line, unknown
from trainables.storage.files import write
from trainables.trial import Trial

DETAILS = {"device": str, "execution": str, "seconds": float, "updates_per_second": float}  # of the event `done`
SUGGESTION = ("study", "params", "keys")  # in the details of a trial: so older archives have the suggestion that it is of
FILES = (paths.trial_json, paths.spool, paths.masks_json)
NAMES = r"(sweeps|suggestions)/[A-Za-z0-9][A-Za-z0-9_]*\.json|trials/[0-9a-f]{16}/(trial\.json|spool\.jsonl|masks\.json)"  # of the parts
EARLIEST = (1980, 1, 1, 0, 0, 0)  # the time of every part, so that the same trials give the same bytes


@dataclass
class Adopted:
    """The trials of an archive, by key: imported, already done here (by any sweep), or begun here and so skipped."""

    imported: dict[str, str] = field(default_factory=dict)
    done: list[str] = field(default_factory=list)
    begun: list[str] = field(default_factory=list)


def archive(sweeps: Sequence[str], to: Path, storage: Path) -> int:
    """Write the finished trials of `sweeps`, with those of their parts, to the zip file `to`, replacing it; returns their number.

    Raises UserError if a sweep is not in the storage or has no finished trial, and for a part of one.
    """
    trial_objects.pull(storage)
    ledgers = read_all(storage)
    parts: dict[str, bytes] = {}
    keys: set[str] = set()
    for name in sweeps:
        if project.part(name):
            again = command("archive", project.typed(project.whole(name)), "--to", str(to), storage=storage)
            raise UserError(f"{name} is a part of a sweep, whose trials the sweep's own archive holds: `{again}`")
        done = _done(ledgers, name, storage)
        if left_out := ledgers[name].left_out():
            raise UserError(f"sweep {name!r}: {left_out}: an archive would lack them; restore what they need first")
        if not done:
            raise UserError(f"sweep {name!r} has no finished trial yet")
        parts[f"sweeps/{name}.json"] = _json({key: _end(ledgers, entry) for key, entry in done.items()})
        if suggested := [each for study in ledgers[name].suggestions.values() for each in study if done.keys() >= {*each["keys"]}]:
            parts[f"suggestions/{name}.json"] = _json(suggested)
        for key in done:
            parts |= {f"trials/{key}/{path.name}": path.read_bytes() for path_of in FILES if (path := path_of(storage, key)).exists()}
        keys |= set(done)
    write(to.expanduser().absolute(), _zipped(parts))
    return len(keys)


def adopt(file: Path, storage: Path) -> dict[str, Adopted]:
    """Import the trials of an archive into the storage as done, by sweep; the next `run` or `sync` ships them to MLflow.

    Skips trials that have begun here. Raises UserError for a file that is not an archive, and if a driver runs one of its sweeps.
    """
    if paths.remote(storage)[0]:
        raise UserError(f"{paths.shown(storage)} is on S3: adopt into a folder (--storage)")
    sweeps, suggestions = _read(file)
    with contextlib.ExitStack() as leases:  # of all sweeps before anything is written
        manifests = {name: leases.enter_context(contextlib.closing(Manifest(storage, name, _settings(storage, name)))) for name in sweeps}
        here = read_all(storage)
        adopted = {
            name: _import(trials, manifests[name], {other: ledger for other, ledger in here.items() if other != name}, storage)
            for name, trials in sweeps.items()
        }
        for name, manifest in manifests.items():
            known = {_told(each) for made in manifest.ledger.suggestions.values() for each in made}
            manifest.suggest([each for each in suggestions.get(name, ()) if _told(each) not in known], ())
        return adopted


def describe(adopted: Mapping[str, Adopted], storage: Path) -> str:
    lines = []
    for name, trials in adopted.items():
        done = [f"{len(trials.done)} were already done here"] * bool(trials.done)
        begun = [f"{len(trials.begun)} have begun here and were skipped"] * bool(trials.begun)
        lines.append(f"{name}: " + ", ".join([f"{len(trials.imported)} trials adopted", *done, *begun]))
        lines.append(
            f"  `{command('run', name, storage=storage)}` continues it, `{command('sync', name, storage=storage)}` ships it to MLflow"
        )
    return "\n".join(lines)


def version_notes(sweeps: Iterable[str], storage: Path) -> list[str]:
    """A line for each dataset of which finished trials of `sweeps` have seen several versions, or another than the one on this machine."""
    ledgers = read_all(storage)
    trials = {key: entry.trial for name in sweeps for key, entry in _done(ledgers, name, storage).items()}
    return versions(list(trials.values()), DataHere(storage, Ledger()))


@dataclass(frozen=True)
class _Part:
    """A trial of an archive: its files by name, the details of its end, and the suggestion that it is of, if of one."""

    trial: Trial
    files: Mapping[str, bytes]
    end: Mapping[str, Any] = field(default_factory=dict)
    suggestion: Mapping[str, Any] = field(default_factory=dict)


def _import(trials: Mapping[str, _Part], manifest: Manifest, others: Mapping[str, Ledger], storage: Path) -> Adopted:
    """The files of a trial belong to whoever trains it: what any sweep here has begun stays as it is."""
    adopted = Adopted()
    events: list[tuple[str, str, Mapping[str, Any]]] = []
    for key, part in trials.items():
        trainer = next((name for name, ledger in others.items() if ledger.state(key) == "done"), "")
        planned = [(key, "planned", {"trial": part.trial.to_json(), **part.suggestion})] * (not manifest.ledger.state(key))
        if manifest.ledger.state(key) == "done":
            adopted.done.append(key)
        elif trainer:
            trainer = str(others[trainer].entries[key].detail.get("sweep", trainer))
            events += [*planned, (key, "done", {"sweep": trainer})]
            adopted.done.append(key)
        elif any(ledger.state(key) == "leased" for ledger in others.values()) or (
            spool.read(paths.spool(storage, key)) and any(ledger.state(key) for ledger in (manifest.ledger, *others.values()))
        ):
            adopted.begun.append(key)
        else:
            for path_of in reversed(FILES):  # trial.json last, so that a kill leaves no trial, only files that are written again
                if (path := path_of(storage, key)).name in part.files:
                    write(path, part.files[path.name])
            events += [*planned, (key, "done", part.end)]
            adopted.imported[key] = part.trial.name
    manifest.record_all(events)
    return adopted


def _read(file: Path) -> tuple[dict[str, dict[str, _Part]], dict[str, list[dict[str, Any]]]]:
    """The trials of each sweep, and what it has suggested, validated: no name in the archive becomes a path, and each trial is whole and
    has the key that it is stored under."""
    try:
        content = read_parts(file.expanduser())
        for name in content:
            if not re.fullmatch(NAMES, name):
                raise ValueError(f"it holds {name!r}")
        ends = {Path(name).stem: dict(json.loads(content[name])) for name in content if name.startswith("sweeps/")}
        parts = {key: _part(content, key) for key in sorted({key for trials in ends.values() for key in trials})}
        sweeps = {
            name: {key: replace(parts[key], end=_details(end), suggestion=_of_trial(end, key, trials)) for key, end in trials.items()}
            for name, trials in ends.items()
        }
        if not sweeps or not all(sweeps.values()):
            raise ValueError("it holds no sweep, or one without trials")
        if extra := {name.split("/")[1] for name in content if name.startswith("trials/")} - parts.keys():
            raise ValueError(f"trial {min(extra)} is of no sweep")
        suggestions = {
            Path(name).stem: [_suggested(each, sweeps[Path(name).stem]) for each in json.loads(content[name])]
            for name in content if name.startswith("suggestions/")
        }  # fmt: skip
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        reason = f"it lacks {error}" if isinstance(error, KeyError) else one_line(error)
        raise UserError(f"{file} is not an archive of trials ({reason}); `winnow archive SWEEP --to FILE` makes one") from error
    return sweeps, suggestions


def _part(content: Mapping[str, bytes], key: str) -> _Part:
    """A trial of an archive; raises ValueError, KeyError and the like unless it is whole and its files agree."""
    files = {path_of(Path(), key).name: content.get(f"trials/{key}/{path_of(Path(), key).name}") for path_of in FILES}
    if files["trial.json"] is None or files["spool.jsonl"] is None:
        raise ValueError(f"trial {key} lacks its trial.json or its spool.jsonl")
    try:
        trial = Trial.from_json(json.loads(files["trial.json"]))
        if trial.key != key:
            raise ValueError(f"its settings are those of {trial.key}")
        complete.check(files["spool.jsonl"], trial)
        if files["masks.json"] is not None:
            _check_masks(json.loads(files["masks.json"]), trial)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError, OverflowError) as error:
        raise ValueError(f"trial {key}: {error}") from error
    return _Part(trial, {name: data for name, data in files.items() if data is not None})


def _check_masks(about: Any, trial: Trial) -> None:
    """Raise ValueError, KeyError and the like unless this is a masks.json of the trial, with the numbers that reports use."""
    if Trial.from_json(about["trial"]).key != trial.key:
        raise ValueError("its masks.json is that of another trial")
    if set(about["networks"]) != set(plugins.networks(trial.algorithm)):
        raise ValueError(f"its masks.json is of the networks {', '.join(map(str, about['networks'])) or 'none'}")
    for network in about["networks"].values():
        numbers = [network["density"], network["live_inputs"], network["parameters"]["effective"], *network["flops"].values()]
        if min(map(complete.number, numbers)) < 0 or "dense" not in network["flops"]:
            raise ValueError("its masks.json holds numbers below 0, or lacks some")
        if not all(isinstance(name, str) for name in network["unseen_inputs"]):
            raise ValueError("its masks.json names inputs by what is no text")


def _details(end: Any) -> dict[str, Any]:
    """The details of a trial's end; raises ValueError for those that make no sense."""
    details = {name: dict(end)[name] for name in DETAILS if name in dict(end)}
    for name, value in details.items():
        if DETAILS[name] is float:
            complete.number(value)
        elif not isinstance(value, str):
            raise ValueError(f"{name} {value!r} of a trial's end")
    return details


def _of_trial(end: Any, key: str, trials: Mapping[str, Any]) -> dict[str, Any]:
    """The suggestion that a trial's end names, empty where it names none; raises ValueError for one that makes no sense."""
    about = {name: dict(end)[name] for name in SUGGESTION if name in dict(end)}
    if about and key not in _suggested(about, trials)["keys"]:
        raise ValueError(f"trial {key} is of a suggestion that makes no sense")
    return about


def _suggested(about: Any, trials: Mapping[str, Any]) -> dict[str, Any]:
    """A suggestion; raises ValueError, KeyError and the like for one that makes no sense."""
    found = {name: about[name] for name in (*SUGGESTION, *(name for name in ("why", "number") if name in about))}
    if not (
        isinstance(found["study"], str)
        and all(isinstance(value, str | int | float | None) for value in dict(found["params"]).values())
        and isinstance(found["keys"], list)
        and trials.keys() >= set(found["keys"])
        and isinstance(found.get("why", ""), str)
        and isinstance(found.get("number", 0), int)
    ):
        raise ValueError(f"a suggestion of {found['study']!r} makes no sense")
    return found


def _settings(storage: Path, name: str) -> dict[str, Any] | None:
    """Of the newest run, which `resume` goes on with."""
    return dict(read(storage, name).settings) or None


def _told(about: Mapping[str, Any]) -> str:
    """What tells one suggestion from another."""
    return json.dumps([about["study"], about.get("number"), about["params"], about["keys"]], sort_keys=True)


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
