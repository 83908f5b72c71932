"""MLflow's sqlite database, embedded or a user's: made whole or not at all, made again where MLflow left it half-made, in any folder."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest
from mlflow import MlflowClient

from service.storage import paths
from service.tracking.runs import Tracking
from service.tracking.sql import database
from trainables.errors import UserError

pytestmark = pytest.mark.filterwarnings("ignore:.*noload.*:DeprecationWarning", "ignore::ResourceWarning")
KILLED = """
import os, sys
from pathlib import Path
import sqlalchemy
def die(connection, cursor, text, *rest):
    if "INSERT INTO _alembic_tmp" in text:
        os._exit(9)
sqlalchemy.event.listen(sqlalchemy.Engine, "before_cursor_execute", die)
"""
OURS = KILLED + "from service.tracking.runs import Tracking; Tracking(Path(sys.argv[1])).parent_run('smoke')"
MLFLOW = KILLED + "from mlflow import MlflowClient; MlflowClient('sqlite:///' + sys.argv[1]).search_experiments()"


def killed(program: str, argument: Path, **environment: str) -> None:
    """Run a program that dies while it changes a table."""
    inherited = {name: value for name, value in os.environ.items() if name != "MLFLOW_TRACKING_URI"}
    done = subprocess.run(
        [sys.executable, "-c", program, str(argument)], env=inherited | environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 9, done.stderr


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A database with tables and no run; to make one takes seconds."""
    storage = tmp_path_factory.mktemp("made")
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        Tracking(storage)._opened()
    return paths.mlflow_db(storage)


@pytest.fixture
def half_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A database in the making of which MLflow itself was killed, and which it cannot open again."""
    file = tmp_path / "mlflow.db"
    killed(MLFLOW, file)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{file}")
    monkeypatch.setattr(database, "QUIET", 0.3)
    return file


@pytest.mark.parametrize("embedded", [True, False])
def test_a_driver_killed_while_it_makes_the_database_leaves_none(
    tmp_path: Path, made: Path, embedded: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = paths.mlflow_db(tmp_path) if embedded else tmp_path / "elsewhere" / "mine.db"
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    if not embedded:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{file}")
    killed(OURS, tmp_path, **({} if embedded else {"MLFLOW_TRACKING_URI": f"sqlite:///{file}"}))
    assert not file.exists()
    shutil.copy(made, file)  # what takes seconds here is tested below
    assert Tracking(tmp_path).parent_run("smoke")


@pytest.mark.usefixtures("own_tables")
def test_a_half_made_database_that_holds_nothing_is_made_again(half_made: Path, tmp_path: Path) -> None:
    assert Tracking(tmp_path).parent_run("smoke")
    assert {path.name for path in tmp_path.iterdir()} == {"mlflow.db", "identity"} | {path.name for path in tmp_path.glob("artifacts")}


def test_without_that_it_cannot_be_opened(half_made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(database, "HALF_MADE", "nothing is taken for half-made")
    with pytest.raises(UserError, match="duplicate column name"):
        Tracking(tmp_path).parent_run("smoke")


def test_a_half_made_database_that_holds_something_is_kept(half_made: Path, tmp_path: Path) -> None:
    with contextlib.closing(sqlite3.connect(half_made)) as opened:
        opened.execute("INSERT INTO experiments (name, lifecycle_stage) VALUES ('mine', 'active')")
        opened.commit()
        before = list(opened.iterdump())
    with pytest.raises(UserError, match="restore it from a backup, or move it away: `sync` then ships everything to a new one"):
        Tracking(tmp_path).parent_run("smoke")
    with contextlib.closing(sqlite3.connect(half_made)) as opened:
        assert [line for line in opened.iterdump() if "'mine'" in line] == [line for line in before if "'mine'" in line]


@pytest.mark.parametrize("name", ["a?b", "a%3Fb #c&d=e"])
def test_any_name_of_a_folder_will_do(tmp_path: Path, made: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also that artifacts lie in the storage, and that nothing is made outside."""
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.chdir(tmp_path)
    storage = tmp_path / name
    storage.mkdir()
    shutil.copy(made, storage)
    tracking = Tracking(storage)
    run = tracking.parent_run("smoke")
    tracking.log_bytes(run, "note.txt", b"kept")
    assert tracking.read_bytes(run, "note.txt") == b"kept"
    assert Tracking(storage).sweeps() == {"smoke": run}
    assert database.sqlite_file(tracking.uri) == paths.mlflow_db(storage)
    assert [path.name for path in tmp_path.iterdir()] == [name]
    assert {path.name for path in storage.iterdir()} == {"mlflow.db", "artifacts", "identity"}


@pytest.mark.parametrize(
    ("uri", "file"),
    [
        ("sqlite:////a/b.db", "/a/b.db"), ("sqlite:///b.db", "b.db"), ("sqlite:////a/b.db?timeout=5", "/a/b.db"),
        ("sqlite+pysqlite:///file:/a%3Fb/c.db?uri=true", "/a?b/c.db"), ("sqlite:///file:///a/c.db?uri=true", "/a/c.db"),
        ("sqlite:////a%3Fb/c.db", "/a%3Fb/c.db"), ("sqlite:///:memory:", None), ("sqlite://", None), ("http://host/b.db", None),
    ],
)  # fmt: skip
def test_the_file_of_an_address(uri: str, file: str | None) -> None:
    assert database.sqlite_file(uri) == (Path(file) if file else None)


def test_a_database_whose_writer_was_killed_in_a_transaction_is_opened_as_it_was_before(tmp_path: Path) -> None:
    """SQLite refuses to read it without permission to write: the transaction has to be rolled back first."""
    Tracking(tmp_path).parent_run("smoke")
    file = paths.mlflow_db(tmp_path)
    program = (
        "import os, sqlite3, sys; database = sqlite3.connect(sys.argv[1]); database.execute('PRAGMA cache_size = 1'); "
        "database.execute('CREATE TABLE filler (x)'); "
        "database.executemany('INSERT INTO filler VALUES (?)', [('y' * 4000,)] * 200); os._exit(0)"
    )
    subprocess.run([sys.executable, "-c", program, str(file)], check=True)
    assert file.with_name(f"{file.name}-journal").stat().st_size > 0
    again = Tracking(tmp_path)
    again.check()
    assert again.sweeps().keys() == {"smoke"}
    with contextlib.closing(sqlite3.connect(file)) as database:
        assert database.execute("SELECT count(*) FROM filler").fetchone() == (0,)


@pytest.mark.parametrize("code", [errno.EPERM, errno.EOPNOTSUPP, errno.EIO])
def test_a_file_system_without_hard_links_will_do_and_nothing_is_left(tmp_path: Path, code: int, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(source: Path, target: Path) -> None:
        raise OSError(code, os.strerror(code), str(source))

    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.setattr(os, "link", refuse)
    file = tmp_path / "mlflow.db"
    if code == errno.EIO:
        with pytest.raises(OSError, match=os.strerror(code)):
            database._make(file, MlflowClient)
    else:
        database._make(file, MlflowClient)
        assert database.has_tables(file)
    assert [path.name for path in tmp_path.iterdir()] == ["mlflow.db"] * (code != errno.EIO)
