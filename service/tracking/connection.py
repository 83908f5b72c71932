"""The connection to MLflow: its client, imported late, the embedded database, and errors in one line."""

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

from service.terminal.redaction import redact
from trainables.errors import UserError


class TrackingError(UserError):
    """MLflow does not answer or refuses a call; `why` is its error in one line."""

    def __init__(self, error: Exception) -> None:
        self.why, self.error_code = redacted(error), getattr(error, "error_code", "")
        super().__init__(f"MLflow does not answer as it should ({self.why})")


class OneLineErrors:
    """Wraps a client: calls that fail raise TrackingError."""

    def __init__(self, client: Any) -> None:
        self._client = client

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._client, name)

        def call(*arguments: Any, **named: Any) -> Any:
            with mlflow_errors():
                return method(*arguments, **named)

        return call


@contextlib.contextmanager
def mlflow_errors() -> Iterator[None]:
    """Turn errors of MLflow, its database and the network into TrackingError."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        raise TrackingError(error) from error


def sqlite_file(uri: str) -> Path | None:
    """The file of an sqlite address; None for other addresses and for a database in memory."""
    match = re.fullmatch(r"sqlite(?:\+\w+)?:///([^?]+)(?:\?.*)?", uri)
    return Path(match[1]) if match else None


def has_runs(file: Path) -> bool:
    """Whether an sqlite file is MLflow's; True also if it cannot be read, as MLflow then reports why."""
    try:
        with contextlib.closing(sqlite3.connect(f"file:{quote(str(file))}?mode=ro", uri=True)) as database:
            return bool(database.execute("SELECT 1 FROM sqlite_master WHERE name = 'experiments'").fetchall())
    except sqlite3.Error:
        return True


def client_class() -> Any:
    """MlflowClient, whose import takes seconds."""
    # MLflow's own retries would block for minutes; our callers retry later.
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "20")
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    # It would print the address of each run that ends, with the password in it and an emoji, which an ASCII stdout refuses.
    os.environ["MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT"] = "true"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from mlflow import MlflowClient

    for name in ("mlflow", "alembic", "urllib3"):
        logging.getLogger(name).setLevel(logging.CRITICAL + 1)  # TrackingError says what is wrong, in one line
    return MlflowClient


def make_database(file: Path, client: Any) -> None:
    """Create the embedded database under a temporary name, then link it: MLflow cannot continue from a half-migrated one."""
    if file.exists():
        return
    file.parent.mkdir(parents=True, exist_ok=True)
    temporary = file.with_name(f".{file.name}.{os.getpid()}.tmp")
    temporary.unlink(missing_ok=True)
    client(tracking_uri=f"sqlite:///{temporary}").search_experiments()
    with contextlib.suppress(FileExistsError):  # another process was faster
        os.link(temporary, file)
    temporary.unlink()


def refused(error: Exception) -> bool:
    """Whether MLflow answers and refuses the call for good."""
    return getattr(error, "error_code", "") in ("INVALID_PARAMETER_VALUE", "BAD_REQUEST", "RESOURCE_ALREADY_EXISTS")


def redacted(error: Exception) -> str:
    """The first line of an error, with its class unless it is a UserError, and without the secrets in it."""
    line = (str(error).strip().splitlines() or [""])[0]
    line = line if isinstance(error, UserError) else f"{type(error).__name__}: {line}"
    return redact(line)[:300]
