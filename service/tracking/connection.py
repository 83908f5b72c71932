"""How MLflow is reached: its client, imported late, the embedded database, and whatever goes wrong there in one line."""

from __future__ import annotations

import contextlib
import logging
import os
import re
import sqlite3
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

from trainables.errors import UserError


class TrackingError(UserError):
    """MLflow does not answer, or will not have this; `why` is what it said, in one line."""

    def __init__(self, error: Exception) -> None:
        self.why, self.error_code = told(error), getattr(error, "error_code", "")
        super().__init__(f"MLflow does not answer as it should ({self.why})")


class Telling:
    """A client whose every call raises TrackingError where it fails."""

    def __init__(self, client: Any) -> None:
        self._client = client

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._client, name)

        def call(*given: Any, **named: Any) -> Any:
            with told_by_mlflow():
                return method(*given, **named)

        return call


@contextlib.contextmanager
def told_by_mlflow() -> Iterator[None]:
    """Whatever MLflow, its database or the network raises, as a TrackingError."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        raise TrackingError(error) from error


def sqlite_file(uri: str) -> Path | None:
    """The file of an sqlite address; None for any other, and for one in memory."""
    found = re.fullmatch(r"sqlite(?:\+\w+)?:///([^?]+)(?:\?.*)?", uri)
    return Path(found[1]) if found else None


def has_runs(file: Path) -> bool:
    """Whether an sqlite file is MLflow's; True also where that cannot be told, as MLflow will say why."""
    try:
        with contextlib.closing(sqlite3.connect(f"file:{quote(str(file))}?mode=ro", uri=True)) as database:
            return bool(database.execute("SELECT 1 FROM sqlite_master WHERE name = 'experiments'").fetchall())
    except sqlite3.Error:
        return True


def client_class() -> Any:
    """MlflowClient; importing it takes seconds."""
    # MLflow's own retries would hold a call for minutes; whoever calls here tries again later.
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "20")
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from mlflow import MlflowClient

    for name in ("mlflow", "alembic"):
        logging.getLogger(name).setLevel(logging.ERROR)
    return MlflowClient


def make_database(file: Path, client: Any) -> None:
    """Make the embedded database beside its place and then put it there: MLflow alters it in many steps and cannot go on from a half."""
    if file.exists():
        return
    file.parent.mkdir(parents=True, exist_ok=True)
    half = file.with_name(f".{file.name}.{os.getpid()}.tmp")
    half.unlink(missing_ok=True)
    client(tracking_uri=f"sqlite:///{half}").search_experiments()
    with contextlib.suppress(FileExistsError):  # another process was faster
        os.link(half, file)
    half.unlink()


def refused(error: Exception) -> bool:
    """Whether MLflow is there and will not have this, now or later."""
    return getattr(error, "error_code", "") in ("INVALID_PARAMETER_VALUE", "BAD_REQUEST", "RESOURCE_ALREADY_EXISTS")


def told(error: Exception) -> str:
    """An error in one line, without what an address in it may hold of users and passwords."""
    line = (str(error).strip().splitlines() or [""])[0]
    line = line if isinstance(error, UserError) else f"{type(error).__name__}: {line}"
    return re.sub(r"(?<=://)[^/\s]*@", "", line)[:300]
