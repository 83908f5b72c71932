"""Where studies are kept: a file or a database, opened, and guarded against what may become of it."""

from __future__ import annotations

import contextlib
import os
import re
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, cast

import optuna
from optuna.exceptions import DuplicatedStudyError, UpdateFinishedTrialError
from optuna.storages import BaseStorage, JournalStorage, RDBStorage, get_storage
from optuna.storages.journal import JournalFileBackend

from service.terminal.waiting import waiting
from service.tracking.connection import redacted
from trainables.errors import UserError, one_line
from trainables.output import printable

PATIENCE = 120.0  # seconds that a database server may be away
TRY_EVERY = 1.0  # seconds
AWAY = r"connection|connect to|gone away|starting up|shutting down|recovery mode"  # in what drivers raise meanwhile
optuna.logging.set_verbosity(optuna.logging.ERROR)  # a failing database gives many lines of warnings; we report it in one


def open_file(file: Path) -> BaseStorage:
    """The studies in a file; removes the lock and the half line that a killed driver may have left, and sets a damaged file aside: the
    manifest has all that was in it. Only for the holder of the lease."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with contextlib.suppress(FileNotFoundError):
        os.unlink(f"{file}.lock")
    if file.exists() and not (content := file.read_bytes()).endswith(b"\n"):
        os.truncate(file, content.rfind(b"\n") + 1)
    try:
        return JournalStorage(JournalFileBackend(str(file)))
    except OSError:
        raise
    except Exception as error:  # whatever Optuna stumbles over while it reads
        aside = file.with_name(f"damaged-{file.name}")
        told = f"note: {file} is damaged ({one_line(error)}) and rebuilt from the manifest; the old one is {aside.name}"
        print(printable(told, lines=False), file=sys.stderr)
        file.replace(aside)
        return JournalStorage(JournalFileBackend(str(file)))


def open_database(url: str) -> BaseStorage:
    """The studies in a database. Raises UserError, which shows no password of the address, if it cannot be opened."""
    try:
        return RDBStorage(url, engine_kwargs={"pool_pre_ping": True})  # reconnects after a restart of the server
    except Exception as error:  # whatever SQLAlchemy and the database's driver raise
        raise UserError(f"the study storage cannot be opened ({redacted(error)})") from None


class Guarded:
    """Wraps Optuna's storage: a server that is away is waited for, and calls that fail raise UserError in one line, as a database may be
    lost or locked at any time."""

    def __init__(self, database: BaseStorage, where: str, again: str) -> None:
        self._database, self._where, self._again = get_storage(database), where, again

    def __getattr__(self, name: str) -> Any:
        attribute = getattr(self._database, name)
        return partial(self._call, attribute) if callable(attribute) else attribute

    def _call(self, method: Callable[..., Any], *arguments: Any, **named: Any) -> Any:
        try:
            return self._patiently(method, *arguments, **named)
        except DuplicatedStudyError:
            raise  # `load_if_exists` handles it
        except Exception as error:  # whatever SQLAlchemy, a database's driver, the journal and the disk raise
            remedy = f"`{self._again}` continues and rebuilds the study from the manifest if it is gone"
            raise UserError(f"{self._where} fails ({redacted(_first(error))}); nothing is lost: {remedy}") from error

    def _patiently(self, method: Callable[..., Any], *arguments: Any, **named: Any) -> Any:
        """The call, made again while the database's server is away. What is stored twice counts as a repeated suggestion."""
        try:
            return method(*arguments, **named)
        except Exception as error:
            if not re.search(AWAY, str(_first(error))):
                raise
        until = time.monotonic() + PATIENCE
        with waiting(f"{self._where} does not answer; waiting for it"):
            while True:
                time.sleep(TRY_EVERY)
                try:
                    return method(*arguments, **named)
                except UpdateFinishedTrialError:  # an earlier call came through, and its answer did not
                    return True
                except Exception as error:
                    if time.monotonic() > until or not re.search(AWAY, str(_first(error))):
                        raise


def _first(error: BaseException) -> Exception:
    """The first error of a chain of causes."""
    while isinstance(error.__cause__, Exception):
        error = error.__cause__
    return cast(Exception, error)
