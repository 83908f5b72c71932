"""`winnow verify`: checks that MLflow holds exactly what the trials wrote; one line per difference."""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from service.ledger.ledger import Entry, Ledger
from service.spool import lines as spool
from service.spool.lines import Placed
from service.storage import paths
from service.storage.commands import command
from service.tracking import curve_table
from service.tracking.connection import POINTS, RUNS, TrackingError, artifact_store, folder_of, history, mlflow_errors, redacted
from service.tracking.cursor import last_values, run_id_of
from service.tracking.reading import PARENT, RunRow, is_deleted
from service.tracking.runs import DETAILS, PARAM_LENGTH, STATUS, TAG_LENGTH, Point, Tracking, finite
from service.tracking.shipping.comparison import EVALUATIONS, files_of
from service.tracking.shipping.spooled import TAGS, row_of
from service.tracking.sql import many
from service.tracking.trial_params import filters_of, params_of, source_of

Summary = Callable[[Any, Ledger, Mapping[str, RunRow]], Sequence[str]]
DELETED, EXCESS = "was deleted in MLflow", "has too much"
SHOWN = 3  # differing points listed per run and direction


def differences(name: str, ledger: Ledger, storage: Path, summary: Summary | None = None) -> list[str]:
    """What MLflow lacks, has in excess or has different, for all trials of the ledger; `summary` compares what the sweep's run says of
    them. Raises UserError if MLflow does not answer."""
    tracking, rows, found = Reader(storage), dict[str, RunRow](), list[str]()
    begun = [key for key, entry in ledger.entries.items() if entry.begun]
    above: dict[str, list[str]] = {}  # by trial key: the runs above those of its runs that nobody has deleted
    for keys, runs in tracking.blocks(begun, storage):
        alive = {key: [run for run in runs.get(key, []) if not is_deleted(run)] for key in keys}
        above |= {key: [run.data.tags.get(PARENT, "") for run in own] for key, own in alive.items()}
        points = tracking.points([run for own in alive.values() for run in own])
        for key in keys:
            entry, own = ledger.entries[key], runs.get(key, [])
            try:
                lines = spool.committed(spool.read(paths.spool(storage, key)))
                if len(own) == 1 and not is_deleted(own[0]):
                    held = last_values(finite(spool.points(lines)))
                    rows[key] = row_of(own[0].info.run_id, entry.events[-1], [placed.line for placed in lines], held)
                found += _of_trial(name, key, ledger, lines, own, points, tracking, storage)
            except TrackingError:
                raise
            except Exception as error:  # a spool that makes no sense hides no other trial's differences
                found.append(f"{key} {entry.trial.name}: cannot be compared ({redacted(error)})")
    if begun:
        parent = tracking.parent(name, above)
        found = [*_of_sweep(name, parent, above, ledger, tracking, storage), *found]
        if summary and parent is not None and not is_deleted(parent):
            found += [f"sweep {name}: {text}" for text in summary(parent, ledger, rows)]
    return found


def describe(name: str, ledger: Ledger, differing: Sequence[str], storage: Path) -> str:
    if not differing:
        return f"{len(ledger.entries)} trials: MLflow holds exactly what they wrote"
    again, restore, sync = (command("sync", name, *words, storage=storage) for words in (["--again"], ["--restore"], []))
    fixes = [f"`{again}` ships everything once more"]
    if any(DELETED in line for line in differing):
        fixes.append(f"`{restore}` brings back what was deleted")
    if any(EXCESS in line for line in differing):
        fixes.append(f"MLflow cannot delete points: delete such a run there for good (`mlflow gc`), then `{sync}`")
    return "\n".join([*differing, f"{len(differing)} differences; {'; '.join(fixes)}"])


class Reader(Tracking):
    """Tracking, and reads that only `verify` needs."""

    def blocks(self, keys: Iterable[str], storage: Path) -> Iterator[tuple[Sequence[str], dict[str, list[Any]]]]:
        """As many trials as one answer is about, after the other, with this storage's runs by key; deleted ones where there is no other."""
        for block, held in self.held(keys):
            runs: dict[str, list[Any]] = {}
            for key, all_of_it in held.items():
                if own := [run for run in all_of_it if self.mine(run, run_id_of(storage, key))]:
                    runs[key] = [run for run in own if not is_deleted(run)] or own[-1:]
            for start in range(0, len(block), RUNS):
                yield block[start : start + RUNS], runs

    def parent(self, sweep: str, above: Mapping[str, Sequence[str]]) -> Any:
        """This storage's run of a sweep, of whose trials `above` has the runs above: a deleted one where there is no other, None without
        one."""
        below = {id for own in above.values() for id in own}
        found = [run for run in self.parents(sweep) if self.mine(run, run.info.run_id if run.info.run_id in below else "")]
        return next((run for run in found if not is_deleted(run)), found[-1] if found else None)

    def points(self, runs: Sequence[Any]) -> dict[str, list[Point]]:
        """Every point of at most RUNS runs, by their id: one statement of a database, of a server a request per metric for all of them."""
        found: dict[str, list[Point]] = {run.info.run_id: [] for run in runs}
        if engine := self._connected().engine():
            with mlflow_errors():
                for run_id, point in many.points(engine, list(found)):
                    found[run_id].append(point)
            return found
        for name in dict.fromkeys(name for run in runs for name in run.data.metrics):
            for run_id, point in self._points([run.info.run_id for run in runs if name in run.data.metrics], name):
                found[run_id].append(point)
        return found

    def _points(self, run_ids: Sequence[str], name: str) -> Iterator[tuple[str, Point]]:
        client = self._connected()
        points = history(client, run_ids, name)
        if points is not None and len(points) < POINTS:
            yield from points
        elif points is not None and len(run_ids) > 1:  # more than one answer holds
            half = len(run_ids) // 2
            yield from self._points(run_ids[:half], name)
            yield from self._points(run_ids[half:], name)
        else:
            for id in run_ids:
                yield from ((id, (name, p.value, p.timestamp, p.step)) for p in client.get_metric_history(id, name))

    def files(self, run: Any, names: Iterable[str]) -> dict[str, bytes]:
        """Those of `names` that the run has as artifacts, with their content; read where they are, without asking for the run again."""
        with mlflow_errors(), tempfile.TemporaryDirectory() as copies:
            store = artifact_store(run.info.artifact_uri, self.uri)
            if folder := folder_of(store):  # a download would copy them
                return {name: (folder / name).read_bytes() for name in names if (folder / name).is_file()}
            existing = {file.path for file in store.list_artifacts()}
            return {name: Path(store.download_artifacts(name, copies)).read_bytes() for name in names if name in existing}


def _of_sweep(name: str, parent: Any, above: Mapping[str, Sequence[str]], ledger: Ledger, tracking: Reader, storage: Path) -> Iterator[str]:
    """The sweep's run, and the trials that are below none."""
    if parent is None or is_deleted(parent):
        yield f"sweep {name}: it has no run" if parent is None else f"sweep {name}: its run {parent.info.run_id} {DELETED}"
        return
    alive = tracking.sweep_ids()
    yield from (f"sweep {name}: {text}" for text in curve_table.differences(tracking, parent.info.run_id, storage, above))
    for key, ids in above.items():
        if not ledger.entries[key].reused and not alive.issuperset(ids):
            yield f"{key} {ledger.entries[key].trial.name}: the run above its run is gone"


def _of_trial(
    name: str,
    key: str,
    ledger: Ledger,
    lines: Sequence[Placed],
    runs: Sequence[Any],
    points: Mapping[str, Sequence[Point]],
    tracking: Reader,
    storage: Path,
) -> Iterator[str]:
    entry = ledger.entries[key]
    label = f"{key} {entry.trial.name}"
    if not runs and not lines and entry.state == "planned":  # given back before it has committed anything
        return
    if len(runs) != 1:
        yield f"{label}: {len(runs)} runs, not one"
        return
    run = runs[0]
    if is_deleted(run):
        yield f"{label}: its run {run.info.run_id} {DELETED}"
        return
    yield from (f"{label}: {text}" for text in _points(lines, points[run.info.run_id]))
    yield from (
        f"{label}: {text}" for text in _pairs("param", {n: v[:PARAM_LENGTH] for n, v in params_of(entry.trial).items()}, run.data.params)
    )
    yield from (f"{label}: {text}" for text in _pairs("tag", _tags(name, ledger, entry, lines), run.data.tags))
    status = STATUS[entry.state]
    if run.info.status != status:
        yield f"{label}: status {run.info.status}, not {status}"
    yield from (f"{label}: {text}" for text in _files(key, lines, run, tracking, storage))


def _points(lines: Sequence[Placed], shipped: Sequence[Point]) -> Iterator[str]:
    """Compares points as multisets, with value, time and update. NaN equals NaN."""
    wanted = finite(spool.points(lines))
    want, have = Counter(map(repr, wanted)), Counter(repr((n, float(v), int(t), int(s))) for n, v, t, s in shipped)
    for what, points in (("lacks", want - have), (EXCESS, have - want)):
        if points:
            named = ", ".join(sorted(points)[:SHOWN])
            yield f"MLflow {what}: {sum(points.values())} points: {named}{', ...' if len(points) > SHOWN else ''}"


def _tags(name: str, ledger: Ledger, entry: Entry, lines: Sequence[Placed]) -> dict[str, str]:
    """The tags that follow from the trial, its newest attempt and its newest state."""
    wanted = {"winnow.trial_key": entry.trial.key, "winnow.kind": "trial"} | filters_of(entry.trial) | source_of(ledger.asked_by(entry))
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
    wanted = files_of(storage, key, kinds)
    artifacts = tracking.files(run, [*wanted, *([EVALUATIONS] if "finished" in kinds else [])]) if wanted or "finished" in kinds else {}
    for name, file in wanted.items():
        if name not in artifacts:
            yield f"artifact {name} is missing"
        elif (a := _hash(artifacts[name])) != (b := _hash(file.read_bytes())):
            yield f"artifact {name} has hash {a}, not {b}"
    if "finished" in kinds:
        yield from _evaluations(lines, artifacts.get(EVALUATIONS))


def _evaluations(lines: Sequence[Placed], artifact: bytes | None) -> Iterator[str]:
    if artifact is None:
        yield f"artifact {EVALUATIONS} is missing"
    elif artifact.decode() != json.dumps(spool.evaluations(lines)):
        yield f"artifact {EVALUATIONS} is not what was evaluated"


def _hash(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:16]
