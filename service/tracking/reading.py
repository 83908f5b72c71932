"""What MLflow holds: the runs of sweeps and trials, found by tags, with their metrics, artifacts and pages. Nothing here changes it.

The tag `winnow.trial_key` ties a run to its trial, and `winnow.storage` to the storage that fills it, so that a trial has exactly one run
per storage (docs/decisions/016-one-tracker.md).
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import quote

from service.ledger.ledger import LIMIT
from service.storage.identity import existing_identity
from service.tracking.connection import mlflow_errors, pages
from service.tracking.experiment import VIEW, Experiment
from service.tracking.sql import many

VIEWS = "mlflow.sharedViewState."  # tags of an experiment: views of its runs that a link can name
STORAGE = "winnow.storage"  # tag: the identity of the storage that fills the run
PARENT = "mlflow.parentRunId"
ANY = "%"  # a tag's value in a search: whichever
LIGHT = ("winnow.trial_key", STORAGE, PARENT)  # tags that say whose run it is
STAGES = {"ACTIVE_ONLY": ("active",), "DELETED_ONLY": ("deleted",), "ALL": ("active", "deleted")}  # of a run's life, by MLflow's ViewType


@dataclass(frozen=True)
class RunRow:
    """A trial's run: the last values of its metrics (by `stage/what`), its tags, params, and MLflow's status."""

    run_id: str
    status: str
    metrics: Mapping[str, float]
    tags: Mapping[str, str]
    params: Mapping[str, str] = field(default_factory=dict)


class Reading(Experiment):
    """The runs of one MLflow experiment, whose connection the first call opens. All errors of MLflow are TrackingError.

    Nothing is made: where there is no database or no experiment yet, there are no runs.
    """

    def __init__(self, storage: Path, restore: bool) -> None:
        super().__init__(storage, restore)
        self._identity = ""
        self.borrowed: set[str] = set()  # keys of the trials that `trial_rows` read from runs that another storage fills

    def held(self, keys: Iterable[str], light: Collection[str] = ()) -> Iterator[tuple[list[str], dict[str, list[Any]]]]:
        """Some hundred of the trials after the other, with all runs of theirs, deleted ones included, by trial key.

        It costs a database a few statements for each part of them, and a server a request per 1000 runs of all trials. `light`: the tags
        that are needed, and no params and metrics, as far as that is cheaper; all where it is empty."""
        wanted, client = list(keys), self._reading()
        engine = client.engine() if client else None
        known: dict[str, list[Any]] = {}
        if client and not engine:
            for run in self._search({"winnow.kind": "trial"}, "ALL"):
                known.setdefault(run.data.tags.get("winnow.trial_key", ""), []).append(run)
        for start in range(0, len(wanted), many.AT_ONCE):
            block = wanted[start : start + many.AT_ONCE]
            found: dict[str, list[Any]] = {key: known[key] for key in block if key in known}
            if engine:
                tags = {"winnow.trial_key": block, "winnow.kind": ["trial"]}
                with mlflow_errors():
                    for run in many.runs(engine, self._experiment, tags, STAGES["ALL"], light):
                        found.setdefault(run.data.tags["winnow.trial_key"], []).append(run)
            yield block, found

    def parents(self, sweep: str) -> list[Any]:
        """The runs of a sweep, deleted ones and those of other storages included."""
        return self._search({"winnow.sweep": sweep, "winnow.kind": "sweep"}, "ALL")

    def sweep_runs(self) -> list[Any]:
        """The runs of all sweeps, the newest first, each storage's; empty where there is no MLflow yet."""
        runs = self._search({"winnow.kind": "sweep"})
        return sorted(runs, key=lambda run: run.info.start_time, reverse=True)

    def mine(self, run: Any, known: str = "") -> bool:
        """Whether this storage fills the run. Runs of older code name no storage: theirs is the one that knows them, by its cursor
        or because its own database holds them."""
        storage = run.data.tags.get(STORAGE, "")
        if storage and storage == self._me():
            return True
        return bool(run.info.run_id == known and (self.embedded or not storage)) or (self.embedded and not storage)

    def run(self, run_id: str) -> Any:
        """What MLflow holds of a run."""
        return self._connected().get_run(run_id)

    def state_of(self, run_id: str) -> str:
        """The state last set on a run."""
        return str(self.run(run_id).data.tags.get("winnow.state", ""))

    def limit_of(self, run_id: str) -> str:
        """The limit at which a sweep's newest run has ended; empty where it has not ended at one."""
        tags = self.run(run_id).data.tags
        return str(tags.get("winnow.message", "")) if tags.get("winnow.reason") == LIMIT else ""

    def page(self, sweep: str) -> str:
        """The path of MLflow's page that shows the sweep's runs in VIEW; empty if the experiment does not exist yet."""
        if not self._reading():
            return ""
        view = f"viewStateShareKey={quote(view_of(sweep))}"
        if f"{VIEWS}{view_of(sweep)}" not in self._opened().get_experiment(self._experiment).tags:  # older code did not write it
            view = f"searchFilter={quote(filter_of(sweep))}&orderByKey={quote(str(VIEW['orderByKey']))}&orderByAsc=false"
        return f"#/experiments/{self._experiment}/runs?workflowType=machine_learning&{view}"

    def file_page(self, run_id: str, name: str) -> str:
        """The path of MLflow's page that shows an artifact of a run."""
        return f"#/experiments/{self._experiment}/runs/{run_id}/artifacts/{quote(name)}" if self._reading() else ""

    def trial_rows(self, keys: Iterable[str]) -> dict[str, RunRow]:
        """The runs of trials, by trial key: this storage's, else one that another storage has finished."""
        wanted, rows = set(keys), dict[str, RunRow]()
        self.borrowed = set()
        for run in self._best_last(self._search({"winnow.kind": "trial"})):
            key, mine = run.data.tags.get("winnow.trial_key", ""), not self._others(run)
            if key in wanted and (mine or run.info.status == "FINISHED"):
                rows[key] = RunRow(run.info.run_id, run.info.status, run.data.metrics, run.data.tags)
                (self.borrowed.discard if mine else self.borrowed.add)(key)
        return rows

    def all_trials(self) -> dict[str, RunRow]:
        """The runs of all trials, by run id; of several runs of one trial this storage's comes last."""
        runs = self._best_last(self._search({"winnow.kind": "trial"}))
        return {run.info.run_id: RunRow(run.info.run_id, run.info.status, run.data.metrics, run.data.tags, run.data.params) for run in runs}

    def fetch(self, run_id: str, names: Iterable[str], folder: Path) -> None:
        """Download those of the artifacts `names` that the run has."""
        client = self._connected()
        existing = {artifact.path for artifact in client.list_artifacts(run_id)}
        for name in names:
            if name in existing:
                client.download_artifacts(run_id, name, str(folder))

    def sweeps(self) -> dict[str, str]:
        """The parent runs: sweep -> run id; of several this storage's, else by `_best_last`."""
        runs = self._best_last(self._search({"winnow.kind": "sweep"}))
        return {run.data.tags["winnow.sweep"]: run.info.run_id for run in runs}

    def others_note(self, sweep: str, run_id: str) -> str:
        """A line where other storages have a sweep of that name here, whose run is not `run_id`; empty where none has."""
        runs = [run for run in self.parents(sweep) if not is_deleted(run) and run.info.run_id != run_id]
        count = len({run.data.tags.get(STORAGE) for run in runs})
        who = f"{count} other storage{'s fill sweeps' if count > 1 else ' fills a sweep'} of this name"
        return f"{sweep}: {who} in this MLflow, whose runs are left out" if count else ""

    def sweep_ids(self) -> set[str]:
        """The ids of all sweeps' runs, of any storage."""
        return {run.info.run_id for run in self._search({"winnow.kind": "sweep"})}

    def artifacts(self, run_id: str) -> set[str]:
        """The names of a run's artifacts."""
        return {artifact.path for artifact in self._connected().list_artifacts(run_id)}

    def sweep_rows(self, sweep: str, parent: str) -> list[RunRow]:
        """The runs of a sweep's trials: those under its parent run, and those below other sweeps of the same storage, which it reuses or
        has trained to the end."""
        below = self._search({PARENT: parent, "winnow.kind": "trial"})
        others = self._search({f"winnow.sweep.{sweep}": ANY}, without={PARENT: parent})
        storage = self._opened().get_run(parent).data.tags.get(STORAGE)
        same = [run for run in others if storage is None or run.data.tags.get(STORAGE, storage) == storage]
        runs = {run.info.run_id: run for run in [*below, *same]}
        return [RunRow(key, run.info.status, run.data.metrics, run.data.tags, run.data.params) for key, run in runs.items()]

    def deleted(self, parent: str) -> int:
        """How many runs below a sweep's run somebody has deleted."""
        below, key = {PARENT: parent}, "winnow.trial_key"
        deleted = {run.data.tags.get(key) for run in self._search(below, "DELETED_ONLY")}
        return len(deleted - {run.data.tags.get(key) for run in self._search(below)}) if deleted else 0

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

    def _mine_of(self, keys: Sequence[str]) -> dict[str, list[Any]]:
        """This storage's runs of trials, deleted ones included, without what they hold."""
        return {key: [run for run in runs if self.mine(run)] for _, held in self.held(keys, light=LIGHT) for key, runs in held.items()}

    def _best_last(self, runs: Iterable[Any]) -> list[Any]:
        """Sorted: of several runs of one thing this storage's is the last; before it those of older code, finished ones, and the oldest."""

        def goodness(run: Any) -> tuple[bool, bool, bool, int]:
            storage = run.data.tags.get(STORAGE, "")
            return bool(storage) and storage == self._me(), not storage, run.info.status == "FINISHED", -run.info.start_time

        return sorted(runs, key=goodness)

    def _others(self, run: Any) -> bool:
        """Whether another storage fills the run."""
        return run.data.tags.get(STORAGE, "") not in ("", self._me())

    def _me(self) -> str:
        """The storage's identity; empty if it has none yet."""
        self._identity = self._identity or existing_identity(self._storage)
        return self._identity

    def _search(self, tags: Mapping[str, str], view: str = "ACTIVE_ONLY", without: Mapping[str, str] | None = None) -> list[Any]:
        """The runs with these tags, of which ANY is any value, and not with those, the newest first; `view`, a name of MLflow's ViewType,
        for those that are deleted."""
        client, without = self._reading(), without or {}
        if client and (engine := client.engine()):
            wanted = {name: [] if value == ANY else [value] for name, value in tags.items()}
            with mlflow_errors():
                return list(many.runs(engine, self._experiment, wanted, STAGES[view], (), without))
        if not client:
            return []
        from mlflow.entities import ViewType

        text = " and ".join(
            [f"tags.`{name}` {'LIKE' if value == ANY else '='} '{value}'" for name, value in tags.items()]
            + [f"tags.`{name}` != '{value}'" for name, value in without.items()]
        )
        found = pages(partial(client.search_runs, [self._experiment], text, ViewType.from_string(view.lower())))
        # Each once: a run that is made between two pages moves the older ones on, and the last of a page comes again with the next.
        return list({run.info.run_id: run for run in found}.values())


def filter_of(sweep: str) -> str:
    """What finds the runs of a sweep's trials, those that it reuses included."""
    return f"tags.`winnow.sweep.{sweep}` LIKE '{ANY}'"


def view_of(sweep: str) -> str:
    return f"winnow-{sweep}"


def is_deleted(run: Any) -> bool:
    return bool(run.info.lifecycle_stage == "deleted")
