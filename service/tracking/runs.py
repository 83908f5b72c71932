"""MLflow runs: a parent run per sweep and a child run per trial, found by tags.

The tag `winnow.trial_key` ties a run to its trial, so that a trial has exactly one run. Every call here is idempotent: points keep the time
at which they were measured, params and tags have one value, artifacts one name.
"""

from __future__ import annotations

import ast
import hashlib
import json
import math
import os
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from service.storage import paths
from service.tracking import database
from service.tracking.connection import OneLineErrors, client_class, mlflow_errors
from trainables import plugins
from trainables.errors import UserError
from trainables.trial import Trial

EXPERIMENT = "winnow"  # default; MLFLOW_EXPERIMENT_NAME overrides it
VIEW = {  # of all runs in one flat table, the best first, with the columns that distinguish trials
    "selectedColumns": [
        *(f"params.`{name}`" for name in ("dataset", "algorithm", "pruner", "sparsity", "seed")),
        *(f"metrics.`{name}`" for name in ("eval/normalized_score", "eval/return", "mask/effective_density/actor")),
    ],
    "orderByKey": "metrics.`eval/normalized_score`",
    "orderByAsc": False,
}
ABOUT_EXPERIMENT = {
    "mlflow.sharedViewState.winnow": json.dumps(VIEW),
    "mlflow.experimentKind": "custom_model_development",  # else MLflow's page asks for the kind each time
    "mlflow.note.content": "One run per trial, below the run of the sweep that trained it. Filter by params, or by tags `winnow.*`.",
}
NOTE = "mlflow.note.content"
METRICS_PER_CALL = 1000  # per log_batch
TAG_LENGTH = 5000  # characters; MLflow takes 8000
PARAM_LENGTH = 6000  # characters; MLflow cuts longer ones in silence
STATUS = {"leased": "RUNNING", "planned": "KILLED", "done": "FINISHED", "failed": "FAILED", "diverged": "FAILED", "stopped": "FINISHED"}
DETAILS = ("reason", "message", "stopped_at")  # of a state in the ledger, as tags; empty if absent

Point = tuple[str, float, int, int]  # metric, value, milliseconds since 1970, update


@dataclass(frozen=True)
class RunRow:
    """A trial's run: the last values of its metrics (by `stage/what`), its tags, params, and MLflow's status."""

    run_id: str
    status: str
    metrics: Mapping[str, float]
    tags: Mapping[str, str]
    params: Mapping[str, str] = field(default_factory=dict)


def uri_of(storage: Path) -> str:
    """$MLFLOW_TRACKING_URI, else an sqlite file in the storage."""
    return os.environ.get("MLFLOW_TRACKING_URI") or database.address(paths.mlflow_db(storage))


class Tracking:
    """A connection to one MLflow experiment, opened by the first call. All errors of MLflow are TrackingError.

    Methods that only read create nothing: no database, no experiment, no run.
    """

    def __init__(self, storage: Path) -> None:
        self.uri = uri_of(storage)
        self.experiment = os.environ.get("MLFLOW_EXPERIMENT_NAME") or EXPERIMENT
        self._storage = storage
        self._client: Any = None
        self._experiment, self._created = "", False
        self._runs: dict[str, str] = {}
        self._open: set[str] = set()  # ids of the runs that are RUNNING in MLflow, as far as this object knows

    def parent_run(self, sweep: str) -> str:
        """The id of the sweep's run, created if necessary."""
        return self._find_or_create("winnow.sweep", sweep, sweep, {"winnow.kind": "sweep"})

    def trial_run(self, trial: Trial, parent: str) -> str:
        """The id of the trial's run, with its params: an existing run, even of another sweep, else a new one under `parent`."""
        known = trial.key in self._runs
        tags = {"mlflow.parentRunId": parent, "winnow.kind": "trial"}
        run_id = self._find_or_create("winnow.trial_key", trial.key, trial.name, tags)
        if not known:
            self._batch(run_id, params=params_of(trial), tags=filters_of(trial))
        return run_id

    def log(self, run_id: str, points: Sequence[Point], tags: Mapping[str, str]) -> None:
        """Log points and tags in as few calls as MLflow allows; each costs 20 ms on an embedded database."""
        from mlflow.entities import Metric

        for start in range(0, len(points) or (1 if tags else 0), METRICS_PER_CALL):
            metrics = [Metric(*point) for point in points[start : start + METRICS_PER_CALL]]
            self._batch(run_id, metrics, tags=tags if start == 0 else None)

    def set_state(
        self, run_id: str, state: str, detail: Mapping[str, Any], *, note: str = "", tags: Mapping[str, str] | None = None
    ) -> None:
        """Set the run's status from a state of the ledger, with its DETAILS, `tags` and the note; `leased` reopens a closed run."""
        details = {f"winnow.{name}": str(detail.get(name, "")) for name in DETAILS}
        noted = self._note(run_id, note) if note else {}
        self._batch(run_id, tags={"winnow.state": state, **details, **(tags or {}), **noted})
        if STATUS[state] != "RUNNING":
            self._open.discard(run_id)
            self._connected().set_terminated(run_id, STATUS[state])
        elif run_id not in self._open:
            self._connected().update_run(run_id, status="RUNNING")
            self._open.add(run_id)

    @property
    def page(self) -> str:
        """The path of VIEW on MLflow's page; empty if the experiment does not exist yet."""
        if not self._reading():
            return ""
        return f"#/experiments/{self._experiment}/runs?workflowType=machine_learning&viewStateShareKey=winnow"

    def describe(self, run_id: str, text: str, *, first: bool = False) -> None:
        """Set the note under the run's name, unless a user has edited it; `first`: only if there is none."""
        if noted := self._note(run_id, text, first=first):
            self._batch(run_id, tags=noted)

    def log_artifacts(self, run_id: str, files: Iterable[Path], folder: str = "") -> None:
        """Log those of the files that exist, under their own names."""
        for file in files:
            if file.exists():
                self._connected().log_artifact(run_id, str(file), folder or None)

    def log_text(self, run_id: str, name: str, text: str) -> None:
        self._connected().log_text(run_id, text, name)

    def log_bytes(self, run_id: str, name: str, content: bytes) -> None:
        with tempfile.TemporaryDirectory() as folder:
            (Path(folder) / name).write_bytes(content)
            self._connected().log_artifact(run_id, str(Path(folder) / name))

    def log_dataset(self, run_id: str, dataset: str, digest: str, profile: Mapping[str, str]) -> None:
        """Log the dataset as an MLflow dataset input."""
        from mlflow.entities import Dataset, DatasetInput, InputTag

        entity = Dataset(dataset, digest[:36], "minari", json.dumps({"id": dataset, "sha256": digest}), profile=json.dumps(dict(profile)))
        self._connected().log_inputs(run_id, datasets=[DatasetInput(entity, [InputTag("mlflow.data.context", "training")])])

    def trial_rows(self, keys: Iterable[str]) -> dict[str, RunRow]:
        """The runs of trials, by trial key."""
        wanted, rows = set(keys), {}
        for run in self._search("tags.`winnow.kind` = 'trial'"):
            key = run.data.tags.get("winnow.trial_key", "")
            if key in wanted:
                rows[key] = RunRow(run.info.run_id, run.info.status, run.data.metrics, run.data.tags)
        return rows

    def all_trials(self) -> dict[str, RunRow]:
        """The runs of all trials, by run id."""
        runs = self._search("tags.`winnow.kind` = 'trial'")
        return {run.info.run_id: RunRow(run.info.run_id, run.info.status, run.data.metrics, run.data.tags, run.data.params) for run in runs}

    def fetch(self, run_id: str, names: Iterable[str], folder: Path) -> None:
        """Download those of the artifacts `names` that the run has."""
        client = self._connected()
        existing = {artifact.path for artifact in client.list_artifacts(run_id)}
        for name in names:
            if name in existing:
                client.download_artifacts(run_id, name, str(folder))

    def sweeps(self) -> dict[str, str]:
        """The parent runs: sweep -> run id, the oldest of each name."""
        runs = sorted(self._search("tags.`winnow.kind` = 'sweep'"), key=lambda run: -run.info.start_time)
        return {run.data.tags["winnow.sweep"]: run.info.run_id for run in runs}

    def sweep_rows(self, sweep: str, parent: str) -> list[RunRow]:
        """The runs of a sweep's trials: those under its parent run, and those that it reuses from other sweeps."""
        filters = (f"tags.`mlflow.parentRunId` = '{parent}' and tags.`winnow.kind` = 'trial'", f"tags.`winnow.sweep.{sweep}` = 'reused'")
        runs = {run.info.run_id: run for each in filters for run in self._search(each)}
        return [RunRow(key, run.info.status, run.data.metrics, run.data.tags, run.data.params) for key, run in runs.items()]

    def history(self, run_id: str, metric: str) -> dict[int, float]:
        """A metric by update, ascending."""
        points = self._connected().get_metric_history(run_id, metric)
        return {point.step: point.value for point in sorted(points, key=lambda point: (point.step, point.timestamp))}

    def read_json(self, run_id: str, name: str) -> Any:
        """A JSON artifact; None if the run has none of this name."""
        content = self.read_bytes(run_id, name)
        return None if content is None else json.loads(content)

    def read_bytes(self, run_id: str, name: str) -> bytes | None:
        """An artifact; None if the run has none of this name."""
        client = self._connected()
        if name not in {artifact.path for artifact in client.list_artifacts(run_id)}:
            return None
        with tempfile.TemporaryDirectory() as folder:
            return Path(client.download_artifacts(run_id, name, folder)).read_bytes()

    def _note(self, run_id: str, text: str, *, first: bool = False) -> dict[str, str]:
        """The tags that make a note; none if `describe` has to keep the present one."""
        tags, text = self._connected().get_run(run_id).data.tags, text[:TAG_LENGTH]
        ours = digest(tags.get(NOTE, "")) in (tags.get("winnow.note"), digest(""))
        return {NOTE: text, "winnow.note": digest(text)} if ours and not (first and NOTE in tags) else {}

    def _find_or_create(self, tag: str, value: str, name: str, tags: Mapping[str, str]) -> str:
        if value not in self._runs:
            self._connected()
            runs = self._search(f"tags.`{tag}` = '{value}'")
            if not runs:
                self._connected().create_run(self._experiment, run_name=name, tags={tag: value, **tags})
                # Creation is retried if its answer is lost, which leaves a duplicate: keep the oldest.
                runs = self._search(f"tags.`{tag}` = '{value}'")
            oldest, *duplicates = sorted(runs, key=lambda run: (run.info.start_time, run.info.run_id))
            for duplicate in duplicates:
                self._connected().delete_run(duplicate.info.run_id)
            self._runs[value] = oldest.info.run_id
            if oldest.info.status == "RUNNING":
                self._open.add(oldest.info.run_id)
        return self._runs[value]

    def _search(self, filter: str) -> list[Any]:
        client, runs, token = self._reading(), [], None
        while client and token != "":
            page = client.search_runs([self._experiment], filter, max_results=1000, page_token=token)
            runs += page
            token = page.token or ""
        return runs

    def _batch(
        self, run_id: str, metrics: Sequence[Any] = (), params: Mapping[str, str] | None = None, tags: Mapping[str, str] | None = None
    ) -> None:
        from mlflow.entities import Param, RunTag

        self._connected().log_batch(
            run_id,
            metrics=metrics,
            params=[Param(name, value[:PARAM_LENGTH]) for name, value in (params or {}).items()],
            tags=[RunTag(name, value[:TAG_LENGTH]) for name, value in (tags or {}).items()],
        )

    def _exists(self) -> bool:
        """Whether a client may open the store: it would create a missing sqlite database, and tables in one that is not MLflow's."""
        file = database.sqlite_file(self.uri)
        return file is None or (file.exists() and database.has_tables(file))

    def _reading(self) -> Any:
        """The client if the experiment exists, else None; creates nothing."""
        if not self._experiment and self._exists():
            experiment = self._opened().get_experiment_by_name(self.experiment)
            self._experiment = str(experiment.experiment_id) if experiment is not None else ""
        return self._opened() if self._experiment else None

    def _connected(self) -> Any:
        """The client; creates the experiment if necessary."""
        if not self._created:
            self._experiment = self._experiment_id(self._opened())
            self._created = True
        return self._opened()

    def _opened(self) -> Any:
        if self._client is None:
            with mlflow_errors():
                self._client = OneLineErrors(database.open_client(self.uri, client_class()))
        return self._client

    def _experiment_id(self, client: Any) -> str:
        experiment = client.get_experiment_by_name(self.experiment)
        if experiment is not None:
            for name, value in ABOUT_EXPERIMENT.items():
                if name not in experiment.tags:
                    client.set_experiment_tag(experiment.experiment_id, name, value)
            return str(experiment.experiment_id)
        # A server decides where artifacts go; the embedded store would put them into the working directory.
        location = paths.mlflow_artifacts(self._storage).as_uri() if self.uri.startswith("sqlite") else None
        return str(client.create_experiment(self.experiment, artifact_location=location, tags=ABOUT_EXPERIMENT))


def params_of(trial: Trial) -> dict[str, str]:
    """All settings of a trial: its fields and every hyperparameter, defaults included."""
    plain = {name: str(value) for name, value in trial.to_json().items() if name != "hyper"}
    return plain | {f"hyper.{name}": str(value) for name, value in trial.hyper_values().items()}


def filters_of(trial: Trial) -> dict[str, str]:
    """Tags to filter runs by."""
    return {f"winnow.{name}": str(getattr(trial, name)) for name in ("dataset", "algorithm", "pruner", "sparsity", "seed", "cell")}


def digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def trial_of(params: Mapping[str, str]) -> Trial:
    """The trial with a run's params. Raises UserError if this code cannot construct it."""
    texts = {name: text for name, text in params.items() if not name.startswith("hyper.")}
    kinds = {f.name: f.type for f in fields(Trial)}
    try:
        plain: dict[str, Any] = {name: text if kinds[name] == "str" else ast.literal_eval(text) for name, text in texts.items()}
        hyper = {name.removeprefix("hyper."): text for name, text in params.items() if name.startswith("hyper.")}
        defaults = plugins.hyper_defaults(plain["algorithm"])
        values = {name: text if isinstance(defaults[name], str) else ast.literal_eval(text) for name, text in hyper.items()}
        return Trial(**plain, hyper=values)
    except (KeyError, ValueError, SyntaxError, TypeError) as error:
        raise UserError(f"params that do not make a trial: {error}") from None


def finite(points: Iterable[Point]) -> list[Point]:
    """Points as MLflow's databases store them: no infinities, which some refuse or alter, and no negative zero."""
    return [(name, value + 0.0, time, update) for name, value, time, update in points if not math.isinf(value)]
