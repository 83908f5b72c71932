"""The connection to one MLflow experiment: opened by the first call, made by the first that writes."""

from __future__ import annotations

import json
import os
import shlex
import tempfile
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from service.storage import paths
from service.terminal.redaction import redact
from service.tracking.connection import DeletedError, OneLineErrors, client_class, mlflow_errors
from service.tracking.sql import database, relocation
from trainables.errors import UserError

EXPERIMENT = "winnow"  # default; MLFLOW_EXPERIMENT_NAME overrides it
SCHEMES = ("http", "https", "sqlite", "postgresql", "mysql", "mssql", "databricks")
CHOICES = "http://HOST:PORT, sqlite:////FOLDER/mlflow.db, postgresql://USER:PASSWORD@HOST/DATABASE"
VIEW = {  # of all runs in one flat table, the best first, with the columns that distinguish trials
    "selectedColumns": [
        *(f"params.`{name}`" for name in ("dataset", "algorithm", "pruner", "sparsity", "seed")),
        *(f"metrics.`{name}`" for name in ("eval/normalized_score", "eval/return", "mask/effective_density/actor")),
    ],
    "orderByKey": "metrics.`eval/normalized_score`",
    "orderByAsc": False,
}
ABOUT_EXPERIMENT = {
    relocation.OURS: json.dumps(VIEW),
    "mlflow.experimentKind": "custom_model_development",  # else MLflow's page asks for the kind each time
    "mlflow.note.content": "One run per trial, below the run of the sweep that trained it. Filter by params, or by tags `winnow.*`.",
}


def uri_of(storage: Path) -> str:
    """$MLFLOW_TRACKING_URI, else an sqlite file in the storage."""
    return os.environ.get("MLFLOW_TRACKING_URI") or database.address(paths.mlflow_db(storage))


def check_address(storage: Path) -> None:
    """Raise UserError for a $MLFLOW_TRACKING_URI that MLflow cannot use, where its own error would tell of something else."""
    uri = uri_of(storage)
    try:
        scheme = urlsplit(uri).scheme.partition("+")[0]
    except ValueError:
        scheme = "none"
    if uri == "databricks" or scheme in SCHEMES or entry_points(group="mlflow.tracking_store", name=scheme):
        return
    problem = "a folder, which MLflow no longer supports" if scheme in ("", "file") else "not an address that MLflow knows"
    raise UserError(f"MLFLOW_TRACKING_URI {redact(uri)!r} is {problem}; set {CHOICES}, or unset it")


class Experiment:
    """The experiment that $MLFLOW_EXPERIMENT_NAME names, in the MLflow that serves a storage. All errors of MLflow are TrackingError."""

    def __init__(self, storage: Path, restore: bool) -> None:
        """`restore` brings the experiment back if somebody has deleted it."""
        self.uri, self.restores = uri_of(storage), restore
        self.embedded = self.uri == database.address(paths.mlflow_db(storage))
        self.experiment = os.environ.get("MLFLOW_EXPERIMENT_NAME") or EXPERIMENT
        self._storage = storage
        self._client: Any = None
        self._copy: tempfile.TemporaryDirectory[str] | None = None  # of a database that may only be read and had to be mended
        self._experiment, self._created = "", False

    def check(self) -> None:
        """Raise where MLflow does not answer, or its experiment is deleted, its artifacts gone or one may only read it; creates only a
        missing database."""
        self._opened()
        if self._reading():
            experiment = self._present_experiment()
            self._check_artifacts(experiment)
            name, value = next(iter(ABOUT_EXPERIMENT.items()))
            # Asks for the permission that a run needs, and changes nothing.
            self._opened().set_experiment_tag(self._experiment, name, experiment.tags.get(name, value))

    def _exists(self) -> bool:
        """Whether a client may open the store: it would create a missing sqlite database, and tables in one that is not MLflow's."""
        file = database.sqlite_file(self.uri)
        return file is None or (file.exists() and database.has_tables(file))

    def _reading(self) -> Any:
        """The client if the experiment exists, else None; creates nothing."""
        if not self._experiment and self._exists():
            experiment = self._present_experiment()
            self._experiment = str(experiment.experiment_id) if experiment is not None else ""
        return self._opened() if self._experiment else None

    def _connected(self) -> Any:
        """The client; creates the experiment if necessary."""
        if not self._created:
            self._experiment = self._experiment_id(self._opened())
            self._created = True
        return self._opened()

    def _writing(self) -> Any:
        """The client, for artifacts. Raises UserError where the storage was removed: MLflow would make its folder again."""
        client = self._connected()
        if self.embedded and not paths.mlflow_db(self._storage).exists():
            raise UserError(f"{paths.mlflow_db(self._storage)} was removed")
        return client

    def _opened(self) -> Any:
        if self._client is None:
            check_address(self._storage)
            with mlflow_errors():
                uri, file = self.uri, paths.mlflow_db(self._storage)
                if self.embedded and (copy := relocation.mend(file, paths.mlflow_artifacts(self._storage))):
                    self._copy, uri = copy, database.address(Path(copy.name) / file.name)
                self._client = OneLineErrors(database.open_client(uri, client_class()))
        return self._client

    def _check_artifacts(self, experiment: Any) -> None:
        """Raise UserError where an sqlite database of the user's names artifacts in a storage that is gone: they would be lost, or be
        written there."""
        if not self.embedded and self.uri.startswith("sqlite") and (folder := relocation.gone(experiment.artifact_location)):
            link = shlex.join(["ln", "-s", str(self._storage), str(folder.parent)])
            raise UserError(
                f"experiment {self.experiment!r} keeps its artifacts in {folder}, which is gone; move that storage back, or `{link}` "
                "if it is this one"
            )

    def _present_experiment(self) -> Any:
        """The experiment; None if there is none. Raises DeletedError where somebody has deleted it, or restores it."""
        experiment = self._opened().get_experiment_by_name(self.experiment)
        if experiment is not None and experiment.lifecycle_stage == "deleted":
            if not self.restores:
                raise DeletedError(
                    f"experiment {self.experiment!r} was deleted in MLflow; `winnow sync SWEEP --restore` brings it back, "
                    "and another MLFLOW_EXPERIMENT_NAME begins a new one"
                )
            self._opened().restore_experiment(experiment.experiment_id)
        return experiment

    def _experiment_id(self, client: Any) -> str:
        experiment = self._present_experiment()
        if experiment is not None:
            self._check_artifacts(experiment)
            for name, value in ABOUT_EXPERIMENT.items():
                if name not in experiment.tags:
                    client.set_experiment_tag(experiment.experiment_id, name, value)
            return str(experiment.experiment_id)
        # A server decides where artifacts go; for a database the client does, and would put them into the working directory.
        location = paths.mlflow_artifacts(self._storage).as_uri() if database.is_database(self.uri) else None
        return str(client.create_experiment(self.experiment, artifact_location=location, tags=ABOUT_EXPERIMENT))
