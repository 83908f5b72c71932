"""`service verify`: proves that MLflow holds exactly what the trials wrote; each difference is a line."""

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
from service.tracking.runs import ABOUT, MOST_PARAM, MOST_TAG, STATUS, Point, Tracking, finite, params_of
from service.tracking.shipper import FILES, TAGS

SHOWN = 3  # differing points named per run and side


def differences(name: str, ledger: Ledger, storage: Path) -> list[str]:
    """What MLflow lacks, has too much, or has otherwise, over all trials of the ledger; raises UserError where MLflow does not answer."""
    tracking = Reader(storage)
    runs = tracking.runs()
    return [line for key, entry in ledger.entries.items() for line in _of_trial(name, key, entry, runs.get(key, []), tracking, storage)]


def describe(ledger: Ledger, found: Sequence[str]) -> str:
    if not found:
        return f"{len(ledger.entries)} trials: MLflow holds exactly what they wrote"
    return "\n".join([*found, f"{len(found)} differences; `sync` ships what is missing"])


class Reader(Tracking):
    """Tracking with what only a proof needs."""

    def runs(self) -> dict[str, list[Any]]:
        """All runs of trials that are not deleted, by trial key."""
        found: dict[str, list[Any]] = {}
        for run in self._search("tags.`winnow.kind` = 'trial'"):
            found.setdefault(run.data.tags.get("winnow.trial_key", ""), []).append(run)
        return found

    def points(self, run: Any) -> list[Point]:
        """Every point of a run."""
        client, id = self._connected(), run.info.run_id
        return [(name, p.value, p.timestamp, p.step) for name in run.data.metrics for p in client.get_metric_history(id, name)]

    def files(self, run: Any, names: Iterable[str]) -> dict[str, bytes]:
        """Those of `names` that the run has as artifacts, with their content."""
        client, id = self._connected(), run.info.run_id
        there = {file.path for file in client.list_artifacts(id)}
        with tempfile.TemporaryDirectory() as folder:
            return {name: Path(client.download_artifacts(id, name, folder)).read_bytes() for name in names if name in there}


def _of_trial(name: str, key: str, entry: Entry, runs: Sequence[Any], tracking: Reader, storage: Path) -> Iterator[str]:
    lines = spool.committed(spool.read(paths.spool(storage, key)))
    who = f"{key} {entry.trial.name}"
    if not runs and not lines and entry.state == "planned":
        return
    if len(runs) != 1:
        yield f"{who}: {len(runs)} runs, not one"
        return
    run = runs[0]
    yield from (f"{who}: {text}" for text in _points(lines, tracking.points(run)))
    yield from (
        f"{who}: {text}" for text in _pairs("param", {n: v[:MOST_PARAM] for n, v in params_of(entry.trial).items()}, run.data.params)
    )
    yield from (f"{who}: {text}" for text in _pairs("tag", _tags(name, entry, lines), run.data.tags))
    status = STATUS[entry.state]
    if run.info.status != status:
        yield f"{who}: status {run.info.status}, not {status}"
    yield from (f"{who}: {text}" for text in _files(key, lines, run, tracking, storage))


def _points(lines: Sequence[Placed], found: Sequence[Point]) -> Iterator[str]:
    """Points are compared as a multiset: each exactly once, with its value, its time and its update. NaN equals NaN."""
    wanted = finite(spool.points(lines))
    want, have = Counter(map(repr, wanted)), Counter(repr((n, float(v), int(t), int(s))) for n, v, t, s in found)
    for what, points in (("lacks", want - have), ("has too much", have - want)):
        if points:
            named = ", ".join(sorted(points)[:SHOWN])
            yield f"MLflow {what}: {sum(points.values())} points: {named}{', ...' if len(points) > SHOWN else ''}"


def _tags(name: str, entry: Entry, lines: Sequence[Placed]) -> dict[str, str]:
    """The tags that the newest attempt and the manifest's newest state ask for."""
    wanted = {"winnow.trial_key": entry.trial.key, "winnow.kind": "trial"}
    for line in (placed.line for placed in lines):
        if line["kind"] == "attempt":
            wanted |= {f"winnow.{tag}": str(line[tag]) for tag in TAGS if tag in line}
        if line["kind"] == "finished":
            wanted["winnow.execution"] = line["execution"]
    if entry.reused:
        wanted[f"winnow.sweep.{name}"] = "reused"
    else:
        wanted |= {f"winnow.{tag}": str(entry.detail.get(tag, "")) for tag in ABOUT}
    return {tag: value[:MOST_TAG] for tag, value in (wanted | {"winnow.state": entry.state}).items()}


def _pairs(kind: str, wanted: dict[str, str], found: dict[str, str]) -> Iterator[str]:
    for name, value in wanted.items():
        if found.get(name) != value:
            yield f"{kind} {name} is {found.get(name)!r}, not {value!r}"


def _files(key: str, lines: Sequence[Placed], run: Any, tracking: Reader, storage: Path) -> Iterator[str]:
    """Artifacts by hash; those that the committed lines speak of must be there."""
    kinds = {placed.line["kind"] for placed in lines}
    here = [place(storage, key) for kind, places in FILES.items() if kind in kinds for place in places]
    wanted = {file.name: file for file in here if file.exists()}
    found = tracking.files(run, wanted)
    for name, file in wanted.items():
        if name not in found:
            yield f"artifact {name} is missing"
        elif (a := _hash(found[name])) != (b := _hash(file.read_bytes())):
            yield f"artifact {name} has hash {a}, not {b}"
    if "finished" in kinds:
        yield from _evaluations(lines, tracking.files(run, ["evaluations.json"]).get("evaluations.json"))


def _evaluations(lines: Sequence[Placed], found: bytes | None) -> Iterator[str]:
    if found is None:
        yield "artifact evaluations.json is missing"
    elif found.decode() != json.dumps(spool.evaluations(lines)):
        yield "artifact evaluations.json is not what was evaluated"


def _hash(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:16]
