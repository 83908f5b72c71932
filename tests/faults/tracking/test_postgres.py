"""PostgreSQL under MLflow and under Optuna, killed and started again in the middle of a run."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from service.storage import paths

from ..conftest import Fresh, Record, arguments
from ..support.harness import wait_for
from ..support.invariants import Twin, check, mlflow_client, twin_of
from ..support.nursery import Nursery
from ..support.postgres import PROGRAMS, Postgres
from .test_search import NAME, search

pytestmark = [pytest.mark.slow_faults, pytest.mark.skipif(PROGRAMS is None, reason="PostgreSQL is not installed")]
AWAY = 10.0  # seconds between the kill and the new start


@pytest.fixture(scope="module")
def postgres() -> Iterator[Postgres]:
    pytest.importorskip("psycopg2")
    made = Postgres()
    with mlflow_client(made.database("empty")) as client:
        client.search_experiments()  # makes MLflow's tables
    made.kill()  # closes the client's connections: a database in use is no template
    made.start()
    yield made
    made.end()


def killed_when(server: Postgres, moment: Callable[[], object]) -> threading.Thread:
    """A thread that kills the server at a moment and starts it again."""

    def harm() -> None:
        wait_for(moment)
        server.kill()
        time.sleep(AWAY)
        server.start()

    thread = threading.Thread(target=harm)
    thread.start()
    return thread


def test_mlflow_in_postgres_killed_in_the_middle(nursery: Nursery, fresh: Fresh, twin: Twin, postgres: Postgres, record: Record) -> None:
    storage, address = fresh(), postgres.database("runs", like="empty")
    some = paths.shipped(storage, next(iter(twin.states)))
    thread = killed_when(postgres, some.exists)
    ended = nursery.run(*arguments(storage), faults=["no_table", "ships_every=0.2", "slow=500"], MLFLOW_TRACKING_URI=address)
    thread.join()
    assert ended.code == 0, ended.out
    assert check(storage, twin, address) == []
    verified = nursery.run("verify", "smoke", f"--storage={storage}", MLFLOW_TRACKING_URI=address)
    assert verified.code == 0, verified.out
    record("PostgreSQL under MLflow SIGKILL, started again 10 s later: the run goes on")


def test_artifacts_of_a_database_lie_in_the_storage(nursery: Nursery, fresh: Fresh, twin: Twin, postgres: Postgres, tmp_path: Path) -> None:
    """MLflow's client would put them into a folder `mlruns` of wherever the command runs."""
    storage, address = fresh(), postgres.database("artifacts", like="empty")
    assert nursery.run(*arguments(storage), faults=["no_table"], MLFLOW_TRACKING_URI=address).code == 0
    assert list(paths.mlflow_artifacts(storage).rglob("policy.safetensors"))
    assert check(storage, twin, address) == []


def test_studies_in_postgres_killed_in_the_middle(nursery: Nursery, fresh: Fresh, postgres: Postgres, record: Record) -> None:
    """The driver waits for them; the search makes the suggestions that it makes undisturbed."""
    calm = fresh()
    assert search(nursery, calm, database=postgres.database("calm")).code == 0
    searched, storage = twin_of(calm, NAME), fresh()
    thread = killed_when(postgres, lambda: any(spool.stat().st_size for spool in paths.trials(storage).glob("*/spool.jsonl")))
    ended = search(nursery, storage, "slow=50", database=postgres.database("studies"))
    thread.join()
    assert ended.code == 0, ended.out
    assert check(storage, searched) == []
    record("PostgreSQL under Optuna SIGKILL, started again 10 s later: the search goes on")
