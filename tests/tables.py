"""MLflow's empty tables, which it makes in 400 steps and seconds: made once for a run of the tests and copied from then on."""

from __future__ import annotations

import fcntl
import functools
import os
import shutil
from pathlib import Path
from typing import Any

from service.storage import sharing
from service.tracking.sql import database

MAKE = database._new


def empty(folder: Path, client: Any) -> Path:
    """The database in `folder`, which the first of all processes that ask for it makes."""
    made = folder / "made.db"
    lock = os.open(folder, os.O_RDONLY)
    fcntl.flock(lock, fcntl.LOCK_EX)
    if not made.exists():
        MAKE(made, client).rename(made)
    os.close(lock)
    return made


def copied(folder: Path, file: Path, client: Any) -> Path:
    """In place of `database._new`."""
    temporary = file.with_name(f".{file.name}.{os.getpid()}.tmp")
    shutil.copyfile(empty(folder, client), temporary)
    sharing.open_to_group(temporary)
    return temporary


def read_migrations_once() -> None:
    """MLflow reads its 67 migrations for each database that it opens, to know the newest of them."""
    from mlflow.store.db import utils

    if not hasattr(utils._get_latest_schema_revision, "cache_info"):
        utils._get_latest_schema_revision = functools.cache(utils._get_latest_schema_revision)
