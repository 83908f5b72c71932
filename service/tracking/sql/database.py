"""MLflow's database where it is an sqlite file, embedded or a user's: its address, and tables that a kill does not leave half-made.

MLflow makes its tables in some 400 steps of their own, and cannot continue from most of them. So a new database is made under a temporary
name. One that MLflow itself was killed in is made again if nobody has stored anything in it.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import sqlite3
import time
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote

from service.storage import sharing
from trainables.errors import UserError

QUIET = 5.0  # seconds without a change after which nobody is making the tables any more
HALF_MADE = r"table \S+ already exists|duplicate column name"  # what MLflow's migrations stumble over
LOCK_TIMEOUT, SOON = 20.0, 5.0  # seconds that a locked database is waited for; the same where it is only asked whether it is MLflow's
SEEN = 400  # rows of each index that `analyze` reads, which takes 20 ms


def address(file: Path) -> str:
    """The address of an sqlite file; in SQLAlchemy's plain form a `?` would begin the options."""
    return f"sqlite+pysqlite:///file:{quote(bytes(file))}?uri=true" if "?" in str(file) else f"sqlite:///{file}"


def is_database(uri: str) -> bool:
    """Whether MLflow's client opens a database at the address itself, without a server of MLflow."""
    return bool(re.match(r"(sqlite|postgresql|mysql|mssql)(\+\w+)?://", uri))


def sqlite_file(uri: str) -> Path | None:
    """The file of an sqlite address; None for other addresses and for a database in memory."""
    match = re.fullmatch(r"sqlite(?:\+\w+)?:///(file:)?([^?]+)(?:\?.*)?", uri)
    if not match or match[2] == ":memory:" or "mode=memory" in uri:
        return None
    return Path(unquote(re.sub("^//[^/]*", "", match[2])) if match[1] else match[2])


def connect(file: Path, mode: str, timeout: float = LOCK_TIMEOUT) -> sqlite3.Connection:
    """A connection to the file, which has to be there; `mode`: `ro` or `rw`."""
    return sqlite3.connect(f"file:{quote(bytes(file))}?mode={mode}", uri=True, timeout=timeout)


def has_tables(file: Path) -> bool:
    """Whether an sqlite file is MLflow's; True also if it cannot be read, as MLflow then reports why."""
    try:
        with contextlib.closing(connect(file, "ro", SOON)) as database:
            return bool(database.execute("SELECT 1 FROM sqlite_master WHERE name = 'experiments'").fetchall())
    except sqlite3.Error:
        return True


def vacuum(file: Path) -> None:
    """Give the room of what was deleted back to the disk, unless another process is using the database, or the disk is full."""
    with contextlib.suppress(sqlite3.Error), contextlib.closing(sqlite3.connect(file, timeout=1.0, isolation_level=None)) as opened:
        opened.execute("VACUUM")


def analyze(file: Path) -> None:
    """Let SQLite see how large the tables have become: without that, ten thousand runs sorted by a metric, as MLflow's page does, take it 8
    seconds instead of 0.1."""
    with contextlib.suppress(sqlite3.Error), contextlib.closing(sqlite3.connect(file, timeout=1.0, isolation_level=None)) as opened:
        opened.execute(f"PRAGMA analysis_limit = {SEEN}")
        opened.execute("ANALYZE")


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
    try:
        os.link(temporary, file)
    except FileExistsError:  # another process was faster
        pass
    except OSError as error:
        if error.errno not in (errno.EPERM, errno.EOPNOTSUPP):  # a file system without hard links
            raise
        if not file.exists():
            os.replace(temporary, file)
    finally:
        temporary.unlink(missing_ok=True)


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
