"""`service adopt`: the trials of an archive (archive.py) in another storage. A file may come from anybody, so all of it is checked before
anything is written."""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from service.delivery import unfinished
from service.delivery.archive import DETAILS, SUGGESTION
from service.delivery.archive_file import read_parts
from service.ledger.heartbeat import Heartbeat
from service.ledger.ledger import TERMINAL, Ledger
from service.ledger.manifest import Manifest, read, read_all
from service.spool import complete
from service.spool import lines as spool
from service.storage import paths
from service.storage.commands import command
from trainables import plugins
from trainables.errors import SupersededError, UserError, one_line
from trainables.storage import checkpoint_files
from trainables.storage.files import write
from trainables.trial import Trial

ORDER = ("masks.json", "spool.jsonl", "trial.json")  # of a finished trial; trial.json last: a kill leaves files that are written again
OF_TRIAL = r"trial\.json|spool\.jsonl|masks\.json|checkpoints/[0-9]{9,12}\.(json|safetensors)"
NAMES = rf"(sweeps|suggestions|unfinished)/[A-Za-z0-9][A-Za-z0-9_]*\.json|trials/[0-9a-f]{{16}}/({OF_TRIAL})"


@dataclass
class Adopted:
    """The trials of an archive, by key: imported as done, or to continue; already done here, by any sweep; begun here and so skipped."""

    imported: dict[str, str] = field(default_factory=dict)
    unfinished: dict[str, str] = field(default_factory=dict)
    done: list[str] = field(default_factory=list)
    begun: list[str] = field(default_factory=list)


def adopt(file: Path, storage: Path) -> dict[str, Adopted]:
    """Import the trials of an archive into the storage, by sweep: finished ones as done, which the next `run` or `sync` ships to MLflow,
    and unfinished ones as planned, which the next `run` goes on with.

    Skips trials that have begun here. Raises UserError for a file that is not an archive, and if a driver runs one of its sweeps or takes
    one over; called again, it continues.
    """
    if paths.remote(storage)[0]:
        raise UserError(f"{paths.shown(storage)} is on S3: adopt into a folder (--storage)")
    sweeps, suggestions = _read(file)
    lost = list[str]()

    def check() -> None:
        if lost:
            raise SupersededError(lost[0])

    try:
        with contextlib.ExitStack() as leases:  # of all sweeps before anything is written
            manifests = {name: leases.enter_context(_held(storage, name, lost)) for name in sweeps}
            here = read_all(storage)
            adopted = {
                name: _import(trials, manifests[name], {other: ledger for other, ledger in here.items() if other != name}, storage, check)
                for name, trials in sweeps.items()
            }
            for name, manifest in manifests.items():
                known = {_told(each) for made in manifest.ledger.suggestions.values() for each in made}
                manifest.suggest([each for each in suggestions.get(name, ()) if _told(each) not in known], ())
            return adopted
    except SupersededError as error:
        raise UserError(f"not all of {file} is adopted: {error}; `adopt` again finishes it") from None


@contextlib.contextmanager
def _held(storage: Path, name: str, lost: list[str]) -> Iterator[Manifest]:
    """The journal of a sweep, whose lease is renewed inside; `lost` is told where somebody takes it over, or wants it back."""
    journal = Manifest(storage, name, _settings(storage, name))
    request = paths.stop_request(storage, name)
    with contextlib.closing(journal), Heartbeat(journal.lease, request, lambda why, code=1: lost.append(f"sweep {name!r}: {why}")):
        yield journal


def describe(adopted: Mapping[str, Adopted], storage: Path) -> str:
    lines = []
    for name, trials in adopted.items():
        done = [f"{len(trials.done)} were already done here"] * bool(trials.done)
        begun = [f"{len(trials.begun)} have begun here and were skipped"] * bool(trials.begun)
        unfinished = f" ({len(trials.unfinished)} unfinished)" * bool(trials.unfinished)
        adopted_here = f"{len(trials.imported) + len(trials.unfinished)} trials adopted{unfinished}"
        lines.append(f"{name}: " + ", ".join([adopted_here, *done, *begun]))
        lines.append(
            f"  `{command('run', name, storage=storage)}` continues it, `{command('sync', name, storage=storage)}` ships it to MLflow"
        )
    return "\n".join(lines)


@dataclass(frozen=True)
class _Part:
    """A trial of an archive: its files by name, in the order in which they are written, the details of its end or the update that it goes
    on from, and the suggestion that it is of, if of one."""

    trial: Trial
    files: Mapping[str, bytes]
    update: int | None = None  # None: it is finished
    end: Mapping[str, Any] = field(default_factory=dict)
    suggestion: Mapping[str, Any] = field(default_factory=dict)


def _import(
    trials: Mapping[str, _Part], manifest: Manifest, others: Mapping[str, Ledger], storage: Path, check: Callable[[], None]
) -> Adopted:
    """The files of a trial belong to whoever trains it: what any sweep here has begun stays as it is. `check` raises where nothing may be
    written any more."""
    adopted = Adopted()
    events: list[tuple[str, str, Mapping[str, Any]]] = []
    for key, part in trials.items():
        check()
        trainer = next((name for name, ledger in others.items() if ledger.state(key) == "done"), "")
        state = manifest.ledger.state(key)
        planned = [(key, "planned", {"trial": part.trial.to_json(), **part.suggestion})] * (state not in ("planned", "leased"))
        if state == "done":
            adopted.done.append(key)
        elif trainer:
            trainer = str(others[trainer].entries[key].detail.get("sweep", trainer))
            events += [*planned, (key, "done", {"sweep": trainer})]
            adopted.done.append(key)
        elif (
            any(ledger.state(key) == "leased" for ledger in others.values())
            or (_written(key, part, storage) and any(ledger.state(key) for ledger in (manifest.ledger, *others.values())))
            or (part.update is not None and state in TERMINAL)
        ):
            adopted.begun.append(key)
        else:
            for left in paths.checkpoints(storage, key).glob("*"):  # of an adoption that was killed, or of a trial that no sweep knows
                if checkpoint_files.OURS.fullmatch(left.name):
                    left.unlink()
            for name, content in part.files.items():
                write(paths.trial(storage, key) / name, content)
            if part.update is None:
                events += [*planned, (key, "done", part.end)]
                adopted.imported[key] = part.trial.name
            else:
                events += planned
                adopted.unfinished[key] = part.trial.name
    manifest.record_all(events)
    return adopted


def _written(key: str, part: _Part, storage: Path) -> bool:
    """Whether the trial has written here what is not adopted. An adoption that was killed before it told the ledger has left the archive's
    own spool, to a finished trial's end."""
    file = paths.spool(storage, key)
    return bool(spool.read(file)) and (part.update is not None or file.read_bytes() != part.files["spool.jsonl"])


def _read(file: Path) -> tuple[dict[str, dict[str, _Part]], dict[str, list[dict[str, Any]]]]:
    """The trials of each sweep, and what it has suggested, validated: no name in the archive becomes a path, and each trial is whole and
    has the key that it is stored under."""
    try:
        content = read_parts(file.expanduser())
        for name in content:
            if not re.fullmatch(NAMES, name):
                raise ValueError(f"it holds {name!r}")
        ends, begun = (
            {Path(name).stem: dict(json.loads(content[name])) for name in content if name.startswith(folder)}
            for folder in ("sweeps/", "unfinished/")
        )
        parts = {key: _part(content, key) for key in sorted({key for trials in ends.values() for key in trials})}
        parts |= {key: _part(content, key, at) for trials in begun.values() for key, at in trials.items() if key not in parts}
        sweeps = {
            name: {key: replace(parts[key], end=_details(end), suggestion=_of_trial(end, key, trials)) for key, end in trials.items()}
            | {key: parts[key] for key in begun.get(name, {})}
            for name, trials in ends.items()
        }
        if not sweeps or not all(sweeps.values()) or begun.keys() - ends.keys():
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


def _part(content: Mapping[str, bytes], key: str, update: int | None = None) -> _Part:
    """A trial of an archive, finished or to continue from its checkpoint at `update`; raises ValueError, KeyError and the like unless it is
    whole and its files agree."""
    folder = f"trials/{key}/"
    files = {name.removeprefix(folder): data for name, data in content.items() if name.startswith(folder)}
    if not {"trial.json", "spool.jsonl"} <= files.keys():
        raise ValueError(f"trial {key} lacks its trial.json or its spool.jsonl")
    try:
        trial = Trial.from_json(json.loads(files["trial.json"]))
        if trial.key != key:
            raise ValueError(f"its settings are those of {trial.key}")
        if "masks.json" in files:
            _check_masks(json.loads(files["masks.json"]), trial)
        if update is not None:
            return _Part(trial, unfinished.check(files, trial, update), update)
        complete.check(files["spool.jsonl"], trial)
        if extra := files.keys() - set(ORDER):
            raise ValueError(f"it is finished and has {min(extra)!r}")
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError, OverflowError) as error:
        reason = f"it lacks {error}" if isinstance(error, KeyError) else str(error)
        raise ValueError(f"trial {key}: {reason}") from error
    return _Part(trial, {name: files[name] for name in ORDER if name in files})


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
            raise ValueError("its masks.json names inputs by what is not text")


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
    """Of the newest run, which `resume` continues."""
    return dict(read(storage, name).settings) or None


def _told(about: Mapping[str, Any]) -> str:
    """What tells one suggestion from another."""
    return json.dumps([about["study"], about.get("number"), about["params"], about["keys"]], sort_keys=True)
