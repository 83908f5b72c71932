"""What must hold of a storage after any fault, read with the public readers and compared with an undisturbed twin."""

from __future__ import annotations

import contextlib
import hashlib
import json
import struct
import tempfile
import warnings
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.numpy import load

from service.ledger import manifest
from service.spool import lines as spool
from service.spool.lines import Placed
from service.storage import paths
from service.tracking.experiment import EXPERIMENT
from service.tracking.runs import STATUS

SWEEP = "smoke"
KEPT = 2  # checkpoints per trial
OF_THE_ATTEMPT = ("time", "seconds")  # differ between two runs of the same trial
BY_NATURE = ("speed/", "system/")  # so do these metrics


@dataclass(frozen=True)
class Twin:
    """What the undisturbed sweep left, by trial key."""

    states: dict[str, str]
    spools: dict[str, list[str]]
    files: dict[str, dict[str, str]]
    sweep: str = SWEEP


def twin_of(storage: Path, sweep: str = SWEEP) -> Twin:
    ledger = manifest.read(storage, sweep)
    keys = list(ledger.entries)
    return Twin(
        {key: ledger.state(key) for key in keys},
        {key: story(spool.read(paths.spool(storage, key))) for key in keys},
        {key: digests(storage, key) for key in keys},
        sweep,
    )


def check(storage: Path, twin: Twin, tracking: str | None = "") -> list[str]:
    """Everything that is wrong, in words. `tracking`: MLflow's address, empty for the storage's own, None where it is not looked at."""
    return [
        *_manifest(storage, twin), *_spools(storage, twin), *_files(storage, twin), *_leftovers(storage),
        *(() if tracking is None else _mlflow(storage, twin, tracking or f"sqlite:///{paths.mlflow_db(storage)}")),
    ]  # fmt: skip


def story(lines: list[Placed]) -> list[str]:
    """The spool without what differs between two runs of the same trial: one text per line.

    A kill after a checkpoint and before the line that tells of it leaves that line out; the next one commits the points as well.
    """
    told = []
    for placed in lines:
        if placed.line["kind"] in ("attempt", "checkpointed"):
            continue
        line = {name: value for name, value in placed.line.items() if name not in OF_THE_ATTEMPT}
        if "metrics" in line:
            line["metrics"] = {name: value for name, value in line["metrics"].items() if not name.startswith(BY_NATURE)}
        told.append(json.dumps(line, sort_keys=True))
    return told


def digests(storage: Path, key: str) -> dict[str, str]:
    """Hashes of masks, policy and the newest parameters; those of files that are not there are left out."""
    found = [path for path in (paths.masks(storage, key), paths.policy(storage, key)) if path.exists()]
    found += sorted(paths.checkpoints(storage, key).glob("*.safetensors"))[-1:]
    told = {path.name: _digest(path.read_bytes()) for path in found}
    about = paths.masks_json(storage, key)
    return told | ({about.name: hashlib.sha256(about.read_bytes()).hexdigest()} if about.exists() else {})


def _digest(content: bytes) -> str:
    """Of the tensors, which safetensors may write in any order."""
    try:
        tensors = load(content)
    except SafetensorError:
        return "not safetensors"
    return hashlib.sha256(b"".join(name.encode() + tensors[name].tobytes() for name in sorted(tensors))).hexdigest()


def redone(*folders: Path) -> int:
    """The most updates that any attempt computed again, from what the switch `work` noted."""
    reached: dict[str, int] = {}
    most = 0
    for attempt in attempts(*folders):
        for key in attempt.keys if attempt.first >= 0 else ():
            most = max(most, reached.get(key, -1) + 1 - attempt.first)
            reached[key] = max(attempt.last, reached.get(key, -1))
    return most


@dataclass(frozen=True)
class Attempt:
    """What a process did of a stack since `began` (ns): `first` to `last` update, -1 where it came to none."""

    began: int
    pid: int
    keys: tuple[str, ...]
    first: int
    last: int


def attempts(*folders: Path) -> list[Attempt]:
    """What the switch `work` noted on this machine, in the order in which it began."""
    found = []
    for path in sorted((path for folder in folders if folder.exists() for path in folder.iterdir()), key=lambda path: path.name):
        content = path.read_bytes()
        if content[16:]:
            began, pid = map(int, path.name.split("-"))
            found.append(Attempt(began, pid, tuple(json.loads(content[16:])), *struct.unpack("qq", content[:16])))
    return found


def _manifest(storage: Path, twin: Twin) -> Iterator[str]:
    ledger = manifest.read(storage, twin.sweep)
    for key, wanted in twin.states.items():
        if ledger.state(key) != wanted:
            yield f"manifest: {key} is {ledger.state(key)!r}, the twin's is {wanted!r}"
        end = (spool.end_line(spool.read(paths.spool(storage, key))) or {"kind": "failed"})["kind"]
        if {"finished": "done"}.get(end, end) != ledger.state(key):
            yield f"manifest: {key} is {ledger.state(key)!r}, its spool says {end!r}"


def _spools(storage: Path, twin: Twin) -> Iterator[str]:
    for key, wanted in twin.spools.items():
        found = story(spool.read(paths.spool(storage, key)))
        for line, count in Counter(found).items():
            if count > 1:
                yield f"spool: {key} says {count} times {line[:100]}"
        for line in set(wanted) - set(found):
            yield f"spool: {key} lacks {line[:100]}"
        for line in set(found) - set(wanted):
            yield f"spool: {key} has what the twin has not: {line[:100]}"


def _files(storage: Path, twin: Twin) -> Iterator[str]:
    for key, wanted in twin.files.items():
        found = digests(storage, key)
        for name in sorted(wanted.keys() | found.keys()):
            if wanted.get(name) != found.get(name):
                yield f"files: {key}/{name} differs from the twin's"


def _leftovers(storage: Path) -> Iterator[str]:
    ours = [paths.trials(storage), paths.sweeps(storage)]
    for path in (path for folder in ours for path in folder.rglob("*")):
        if path.suffix == ".tmp":
            yield f"left behind: {path.relative_to(storage)}"
        if path.name == "checkpoints":
            kinds = {kind: sorted(file.stem for file in path.glob(f"*.{kind}")) for kind in ("json", "safetensors")}
            if kinds["json"] != kinds["safetensors"] or len(kinds["json"]) > KEPT:
                yield f"left behind: {path.relative_to(storage)} holds {kinds}"


def _mlflow(storage: Path, twin: Twin, address: str) -> list[str]:
    with mlflow_client(address) as client:
        return list(_runs(client, storage, twin))


def _runs(client: Any, storage: Path, twin: Twin) -> Iterator[str]:
    experiment = client.get_experiment_by_name(EXPERIMENT)
    by_key: dict[str, list[Any]] = {}
    for run in client.search_runs([experiment.experiment_id], max_results=1000):
        by_key.setdefault(run.data.tags.get("winnow.trial_key", run.data.tags.get("winnow.sweep", "?")), []).append(run)
    ledger = manifest.read(storage, twin.sweep)
    wanted = {twin.sweep, *(key for key in ledger.entries if ledger.state(key) != "planned")}
    if by_key.keys() != wanted:
        yield f"MLflow: has runs for {sorted(by_key)}, wanted {sorted(wanted)}"
    for key, found in by_key.items():
        if len(found) != 1:
            yield f"MLflow: {len(found)} runs for {key}"
        if key in ledger.entries:
            if found[0].info.status != STATUS[ledger.state(key)]:
                yield f"MLflow: {key} is {found[0].info.status}, the manifest's is {ledger.state(key)!r}"
            yield from _points(client, found[0], storage, key)
            yield from _artifacts(client, found[0], storage, key)


def _points(client: Any, run: Any, storage: Path, key: str) -> Iterator[str]:
    """Exactly the points of the spool: metric, update, time and value, each once."""
    history = [(n, p) for n in run.data.metrics for p in client.get_metric_history(run.info.run_id, n)]
    shown = Counter((name, point.step, point.timestamp, repr(point.value)) for name, point in history)
    lines = spool.committed(spool.read(paths.spool(storage, key)))
    held = Counter((n, p.update, p.line["time"], repr(float(v))) for p in lines for n, v in p.line.get("metrics", {}).items())
    if shown != held:
        more, less = shown - held, held - shown
        yield f"MLflow: {key} has {more.total()} points that the spool has not, lacks {less.total()}: {[*more, *less][:3]}"


def _artifacts(client: Any, run: Any, storage: Path, key: str) -> Iterator[str]:
    """Each file of the trial is there as it is."""
    with tempfile.TemporaryDirectory() as folder:
        there = Path(client.download_artifacts(run.info.run_id, "", folder))
        for path in (
            paths.masks(storage, key),
            paths.masks_json(storage, key),
            paths.policy(storage, key),
            paths.policy_json(storage, key),
        ):
            if not path.exists():
                continue
            if not (there / path.name).exists():
                yield f"MLflow: {key} lacks {path.name}"
            elif (there / path.name).read_bytes() != path.read_bytes():
                yield f"MLflow: {key} holds another {path.name}"


@contextlib.contextmanager
def mlflow_client(address: str) -> Iterator[Any]:
    """MLflow's own client; its use of a newer SQLAlchemy warns."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from mlflow import MlflowClient

        yield MlflowClient(tracking_uri=address)
