from __future__ import annotations

import fcntl
import os
import shutil
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from service.tracking.connection import client_class
from service.tracking.sql import database
from tests.warm import Warm

from .support.harness import Process
from .support.invariants import Twin, check, twin_of
from .support.nursery import Nursery

QUICK = ("no_table", "no_mlflow")  # switches for a run where only training and the manifest matter
EVERY = 20  # updates between two checkpoints
SETTINGS = {
    "datasets": "test/hopper/random-v0", "pruners": "snip", "sparsities": "0.8,0.9", "seeds": "0", "updates": "50",
    "evaluations": "1", "episodes": "1", "hyper.hidden": "(16, 16)", "hyper.batch_size": "32",
}  # fmt: skip


def arguments(storage: Path | str, every: int = EVERY, size: int = 2, **settings: str) -> list[str]:
    """`run smoke` on the small sweep, a stack of two, with some settings changed."""
    chosen = [f"--set={name}={value}" for name, value in (SETTINGS | settings).items()]
    return ["run", "smoke", f"--storage={storage}", "--device=cpu", f"--stack-size={size}", f"--checkpoint-every={every}", *chosen]


Record = Callable[..., None]
ROWS = pytest.StashKey[dict[str, list[str]]]()  # of the table, by test
HEAD = ["fault", "times", "survived", "updates done again at most", "wall time", "test"]


class Fresh:
    def __init__(self, folder: Path) -> None:
        self._folder, self._count = folder, 0

    def __call__(self) -> Path:
        self._count += 1
        storage = self._folder / str(self._count)
        storage.mkdir()
        shutil.copy(self._folder / "mlflow.db", storage)
        return storage


@pytest.fixture(scope="session")
def environment(hopper_folder: Path, table_cache: Path) -> dict[str, str]:
    """The environment of a command that finds the small dataset, and no MLflow and no Ray that is not its own."""
    found = os.environ | {"MINARI_DATASETS_PATH": str(hopper_folder), "WINNOW_CACHE": str(table_cache), "WINNOW_REVISION": "abc123"}
    for name in ("MLFLOW_TRACKING_URI", "RAY_ADDRESS", "FAULTS"):
        found.pop(name, None)
    return found


@pytest.fixture(scope="session")
def tables(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A database with MLflow's empty tables."""
    file = tmp_path_factory.mktemp("faults") / "mlflow.db"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # MLflow's use of a newer SQLAlchemy
        database._make(file, client_class())
    return file


@pytest.fixture(scope="session")
def nursery(environment: dict[str, str], warm: Warm) -> Nursery:
    return Nursery(environment, warm)


@pytest.fixture(scope="session")
def fresh(tables: Path) -> Fresh:
    """`fresh()`: a storage that holds nothing but MLflow's empty tables."""
    return Fresh(tables.parent)


@pytest.fixture
def started() -> Iterator[list[Process]]:
    """Processes that are ended with the test, last ones first."""
    processes: list[Process] = []
    yield processes
    for process in reversed(processes):
        process.end()


@pytest.fixture
def record(request: pytest.FixtureRequest) -> Record:
    """`record("worker SIGKILL", kills=24, redone=80)`: a row for the table of faults, with the test's wall time."""
    begun, test = time.monotonic(), request.node.nodeid.rpartition("/")[2].replace("::test_", ": ")
    rows = request.config.stash.setdefault(ROWS, {}).setdefault(test, [])

    def add(fault: str, *, kills: int | str = 1, redone: int | str = "") -> None:
        cells = (fault, kills, "yes", redone, f"{time.monotonic() - begun:.0f} s", test)
        rows.append("| " + " | ".join(map(str, cells)) + " |")

    return add


def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    """Renew the rows of the tests that ran in the table at $FAULT_TABLE; a test that failed has none, as it did not come to record one."""
    rows, place = session.config.stash.get(ROWS, {}), os.environ.get("FAULT_TABLE")
    if rows and place:
        path = Path(place)
        lock = os.open(path.parent, os.O_RDONLY)
        fcntl.flock(lock, fcntl.LOCK_EX)  # each of several processes has tests of its own
        before = path.read_text().splitlines()[2:] if path.exists() else []
        kept = [line for line in before if line.strip("| ").rpartition(" | ")[2] not in rows]
        table = sorted(kept + [row for own in rows.values() for row in own], key=lambda line: line.strip("| ").rpartition(" | ")[2])
        path.write_text("\n".join(["| " + " | ".join(HEAD) + " |", "|---" * len(HEAD) + "|", *table]) + "\n")
        os.close(lock)


def whole(nursery: Nursery, storage: Path, twin: Twin) -> list[str]:
    """Everything that is wrong once `sync` has brought MLflow up to date: for runs that had none, which are quicker."""
    synced = nursery.run("sync", "smoke", f"--storage={storage}", faults=["no_table"])
    return check(storage, twin) + ([synced.out[-500:]] if synced.code else [])


@pytest.fixture(scope="session")
def twin(nursery: Nursery, fresh: Fresh) -> Twin:
    """The small sweep, undisturbed."""
    storage = fresh()
    assert nursery.run(*arguments(storage), faults=["no_table"]).code == 0
    found = twin_of(storage)
    assert set(found.states.values()) == {"done"}
    assert check(storage, found) == []
    return found
