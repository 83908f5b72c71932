"""`service verify`: checks that MLflow holds exactly what the trials wrote; one line per difference."""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from service.ledger.ledger import Entry, Ledger
from service.spool import lines as spool
from service.spool.lines import Placed
from service.storage import paths
from service.tracking.runs import DETAILS, PARAM_LENGTH, STATUS, TAG_LENGTH, Point, Tracking, finite, params_of
from service.tracking.shipper import FILES, TAGS

SHOWN = 3  # differing points listed per run and direction


def differences(name: str, ledger: Ledger, storage: Path) -> list[str]:
    """What MLflow lacks, has in excess or has different, for all trials of the ledger. Raises UserError if MLflow does not answer."""
    tracking = Reader(storage)
    runs = tracking.runs()
    return [line for key, entry in ledger.entries.items() for line in _of_trial(name, key, entry, runs.get(key, []), tracking, storage)]


def describe(ledger: Ledger, differing: Sequence[str]) -> str:
    if not differing:
        return f"{len(ledger.entries)} trials: MLflow holds exactly what they wrote"
    return "\n".join([*differing, f"{len(differing)} differences; `sync` ships what is missing"])


class Reader(Tracking):
    """Tracking, and reads that only `verify` needs."""

    def runs(self) -> dict[str, list[Any]]:
        """All runs of trials, by trial key, without deleted ones."""
        runs: dict[str, list[Any]] = {}
        for run in self._search("tags.`winnow.kind` = 'trial'"):
            runs.setdefault(run.data.tags.get("winnow.trial_key", ""), []).append(run)
        return runs

    def points(self, run: Any) -> list[Point]:
        """Every point of a run."""
        client, id = self._connected(), run.info.run_id
        return [(name, p.value, p.timestamp, p.step) for name in run.data.metrics for p in client.get_metric_history(id, name)]

    def files(self, run: Any, names: Iterable[str]) -> dict[str, bytes]:
        """Those of `names` that the run has as artifacts, with their content."""
        client, id = self._connected(), run.info.run_id
        existing = {file.path for file in client.list_artifacts(id)}
        with tempfile.TemporaryDirectory() as folder:
            return {name: Path(client.download_artifacts(id, name, folder)).read_bytes() for name in names if name in existing}


def _of_trial(name: str, key: str, entry: Entry, runs: Sequence[Any], tracking: Reader, storage: Path) -> Iterator[str]:
    lines = spool.committed(spool.read(paths.spool(storage, key)))
    label = f"{key} {entry.trial.name}"
    if not runs and not lines and entry.state == "planned":
        return
    if len(runs) != 1:
        yield f"{label}: {len(runs)} runs, not one"
        return
    run = runs[0]
    yield from (f"{label}: {text}" for text in _points(lines, tracking.points(run)))
    yield from (
        f"{label}: {text}" for text in _pairs("param", {n: v[:PARAM_LENGTH] for n, v in params_of(entry.trial).items()}, run.data.params)
    )
    yield from (f"{label}: {text}" for text in _pairs("tag", _tags(name, entry, lines), run.data.tags))
    status = STATUS[entry.state]
    if run.info.status != status:
        yield f"{label}: status {run.info.status}, not {status}"
    yield from (f"{label}: {text}" for text in _files(key, lines, run, tracking, storage))


def _points(lines: Sequence[Placed], shipped: Sequence[Point]) -> Iterator[str]:
    """Compares points as multisets, with value, time and update. NaN equals NaN."""
    wanted = finite(spool.points(lines))
    want, have = Counter(map(repr, wanted)), Counter(repr((n, float(v), int(t), int(s))) for n, v, t, s in shipped)
    for what, points in (("lacks", want - have), ("has too much", have - want)):
        if points:
            named = ", ".join(sorted(points)[:SHOWN])
            yield f"MLflow {what}: {sum(points.values())} points: {named}{', ...' if len(points) > SHOWN else ''}"


def _tags(name: str, entry: Entry, lines: Sequence[Placed]) -> dict[str, str]:
    """The tags that follow from the newest attempt and the newest state."""
    wanted = {"winnow.trial_key": entry.trial.key, "winnow.kind": "trial"}
    for line in (placed.line for placed in lines):
        if line["kind"] == "attempt":
            wanted |= {f"winnow.{tag}": str(line[tag]) for tag in TAGS if tag in line}
        if line["kind"] == "finished":
            wanted["winnow.execution"] = line["execution"]
    if entry.reused:
        wanted[f"winnow.sweep.{name}"] = "reused"
    else:
        wanted |= {f"winnow.{tag}": str(entry.detail.get(tag, "")) for tag in DETAILS}
    return {tag: value[:TAG_LENGTH] for tag, value in (wanted | {"winnow.state": entry.state}).items()}


def _pairs(kind: str, wanted: dict[str, str], present: dict[str, str]) -> Iterator[str]:
    for name, value in wanted.items():
        if present.get(name) != value:
            yield f"{kind} {name} is {present.get(name)!r}, not {value!r}"


def _files(key: str, lines: Sequence[Placed], run: Any, tracking: Reader, storage: Path) -> Iterator[str]:
    """Compares artifacts by hash; those that committed lines report must exist."""
    kinds = {placed.line["kind"] for placed in lines}
    local = [path_of(storage, key) for kind, files in FILES.items() if kind in kinds for path_of in files]
    wanted = {file.name: file for file in local if file.exists()}
    artifacts = tracking.files(run, wanted)
    for name, file in wanted.items():
        if name not in artifacts:
            yield f"artifact {name} is missing"
        elif (a := _hash(artifacts[name])) != (b := _hash(file.read_bytes())):
            yield f"artifact {name} has hash {a}, not {b}"
    if "finished" in kinds:
        yield from _evaluations(lines, tracking.files(run, ["evaluations.json"]).get("evaluations.json"))


def _evaluations(lines: Sequence[Placed], artifact: bytes | None) -> Iterator[str]:
    if artifact is None:
        yield "artifact evaluations.json is missing"
    elif artifact.decode() != json.dumps(spool.evaluations(lines)):
        yield "artifact evaluations.json is not what was evaluated"


def _hash(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:16]
