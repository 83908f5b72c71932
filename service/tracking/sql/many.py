"""Many runs at once, read from MLflow's tables and written to them.

Its client makes an object of each row and column to read a run, and takes some transactions to write one: minutes for some thousand of
them."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from operator import itemgetter
from types import MappingProxyType
from typing import Any
from uuid import uuid4

AT_ONCE = 500  # runs per statement: databases limit its parameters
NEWEST_LAST = itemgetter("step", "timestamp", "value")
CONTEXT = ("mlflow.data.context", "training")  # the tag of a run's dataset
NUMBERS = ("tags", "params", "latest_metrics")  # tables with a row for each name of a run


@dataclass(frozen=True)
class Info:
    run_id: str
    run_name: str
    status: str
    lifecycle_stage: str
    start_time: int
    artifact_uri: str
    experiment_id: str


@dataclass(frozen=True)
class Data:
    tags: Mapping[str, str]
    params: Mapping[str, str]
    metrics: Mapping[str, float]


@dataclass(frozen=True)
class Run:
    """A run as MLflow's client returns it, without its inputs and outputs."""

    info: Info
    data: Data


@dataclass(frozen=True, kw_only=True)
class New:
    """A run to be made that has ended already. `datasets`: the fields of MLflow's entity of each dataset that it was trained on."""

    run_id: str
    name: str
    status: str
    artifact_uri: str
    begun: int  # milliseconds since 1970
    ended: int
    tags: Mapping[str, str]
    params: Mapping[str, str]
    points: Sequence[tuple[str, float, int, int]]
    datasets: Sequence[Mapping[str, str]]


def runs(
    engine: Any,
    experiment: str,
    tags: Mapping[str, Collection[str]],
    stages: Collection[str],
    light: Collection[str],
    without: Mapping[str, str] = MappingProxyType({}),
) -> Iterator[Run]:
    """The runs of an experiment that have one of the values of each tag (of none, any), and not those of `without`, the newest first.
    `stages` of their life: `active`, `deleted`.

    `light`: the tags to read, and no params and metrics; all where it is empty. No connection is held between two blocks of runs."""
    from mlflow.store.tracking.dbmodels.models import SqlRun

    table, tagged = SqlRun.__table__, SqlRun.metadata.tables["tags"]
    columns = [table.c[name] for name in ("run_uuid", "name", "status", "lifecycle_stage", "start_time", "artifact_uri", "experiment_id")]
    wanted = table.select().with_only_columns(*columns).where(table.c.experiment_id == int(experiment), table.c.lifecycle_stage.in_(stages))
    having = tagged.select().with_only_columns(tagged.c.run_uuid)
    for name, values in tags.items():
        wanted = wanted.where(table.c.run_uuid.in_(having.where(tagged.c.key == name, *[tagged.c.value.in_(values)] * bool(values))))
    for name, value in without.items():
        wanted = wanted.where(table.c.run_uuid.not_in(having.where(tagged.c.key == name, tagged.c.value == value)))
    with engine.connect() as connection:
        found = connection.execute(wanted.order_by(table.c.start_time.desc(), table.c.run_uuid)).all()
    for start in range(0, len(found), AT_ONCE):
        block = found[start : start + AT_ONCE]
        told = _told_of(engine, SqlRun.metadata.tables, [row[0] for row in block], light)
        for row in block:
            tags_of, params, metrics = (told[name].get(row[0], {}) for name in NUMBERS)
            id, name, status, stage, begun, uri, _ = row
            yield Run(Info(id, name, status, stage, begun, uri, experiment), Data(tags_of, params, metrics))


def _told_of(engine: Any, tables: Mapping[str, Any], ids: Sequence[str], light: Collection[str]) -> dict[str, dict[str, dict[str, Any]]]:
    """By the name of the table and the id of the run: what the table says of it."""
    told: dict[str, dict[str, dict[str, Any]]] = {name: {} for name in NUMBERS}
    names: dict[str, str] = {}  # each text once, whatever the number of runs
    with engine.connect() as connection:
        for name in NUMBERS[:1] if light else NUMBERS:
            table = tables[name]
            columns = [table.c.run_uuid, table.c.key, table.c.value, *([table.c.is_nan] if "is_nan" in table.c else [])]
            rows = table.select().with_only_columns(*columns).where(table.c.run_uuid.in_(ids), *([table.c.key.in_(light)] if light else []))
            for id, key, value, *nan in connection.execute(rows).all():
                told[name].setdefault(id, {})[names.setdefault(key, key)] = float("nan") if nan and nan[0] else value
    return told


def points(engine: Any, ids: Sequence[str]) -> Iterator[tuple[str, tuple[str, float, int, int]]]:
    """(run, (metric, value, milliseconds, update)) of every point of at most AT_ONCE runs."""
    from mlflow.store.tracking.dbmodels.models import SqlMetric

    table = SqlMetric.__table__
    columns = [table.c[name] for name in ("run_uuid", "key", "value", "is_nan", "timestamp", "step")]
    with engine.connect() as connection:
        rows = connection.execute(table.select().with_only_columns(*columns).where(table.c.run_uuid.in_(ids))).all()
    for id, key, value, nan, timestamp, step in rows:
        yield id, (key, float("nan") if nan else float(value), timestamp, step)


def insert(engine: Any, experiment: str, made: Sequence[New]) -> None:
    """Write runs in one transaction, as MLflow's own client would one after the other."""
    from mlflow.entities import SourceType
    from mlflow.store.tracking.dbmodels.models import SqlRun

    tables, where = SqlRun.metadata.tables, {"experiment_id": int(experiment)}
    rows: dict[str, list[dict[str, Any]]] = {name: [] for name in ("datasets", "runs", *NUMBERS, "metrics", "inputs", "input_tags")}
    with engine.begin() as connection:
        datasets = tables["datasets"]
        known = datasets.select().with_only_columns(datasets.c.name, datasets.c.digest, datasets.c.dataset_uuid)
        ids = {(name, digest): id for name, digest, id in connection.execute(known.where(datasets.c.experiment_id == int(experiment)))}
        for run in made:
            own = {"run_uuid": run.run_id}
            rows["runs"].append(own | where | {
                "name": run.name, "source_type": SourceType.to_string(SourceType.UNKNOWN), "source_name": "", "entry_point_name": "",
                "user_id": "unknown", "status": run.status, "start_time": run.begun, "end_time": run.ended, "deleted_time": None,
                "source_version": "", "lifecycle_stage": "active", "artifact_uri": run.artifact_uri,
            })  # fmt: skip
            rows["tags"] += [own | {"key": name, "value": value} for name, value in {"mlflow.runName": run.name, **run.tags}.items()]
            rows["params"] += [own | {"key": name, "value": value} for name, value in run.params.items()]
            points = [own | _number(*point) for point in dict.fromkeys(run.points)]
            rows["metrics"] += points
            rows["latest_metrics"] += {point["key"]: point for point in sorted(points, key=NEWEST_LAST)}.values()
            for data in run.datasets:
                named = data["name"], data["digest"]
                if named not in ids:
                    ids[named] = uuid4().hex
                    about = {f"dataset_{name}": data.get(name) for name in ("source_type", "source", "schema", "profile")}
                    rows["datasets"].append(where | about | {"dataset_uuid": ids[named], "name": named[0], "digest": named[1]})
                of_run = {"source_type": "DATASET", "source_id": ids[named], "destination_type": "RUN", "destination_id": run.run_id}
                rows["inputs"].append(of_run | {"input_uuid": (id := uuid4().hex)})
                rows["input_tags"].append({"input_uuid": id, "name": CONTEXT[0], "value": CONTEXT[1]})
        for name, new in rows.items():
            if new:
                connection.execute(tables[name].insert(), new)


def set_times(engine: Any, times: Mapping[str, tuple[int, int]]) -> None:
    """When runs began and ended, by their ids."""
    from mlflow.store.tracking.dbmodels.models import SqlRun
    from sqlalchemy import bindparam

    table = SqlRun.__table__
    change = table.update().where(table.c.run_uuid == bindparam("id")).values(start_time=bindparam("begun"), end_time=bindparam("ended"))
    if times:
        with engine.begin() as connection:
            connection.execute(change, [{"id": id, "begun": begun, "ended": ended} for id, (begun, ended) in times.items()])


def _number(name: str, value: float, timestamp: int, step: int) -> dict[str, Any]:
    """A point as its table holds it, in which nan is a 0 that is marked."""
    nan = math.isnan(value)
    return {"key": name, "value": 0.0 if nan else value, "is_nan": nan, "timestamp": timestamp, "step": step}
