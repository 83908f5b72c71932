"""Writes MLflow's runs: a parent run per sweep and a child run per trial.

Every call here is idempotent: a trial has exactly one run per storage (service/tracking/reading.py), points keep the time at which they
were measured, params and tags have one value, artifacts one name.
"""

from __future__ import annotations

import hashlib
import json
import math
import tempfile
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

from service.storage.identity import identity_of
from service.tracking.connection import DeletedError, artifact_store, mlflow_errors
from service.tracking.experiment import VIEW
from service.tracking.reading import PARENT, STORAGE, VIEWS, Reading, filter_of, is_deleted, view_of
from service.tracking.sql import database, many
from service.tracking.trial_params import filters_of, params_of
from trainables.trial import Trial

NOTE = "mlflow.note.content"
METRICS_PER_CALL = 1000  # per log_batch
TAG_LENGTH = 5000  # characters; MLflow takes 8000
PARAM_LENGTH = 6000  # characters; MLflow cuts longer ones in silence
STATUS = {"leased": "RUNNING", "planned": "KILLED", "done": "FINISHED", "failed": "FAILED", "diverged": "FAILED", "stopped": "FINISHED"}
DETAILS = ("reason", "message", "stopped_at")  # of a state in the ledger, as tags; empty if absent

Point = tuple[str, float, int, int]  # metric, value, milliseconds since 1970, update


@dataclass(frozen=True, kw_only=True)
class Ended:
    """A trial that has ended, with all that its run is to hold; `parent` is the sweep's run, `datasets` as of `dataset_of`. `begun` and
    `ended` in milliseconds since 1970."""

    trial: Trial
    parent: str
    begun: int
    ended: int
    state: str
    detail: Mapping[str, Any]
    tags: dict[str, str]
    points: Sequence[Point]
    datasets: Sequence[Mapping[str, str]]
    note: str


class Tracking(Reading):
    """Reads and writes the runs of one MLflow experiment, which the first writing makes. All errors of MLflow are TrackingError."""

    def __init__(self, storage: Path, *, restore: bool = False) -> None:
        """`restore` brings back what somebody has deleted: the experiment, and runs that are asked for."""
        super().__init__(storage, restore)
        self._runs: dict[str, str] = {}
        self._open: set[str] = set()  # ids of the runs that are RUNNING in MLflow, as far as this object knows
        self._made: set[str] = set()  # ids of the runs that this object has created and that have no note yet
        self._first: dict[str, tuple[dict[str, str], dict[str, str]]] = {}  # params and tags that go with a run's next batch, by its id
        self._folders: dict[str, str] = {}  # the addresses of the artifacts of runs that this object has made, by their ids
        self._artifacts: tuple[str, Any] = "", None  # the writer of one run's artifacts, and that run's id
        self._leased = ""  # id of the sweep's run of which it is known that it is `leased`
        self._fills = False

    def forget(self) -> None:
        """Look up every run again."""
        self._runs.clear()
        self._open.clear()
        self._made.clear()
        self._first.clear()
        self._folders.clear()
        self._leased = ""

    def parent_run(self, sweep: str) -> str:
        """The id of the sweep's run, created if necessary as is the view that links open. DeletedError if somebody has deleted it."""
        seen = sweep in self._runs
        run_id = self._find_or_create("winnow.sweep", sweep, sweep, {"winnow.kind": "sweep"})
        if not seen:
            view = json.dumps(VIEW | {"searchFilter": filter_of(sweep)})
            self._connected().set_experiment_tag(self._experiment, f"{VIEWS}{view_of(sweep)}", view)
        return run_id

    def trial_run(self, trial: Trial, parent: str, known: str = "") -> str:
        """The id of this storage's run of the trial, with its params: one that exists, even of another sweep, else a new one.

        `known` is the run that this storage has filled so far. Raises DeletedError if somebody has deleted the run.
        """
        if trial.key not in self._runs:
            tags = filters_of(trial)
            run_id = self._find_or_create("winnow.trial_key", trial.key, trial.name, {PARENT: parent, "winnow.kind": "trial"} | tags, known)
            self._first[run_id] = params_of(trial), {} if run_id in self._made else tags
        return self._runs[trial.key]

    def take_over(self, run: Any) -> None:
        """Note on a run that this storage fills it, unless it says so."""
        if run.data.tags.get(STORAGE) != self._filler() and not is_deleted(run):
            self._batch(run.info.run_id, tags={STORAGE: self._filler()})

    def move_below(self, run_id: str, parent: str) -> None:
        self._batch(run_id, tags={PARENT: parent})

    def restore(self, run_id: str) -> None:
        """Bring back a deleted run."""
        self._connected().restore_run(run_id)

    def log(self, run_id: str, points: Sequence[Point], tags: Mapping[str, str], params: Mapping[str, str] | None = None) -> None:
        """Log points, tags and params in as few calls as MLflow allows; each costs 20 ms on an embedded database."""
        from mlflow.entities import Metric

        for start in range(0, len(points) or (1 if tags or params or run_id in self._first else 0), METRICS_PER_CALL):
            metrics = [Metric(*point) for point in points[start : start + METRICS_PER_CALL]]
            self._batch(run_id, metrics, *((params, tags) if start == 0 else ()))

    def set_state(
        self, run_id: str, state: str, detail: Mapping[str, Any], *, note: str = "", tags: Mapping[str, str] | None = None,
        points: Sequence[Point] = (),
    ) -> None:  # fmt: skip
        """Set the run's status from a state of the ledger, with its DETAILS, `tags`, the note and `points`; `leased` reopens a closed
        run."""
        found = self._note(run_id, note) if note else {}
        self.log(run_id, points, {**_state_tags(state, detail), **(tags or {}), **found})
        if STATUS[state] != "RUNNING":
            self._open.discard(run_id)
            self._connected().set_terminated(run_id, STATUS[state])
        elif run_id not in self._open:
            self._connected().update_run(run_id, status="RUNNING")
            self._open.add(run_id)
        self._leased = run_id if state == "leased" else "" if self._leased == run_id else self._leased

    def reopen(self, parent: str) -> None:
        """Set the sweep's run to `leased`, unless this object has done so and nothing since."""
        if parent != self._leased:
            self.set_state(parent, "leased", {})

    def describe(self, run_id: str, text: str, *, first: bool = False) -> None:
        """Set the note under the run's name, unless a user has edited it; `first`: only if there is none."""
        if noted := self._note(run_id, text, first=first):
            self._batch(run_id, tags=noted)

    def log_artifacts(self, run_id: str, files: Iterable[Path], folder: str = "") -> None:
        """Log those of the files that exist, under their own names."""
        self._writing()
        for file in files:
            if file.exists():
                with mlflow_errors():
                    self._artifacts_of(run_id).log_artifact(str(file), folder or None)

    def log_bytes(self, run_id: str, name: str, content: bytes) -> None:
        with tempfile.TemporaryDirectory() as folder:
            (file := Path(folder) / name).write_bytes(content)
            self.log_artifacts(run_id, [file])

    def _artifacts_of(self, run_id: str) -> Any:
        """MLflow's writer of a run's artifacts; that of the last run is kept, as its client would ask for each run again."""
        if self._artifacts[0] != run_id:
            where = self._folders.pop(run_id, "") or self.run(run_id).info.artifact_uri
            self._artifacts = run_id, artifact_store(where, self.uri)
        return self._artifacts[1]

    def log_dataset(self, run_id: str, about: Mapping[str, str]) -> None:
        """Log the dataset that `dataset_of` describes as an MLflow dataset input."""
        from mlflow.entities import Dataset, DatasetInput, InputTag

        self._connected().log_inputs(run_id, datasets=[DatasetInput(Dataset(**about), [InputTag(*many.CONTEXT)])])

    def analyze(self) -> None:
        """Keep an sqlite database fast; others do so themselves."""
        if file := database.sqlite_file(self.uri):
            database.analyze(file)

    def create_ended(self, wanted: Mapping[str, Ended]) -> dict[str, str]:
        """Make the runs of trials that have ended and have none yet, all at once, where MLflow's database is at hand; returns their ids by
        trial key. Some may be left, and all where the database does not take them: those are to be made one by one."""
        client = self._connected()
        engine, location = client.engine(), client.get_experiment(self._experiment).artifact_location
        if not engine or "?" in location:
            return {}
        here = {key for key, runs in self._mine_of(list(wanted)).items() if runs}
        made, now = {}, int(1000 * time.time())
        for key, each in wanted.items():
            if key not in here:
                tags = {PARENT: each.parent, "winnow.kind": "trial", "winnow.trial_key": key, STORAGE: self._filler()}
                tags |= filters_of(each.trial) | _state_tags(each.state, each.detail) | each.tags
                made[key] = many.New(
                    run_id=(id := uuid4().hex), name=each.trial.name, status=STATUS[each.state], begun=now, ended=now,
                    artifact_uri=f"{location.rstrip('/')}/{id}/artifacts", points=each.points, datasets=each.datasets,
                    tags={name: value[:TAG_LENGTH] for name, value in (tags | noted(each.note)).items()},
                    params={name: value[:PARAM_LENGTH] for name, value in params_of(each.trial).items()},
                )  # fmt: skip
        with mlflow_errors():
            many.insert(engine, self._experiment, list(made.values()))
        found = {}
        for key, runs in self._mine_of(list(made)).items():
            oldest, *younger = sorted(runs, key=lambda run: (run.info.start_time, run.info.run_id))
            if oldest.info.run_id == made[key].run_id:
                found[key] = self._runs[key] = oldest.info.run_id
                self._folders[oldest.info.run_id] = made[key].artifact_uri
            elif any(run.info.run_id == made[key].run_id for run in younger):  # another process of this storage was faster
                client.delete_run(made[key].run_id)
        with mlflow_errors():  # not before: until here the time at which a run was made decides which of two is kept
            many.set_times(engine, {id: (wanted[key].begun, wanted[key].ended) for key, id in found.items()})
        return found

    def _note(self, run_id: str, text: str, *, first: bool = False) -> dict[str, str]:
        """The tags that make a note; none if `describe` has to keep the present one."""
        text = text[:TAG_LENGTH]
        if run_id in self._made:
            self._made.remove(run_id)
            return noted(text)
        tags = self._connected().get_run(run_id).data.tags
        ours = digest(tags.get(NOTE, "")) in (tags.get("winnow.note"), digest(""))
        return noted(text) if ours and not (first and NOTE in tags) else {}

    def _find_or_create(self, tag: str, value: str, name: str, tags: Mapping[str, str], known: str = "") -> str:
        """This storage's run with a tag. Raises DeletedError where there is one and somebody has deleted it."""
        if value not in self._runs:
            self._connected()
            runs = self._mine_with(tag, value, known)
            if not runs:
                run = self._connected().create_run(self._experiment, run_name=name, tags={tag: value, STORAGE: self._filler(), **tags})
                self._made.add(run.info.run_id)
                self._folders[run.info.run_id] = run.info.artifact_uri
                # Creation is retried if its answer is lost, which leaves a duplicate: keep the oldest.
                runs = self._mine_with(tag, value, known)
            oldest, *duplicates = runs
            for duplicate in duplicates:
                self._connected().delete_run(duplicate.info.run_id)
            self.take_over(oldest)
            self._runs[value] = oldest.info.run_id
            if oldest.info.status == "RUNNING":
                self._open.add(oldest.info.run_id)
        return self._runs[value]

    def _mine_with(self, tag: str, value: str, known: str) -> list[Any]:
        """This storage's runs with a tag, the oldest first. Raises DeletedError if all of them are deleted."""
        runs = [run for run in self._search({tag: value}, "ALL") if self.mine(run, known)]
        active = [run for run in runs if not is_deleted(run)]
        if runs and not active and self.restores:
            self.restore(runs[0].info.run_id)
            return self._mine_with(tag, value, known)
        if runs and not active:
            raise DeletedError(f"run {runs[0].info.run_id} ({runs[0].info.run_name}) was deleted in MLflow")
        return sorted(active, key=lambda run: (run.info.start_time, run.info.run_id))

    def _filler(self) -> str:
        """The storage's identity, made if necessary."""
        if not self._fills:
            self._identity, self._fills = identity_of(self._storage), True
        return self._identity

    def _batch(
        self, run_id: str, metrics: Sequence[Any] = (), params: Mapping[str, str] | None = None, tags: Mapping[str, str] | None = None
    ) -> None:
        from mlflow.entities import Param, RunTag

        first, kept = self._first.get(run_id, ({}, {}))
        params, tags = {**first, **(params or {})}, {**kept, **(tags or {})}
        self._connected().log_batch(
            run_id,
            metrics=metrics,
            params=[Param(name, value[:PARAM_LENGTH]) for name, value in params.items()],
            tags=[RunTag(name, value[:TAG_LENGTH]) for name, value in tags.items()],
        )
        self._first.pop(run_id, None)


def dataset_of(dataset: str, digest: str, profile: Mapping[str, str]) -> dict[str, str]:
    """The fields of MLflow's entity of a dataset."""
    about = {"source_type": "minari", "source": json.dumps({"id": dataset, "sha256": digest}), "profile": json.dumps(dict(profile))}
    return {"name": dataset, "digest": digest[:36], **about}


def noted(text: str) -> dict[str, str]:
    """The tags that make a note, if there is one."""
    text = text[:TAG_LENGTH]
    return {NOTE: text, "winnow.note": digest(text)} if text else {}


def _state_tags(state: str, detail: Mapping[str, Any]) -> dict[str, str]:
    return {"winnow.state": state} | {f"winnow.{name}": str(detail.get(name, "")) for name in DETAILS}


def digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def finite(points: Iterable[Point]) -> list[Point]:
    """Points as MLflow's databases store them: no infinities, which some refuse or alter, and no negative zero."""
    return [(name, value + 0.0, time, update) for name, value, time, update in points if not math.isinf(value)]
