"""A storage that was moved or copied: its MLflow database names artifacts by the path that the storage had when they were written.

Opening the database replaces that path by the present one, in one transaction. Where the storage may only be read, the same happens in a
temporary copy of the database.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import sys
import tempfile
from pathlib import Path
from urllib.parse import unquote, urlsplit

from service.tracking.sql.database import connect

OURS = "mlflow.sharedViewState.winnow"  # a tag of the experiments that hold our runs
COLUMNS = (
    ("experiments", "artifact_location"), ("runs", "artifact_uri"), ("logged_models", "artifact_location"),
    ("model_versions", "source"), ("model_versions", "storage_location"),
)  # fmt: skip


def mend(file: Path, artifacts: Path) -> tempfile.TemporaryDirectory[str] | None:
    """Make an sqlite file of MLflow name `artifacts` wherever it names the artifacts of a storage that this one was before.

    Returns a folder with a mended copy, of the same name, where the file itself may only be read. Raises sqlite3.Error.
    """
    if not file.exists() or not (before := _former(file, artifacts)):
        return None
    try:
        _rename(file, before, artifacts)
    except sqlite3.OperationalError as error:
        if "readonly" not in str(error) and "unable to open" not in str(error):
            raise
        return _mended_copy(file, before, artifacts)
    was = ", ".join(str(_path(location).parent) for location in before)
    print(f"note: this storage was at {was} before; its MLflow database now names its artifacts by {artifacts.parent}", file=sys.stderr)
    return None


def gone(location: str) -> Path | None:
    """The folder of artifacts that a location names, if it was in a storage of this machine that is no longer there."""
    if urlsplit(location).scheme not in ("", "file"):
        return None
    folder = _path(location)
    return folder if folder.name == "artifacts" and not folder.parent.exists() else None


def _former(file: Path, artifacts: Path) -> list[str]:
    """The locations of our experiments that are the artifacts of another storage, as the database writes them."""
    try:
        known = _locations(file, "ro")
    except sqlite3.OperationalError as error:
        if "readonly" not in str(error):
            raise
        known = _locations(file, "rw")  # a writer was killed in a transaction: it is rolled back first
    known = [location for location in known if location != artifacts.as_uri()]
    return [location for location in known if _path(location).name == "artifacts" and not _same(_path(location).parent / file.name, file)]


def _locations(file: Path, mode: str) -> list[str]:
    with contextlib.closing(connect(file, mode)) as database:
        if not {"experiments", "experiment_tags"} <= _tables(database):
            return []
        query = "SELECT DISTINCT artifact_location FROM experiments JOIN experiment_tags USING (experiment_id) WHERE key = ?"
        return [location for (location,) in database.execute(query, (OURS,)) if location]


def _rename(file: Path, before: list[str], artifacts: Path) -> None:
    with contextlib.closing(connect(file, "rw")) as database, database:
        database.execute("BEGIN IMMEDIATE")
        tables = _tables(database)
        for old in before:
            for table, column in COLUMNS:
                if table in tables:
                    new, size = artifacts.as_uri(), len(old)
                    database.execute(
                        f"UPDATE {table} SET {column} = ? || substr({column}, ?) WHERE {column} = ? OR substr({column}, 1, ?) = ? || '/'",
                        (new, size + 1, old, size + 1, old),
                    )


def _mended_copy(file: Path, before: list[str], artifacts: Path) -> tempfile.TemporaryDirectory[str]:
    folder = tempfile.TemporaryDirectory(prefix="winnow-")
    copy = Path(folder.name) / file.name
    with (
        contextlib.closing(connect(file, "ro")) as database,
        contextlib.closing(sqlite3.connect(copy)) as new,
    ):
        database.backup(new)
    _rename(copy, before, artifacts)
    return folder


def _tables(database: sqlite3.Connection) -> set[str]:
    return {name for (name,) in database.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}


def _path(location: str) -> Path:
    parts = urlsplit(location)
    return Path(unquote(parts.path)) if parts.scheme == "file" else Path(location)


def _same(one: Path, other: Path) -> bool:
    """Whether two paths lead to one file, e.g. by a link."""
    try:
        return os.path.samefile(one, other)
    except OSError:
        return False
