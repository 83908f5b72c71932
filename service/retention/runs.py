"""Removes runs from MLflow for good, with their artifacts.

Where MLflow's client opens the database itself, rows are deleted as `mlflow gc` deletes them, some hundred runs at a time. A server has no
such request: there a run is deleted as on its page, which keeps it until somebody runs `mlflow gc` on that host, and it loses the tags that
make it ours, so that a new run can take its place.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from service.storage.trial_objects import in_parallel
from service.tracking.connection import TrackingError, artifact_store, mlflow_errors, pages, passes
from service.tracking.cursor import run_id_of
from service.tracking.reading import LIGHT, PARENT, STORAGE, is_deleted
from service.tracking.runs import Tracking
from service.tracking.sql import database, many

TRIES = 10  # of a transaction, while another process holds the database
PAUSE = 1.0  # seconds between two of them
GONE = {STORAGE: "forgotten", "winnow.kind": "forgotten"}  # tags of a run that a server keeps as deleted


class Removal(Tracking):
    """A connection to MLflow that can remove this storage's runs."""

    @property
    def for_good(self) -> bool:
        """Whether MLflow's database is at hand."""
        return database.is_database(self.uri)

    def runs(self, keys: Iterable[str]) -> dict[str, list[Any]]:
        """This storage's runs of trials, by trial key, deleted ones included, with no more than is needed here."""
        found: dict[str, list[Any]] = {}
        for _, held in self.held(keys, light=LIGHT):
            for key, runs in held.items():
                if own := [run for run in runs if self.mine(run, run_id_of(self._storage, key))]:
                    found[key] = own
        return found

    def sweep_runs_of(self, sweep: str) -> list[Any]:
        """This storage's runs of a sweep itself, deleted ones included."""
        return [run for run in self.parents(sweep) if self.mine(run)]

    def registered(self) -> set[str]:
        """The ids of runs of which a version of a registered model needs the artifacts."""
        client = self._reading()
        versions = pages(partial(client.search_model_versions, "")) if client else ()
        return {version.run_id for version in versions if version.run_id}

    def move_children(self, run_ids: Iterable[str], sweep: str) -> None:
        """Put runs below the run of another sweep."""
        parent = self.parent_run(sweep)
        in_parallel(lambda run_id: self.move_below(run_id, parent), run_ids)

    def disown(self, run: Any) -> None:
        """Leave a run as it is, but not as this storage's."""
        self._batch(run.info.run_id, tags={STORAGE: GONE[STORAGE]})

    def remove(self, runs: Sequence[Any], done: Callable[[int], None] = lambda count: None) -> None:
        """Remove runs, artifacts first, so that what a kill leaves is found again by its run. `done` hears of how many are gone."""
        for start in range(0, len(runs), many.AT_ONCE):
            some = runs[start : start + many.AT_ONCE]
            in_parallel(self._remove_artifacts, some)
            if self.for_good:
                self._patiently(partial(self._delete_rows, [run.info.run_id for run in some]))
            else:
                in_parallel(self._delete, some)
            done(len(some))
        self.forget()

    def compact(self) -> None:
        """Give the room in the storage's own database back to the disk, unless somebody else is using it."""
        if self.embedded and (file := database.sqlite_file(self.uri)) and file.exists():
            database.vacuum(file)

    def _remove_artifacts(self, run: Any) -> None:
        """Those of one run; what is gone already is no error."""
        if (folder := folder_of(run)) is not None:
            shutil.rmtree(folder, ignore_errors=True)
            return
        with mlflow_errors():
            artifact_store(run.info.artifact_uri, self.uri).delete_artifacts()

    def _delete(self, run: Any) -> None:
        """As on MLflow's page; nobody may change a run that is deleted already."""
        if not is_deleted(run):
            self._batch(run.info.run_id, tags=GONE)
            self._opened().delete_run(run.info.run_id)

    def _delete_rows(self, ids: Sequence[str]) -> None:
        """Delete runs and every row that belongs to one of them, in one transaction."""
        from mlflow.store.tracking.dbmodels.models import SqlInput, SqlInputTag, SqlRun

        runs, inputs, tags = SqlRun.__table__, SqlInput.__table__, SqlInputTag.__table__
        with mlflow_errors(), self._opened().engine().begin() as connection:
            for table in reversed(SqlRun.metadata.sorted_tables):
                for key in table.foreign_keys:
                    if key.column is runs.c.run_uuid:
                        connection.execute(table.delete().where(key.parent.in_(ids)))
            of_them = inputs.c.destination_id.in_(ids)
            known = [row[0] for row in connection.execute(inputs.select().with_only_columns(inputs.c.input_uuid).where(of_them))]
            connection.execute(tags.delete().where(tags.c.input_uuid.in_(known)))
            connection.execute(inputs.delete().where(of_them))
            connection.execute(runs.delete().where(runs.c.run_uuid.in_(ids)))

    def _patiently(self, call: Callable[[], None]) -> None:
        for left in reversed(range(TRIES)):
            try:
                return call()
            except TrackingError as error:
                if not left or not passes(error):
                    raise
                time.sleep(PAUSE)
        return None


def folder_of(run: Any) -> Path | None:
    """The folder of this machine that holds a run's artifacts, and nothing else; None where they are elsewhere."""
    parts = urlsplit(run.info.artifact_uri or "")
    if parts.scheme not in ("", "file") or not parts.path:
        return None
    path = Path(unquote(parts.path)) if parts.scheme else Path(run.info.artifact_uri)
    inside = path.name == "artifacts" and path.parent.name == run.info.run_id
    return path.parent if inside else path if path.name == run.info.run_id else None


def parent_of(run: Any) -> str:
    return str(run.data.tags.get(PARENT, ""))
