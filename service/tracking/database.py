"""MLflow's database where its client opens it itself: reads of many runs at once, and of an sqlite file its address, and tables that a kill
does not leave half-made.

MLflow makes its tables in some 400 steps of their own, and cannot continue from most of them. So a new database is made under a temporary
name. One that MLflow itself was killed in is made again if nobody has stored anything in it.

Its client reads runs one object per row and column, minutes for some thousand runs. What is read here has the same names.
"""

from __future__ import annotations

import contextlib
import os
import re
import sqlite3
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote

from service.storage import sharing
from trainables.errors import UserError

QUIET = 5.0  # seconds without a change after which nobody is making the tables any more
HALF_MADE = r"table \S+ already exists|duplicate column name"  # what MLflow's migrations stumble over
LOCK_TIMEOUT = 20.0  # seconds
AT_ONCE = 500  # runs per statement: databases limit its parameters
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


def address(file: Path) -> str:
    """The address of an sqlite file; in SQLAlchemy's plain form a `?` would begin the options."""
    return f"sqlite+pysqlite:///file:{quote(str(file))}?uri=true" if "?" in str(file) else f"sqlite:///{file}"


def is_database(uri: str) -> bool:
    """Whether MLflow's client opens a database at the address itself, without a server of MLflow."""
    return bool(re.match(r"(sqlite|postgresql|mysql|mssql)(\+\w+)?://", uri))


def runs(
    engine: Any, experiment: str, tags: Mapping[str, Collection[str]], stages: Collection[str], light: Collection[str]
) -> Iterator[Run]:
    """The runs of an experiment that have one of the values of each tag, the newest first. `stages` of their life: `active`, `deleted`.

    `light`: the tags to read, and no params and metrics; all where it is empty. No connection is held between two blocks of runs."""
    from mlflow.store.tracking.dbmodels.models import SqlRun

    table, tagged = SqlRun.__table__, SqlRun.metadata.tables["tags"]
    columns = [table.c[name] for name in ("run_uuid", "name", "status", "lifecycle_stage", "start_time", "artifact_uri", "experiment_id")]
    wanted = table.select().with_only_columns(*columns).where(table.c.experiment_id == int(experiment), table.c.lifecycle_stage.in_(stages))
    for name, values in tags.items():
        having = tagged.select().with_only_columns(tagged.c.run_uuid).where(tagged.c.key == name, tagged.c.value.in_(values))
        wanted = wanted.where(table.c.run_uuid.in_(having))
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
            for id, key, value, *nan in connection.execute(rows):
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


def sqlite_file(uri: str) -> Path | None:
    """The file of an sqlite address; None for other addresses and for a database in memory."""
    match = re.fullmatch(r"sqlite(?:\+\w+)?:///(file:)?([^?]+)(?:\?.*)?", uri)
    if not match or match[2] == ":memory:" or "mode=memory" in uri:
        return None
    return Path(unquote(re.sub("^//[^/]*", "", match[2])) if match[1] else match[2])


def has_tables(file: Path) -> bool:
    """Whether an sqlite file is MLflow's; True also if it cannot be read, as MLflow then reports why."""
    try:
        with contextlib.closing(sqlite3.connect(f"file:{quote(str(file))}?mode=ro", uri=True)) as database:
            return bool(database.execute("SELECT 1 FROM sqlite_master WHERE name = 'experiments'").fetchall())
    except sqlite3.Error:
        return True


def vacuum(file: Path) -> None:
    """Give the room of what was deleted back to the disk, unless another process is using the database, or the disk is full."""
    with contextlib.suppress(sqlite3.Error), contextlib.closing(sqlite3.connect(file, timeout=1.0, isolation_level=None)) as opened:
        opened.execute("VACUUM")


def open_client(uri: str, client: Any) -> Any:
    """A client of MLflow for `uri`. Makes a missing sqlite database, and makes a half-made one again if it holds nothing.

    Raises whatever MLflow raises, and UserError for a half-made database that holds something.
    """
    file = sqlite_file(uri)
    if file is None:
        return client(tracking_uri=uri)
    _make(file, client)
    try:
        return client(tracking_uri=uri)
    except Exception as error:
        if not re.search(HALF_MADE, str(error)):
            raise
    _wait_until_quiet(file)
    try:
        return client(tracking_uri=uri)
    except Exception as error:
        if not re.search(HALF_MADE, str(error)):
            raise
        _make_again(file, client)
    return client(tracking_uri=uri)


def _make(file: Path, client: Any) -> None:
    """Create the database under a temporary name, then link it."""
    if file.exists() and file.stat().st_size:
        return
    if file.exists():
        _make_again(file, client)
        return
    file.parent.mkdir(parents=True, exist_ok=True)
    temporary = _new(file, client)
    with contextlib.suppress(FileExistsError):  # another process was faster
        os.link(temporary, file)
    temporary.unlink()


def _make_again(file: Path, client: Any) -> None:
    """Fill a database that holds no run and no experiment with new tables, in place: MLflow keeps connections to it."""
    temporary = _new(file, client)
    try:
        with (
            contextlib.closing(sqlite3.connect(file, timeout=LOCK_TIMEOUT)) as database,
            contextlib.closing(sqlite3.connect(temporary)) as new,
        ):
            if _holds_something(database):
                raise UserError(
                    f"MLflow was killed while it changed the tables of {file}; restore it from a backup, or move it away: "
                    "`sync` then ships everything to a new one"
                )
            new.backup(database)
    finally:
        temporary.unlink(missing_ok=True)


def _new(file: Path, client: Any) -> Path:
    temporary = file.with_name(f".{file.name}.{os.getpid()}.tmp")
    temporary.unlink(missing_ok=True)
    client(tracking_uri=address(temporary)).search_experiments()
    sharing.open_to_group(temporary)  # SQLite makes its files with mode 0644
    return temporary


def _holds_something(database: sqlite3.Connection) -> bool:
    """Whether there is a run, or an experiment other than MLflow's own first."""
    tables = {name for (name,) in database.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
    queries = {"runs": "SELECT 1 FROM runs LIMIT 1", "experiments": "SELECT 1 FROM experiments WHERE name <> 'Default' LIMIT 1"}
    # A migration may have been killed between its copy of a table and the renaming of the copy.
    queries |= {f"_alembic_tmp_{name}": query.replace(name, f"_alembic_tmp_{name}") for name, query in queries.items()}
    return any(database.execute(query).fetchall() for name, query in queries.items() if name in tables)


def _wait_until_quiet(file: Path) -> None:
    """Wait until nobody has changed the file for a while: another process may be making the tables at this moment."""
    seen, since = None, time.monotonic()
    while time.monotonic() - since < QUIET:
        now = file.stat().st_mtime_ns, file.stat().st_size
        if now != seen:
            seen, since = now, time.monotonic()
        time.sleep(0.2)
