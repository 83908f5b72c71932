"""The connection to MLflow: its client, imported late, and errors in one line."""

from __future__ import annotations

import contextlib
import logging
import os
import re
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from service.terminal.redaction import redact
from trainables.errors import UserError, first_line

DATABASE_TRIES = 3  # MLflow's ten take 100 seconds
RUNS, POINTS = 100, 25_000  # in one answer about many runs, at most: the server's limits
HISTORIES = "/ajax-api/2.0/mlflow/metrics/get-history-bulk"  # what MLflow's own page asks
PAGE, SMALLEST_PAGE = 1000, 40  # runs in one answer to a search
DAMAGED = r"file is not a database|disk image is malformed"  # what SQLite says
LATE = r"timed? ?out|timeout"
PASSING = r"connect|timed? ?out|timeout|locked|busy|max retries|service unavailable|error code (5\d\d|429)|5\d\d error|remote end"


class TrackingError(UserError):
    """MLflow does not answer or refuses a call; `why` is its error in one line."""

    def __init__(self, error: Exception) -> None:
        self.why, self.error_code = redacted(error), getattr(error, "error_code", "")
        again = (
            "; move that file away, and `winnow sync SWEEP` fills a new one from the trials' logs" if re.search(DAMAGED, self.why) else ""
        )
        super().__init__(f"MLflow does not answer as it should ({self.why}){again}")


class DeletedError(UserError):
    """Somebody has deleted a run or the experiment in MLflow; `restore` of Tracking brings it back."""


class OneLineErrors:
    """Wraps a client: calls that fail raise TrackingError."""

    def __init__(self, client: Any) -> None:
        self._client = client

    def store(self) -> Any:
        """What the client asks: a database, or a server."""
        return self._client._tracking_client.store

    def engine(self) -> Any:
        """MLflow's own connection to its database; None where the client asks a server."""
        return getattr(self.store(), "engine", None)

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
        from mlflow.store.db import utils

    utils.MAX_RETRY_COUNT = DATABASE_TRIES
    for name in ("mlflow", "alembic", "urllib3"):
        logging.getLogger(name).setLevel(logging.CRITICAL + 1)  # TrackingError says what is wrong, in one line
    return MlflowClient


def history(client: Any, run_ids: Sequence[str], name: str) -> list[tuple[str, tuple[str, float, int, int]]] | None:
    """(run, (metric, value, milliseconds, update)) of a metric, at most POINTS, of at most RUNS runs; None where this MLflow answers no
    such question. Its client does not ask it, its databases and its server answer it."""
    store = client.store()
    if hasattr(store, "get_metric_history_bulk"):
        with mlflow_errors():
            told = [each.to_dict() for each in store.get_metric_history_bulk(list(run_ids), name, POINTS)]
    elif hasattr(store, "get_host_creds"):
        from mlflow.utils.rest_utils import http_request

        question = {"run_id": list(run_ids), "metric_key": name, "max_results": POINTS}
        with mlflow_errors():
            answer = http_request(host_creds=store.get_host_creds(), endpoint=HISTORIES, method="GET", params=question)
            if answer.status_code == 404:  # another server that speaks MLflow's protocol
                return None
            answer.raise_for_status()
            told = answer.json()["metrics"]
    else:
        return None
    return [(each["run_id"], (name, float(each["value"]), int(each["timestamp"]), int(each["step"]))) for each in told]


def pages(ask: Callable[..., Any]) -> Iterator[Any]:
    """All that a search finds. A server that does not answer in time is asked for fewer at once: a busy one needs half a minute for a
    thousand runs."""
    size, token = PAGE, None
    while token != "":
        try:
            page = ask(max_results=size, page_token=token)
        except TrackingError as error:
            if size <= SMALLEST_PAGE or not re.search(LATE, str(error), re.IGNORECASE):
                raise
            size = max(SMALLEST_PAGE, size // 5)
            continue
        yield from page
        token = page.token or ""


def artifact_store(location: str, tracking: str) -> Any:
    """The artifacts at the address that a run names, by MLflow's own reader."""
    from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

    return get_artifact_repository(location, tracking_uri=tracking)


def folder_of(store: Any) -> Path | None:
    """The folder of this machine that such a reader reads; None for another."""
    from mlflow.store.artifact.local_artifact_repo import LocalArtifactRepository

    return Path(store.artifact_dir) if isinstance(store, LocalArtifactRepository) else None


def refused(error: Exception) -> bool:
    """Whether MLflow answers and refuses the call for good."""
    return getattr(error, "error_code", "") in ("INVALID_PARAMETER_VALUE", "BAD_REQUEST", "RESOURCE_ALREADY_EXISTS")


def forbidden(error: Exception) -> bool:
    """Whether MLflow knows who asks and does not let them do this."""
    return getattr(error, "error_code", "") == "PERMISSION_DENIED" or "403 Client Error" in str(error)


def passes(error: Exception) -> bool:
    """Whether an error may go away by itself: MLflow or its database is down, busy or slow."""
    return bool(re.search(PASSING, str(error), re.IGNORECASE)) or getattr(error, "error_code", "") == "TEMPORARILY_UNAVAILABLE"


def redacted(error: Exception) -> str:
    """The first line of an error, with its class unless it is a UserError, and without the secrets in it."""
    return redact(first_line(error, named=not isinstance(error, UserError)))[:300]
