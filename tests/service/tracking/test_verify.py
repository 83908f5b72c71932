"""`verify` asks MLflow about many runs at once: the same number of questions for few runs as for more, and not fewer differences."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from service.ledger.ledger import Ledger
from service.storage import paths
from service.tracking import connection, reading, verify
from service.tracking.runs import Tracking
from tests.service.results.report.conftest import scores, trial
from tests.service.results.report.study import ship, spool

pytestmark = pytest.mark.filterwarnings("ignore:.*noload.*:DeprecationWarning")  # MLflow's own use of a newer SQLAlchemy


@pytest.fixture
def tracking(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Tracking:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    (tmp_path / "storage").mkdir()
    return Tracking(tmp_path / "storage")


def shipped(storage: Path, sweep: str, seeds: range, tracking: Tracking) -> Ledger:
    return ship(storage, sweep, [(each, spool(storage, each, scores(50.0))) for each in (trial("snip", 0.9, s) for s in seeds)], tracking)


@contextmanager
def counted() -> Iterator[list[str]]:
    """The SQL statements that are made inside."""
    from sqlalchemy import event
    from sqlalchemy.engine import Engine

    made: list[str] = []

    def note(connection: object, cursor: object, statement: str, *more: object) -> None:
        made.append(statement)

    event.listen(Engine, "before_cursor_execute", note)
    try:
        yield made
    finally:
        event.remove(Engine, "before_cursor_execute", note)


def by_the_client(monkeypatch: pytest.MonkeyPatch) -> None:
    """From here on MLflow is asked as a server is: by its client."""
    monkeypatch.setattr("service.tracking.connection.OneLineErrors.engine", lambda client: None)


@pytest.mark.parametrize("client", [False, True])
def test_it_asks_no_more_for_twice_as_many_runs(client: bool, tracking: Tracking, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    storage = tmp_path / "storage"
    ledgers = {"few": shipped(storage, "few", range(2), tracking), "more": shipped(storage, "more", range(2, 6), tracking)}
    if client:
        by_the_client(monkeypatch)
    asked = {}
    for sweep, ledger in ledgers.items():
        with counted() as made:
            assert verify.differences(sweep, ledger, storage) == []
        asked[sweep] = len(made)
    assert asked["few"] == asked["more"] > 5
    assert asked["more"] < (200 if client else 80)


def test_both_ways_to_ask_find_the_same(tracking: Tracking, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A database is read in a few statements for many runs, a server by MLflow's client."""
    storage = tmp_path / "storage"
    ledger = shipped(storage, "study", range(4), tracking)
    rows = tracking.trial_rows(ledger.entries)
    lost, changed, deleted, _ = (rows[key].run_id for key in ledger.entries)
    client = tracking._connected()
    client.log_metric(changed, "eval/normalized_score", float("nan"), step=7)
    client.set_tag(changed, "winnow.state", "leased")
    client.set_tag(changed, "mlflow.parentRunId", "0" * 32)
    with contextlib.closing(sqlite3.connect(paths.mlflow_db(storage))) as database, database:
        database.execute("UPDATE params SET value = 'edac' WHERE run_uuid = ? AND key = 'algorithm'", (lost,))
    client.delete_run(deleted)
    (paths.mlflow_artifacts(storage) / lost / "artifacts" / "evaluations.json").unlink()
    found = verify.differences("study", ledger, storage)
    told = Tracking(storage)
    both = [(told.all_trials(), told.trial_rows(ledger.entries), told.sweeps(), told.deleted(told.sweeps()["study"]))]
    by_the_client(monkeypatch)
    assert verify.differences("study", ledger, storage) == found
    told = Tracking(storage)
    both.append((told.all_trials(), told.trial_rows(ledger.entries), told.sweeps(), told.deleted(told.sweeps()["study"])))
    assert repr(both[0]) == repr(both[1])
    assert len(found) >= 4
    for what in (
        "param algorithm is 'edac', not 'bc'",
        "the run above its run is gone",
        "evaluations.json is missing",
        "has too much: 1 points",
        "tag winnow.state is 'leased'",
        "was deleted in MLflow",
    ):
        assert any(what in line for line in found), what


def test_runs_that_are_made_meanwhile_double_no_other(tracking: Tracking, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A server counts its pages from the newest run."""
    storage = tmp_path / "storage"
    ledger = shipped(storage, "study", range(5), tracking)
    client, (experiment,) = tracking._connected(), {run.info.experiment_id for run in tracking._search({"winnow.kind": "trial"})}
    by_the_client(monkeypatch)
    monkeypatch.setattr(connection, "PAGE", 2)
    asked = 0

    def disturbed(ask: Callable[..., Any]) -> Iterator[Any]:
        def answer(**how: Any) -> Any:
            nonlocal asked
            page, asked = ask(**how), asked + 1
            client.create_run(experiment, tags={"winnow.kind": "trial", "winnow.trial_key": f"another {asked}"})
            return page

        return connection.pages(answer)

    monkeypatch.setattr(reading, "pages", disturbed)
    assert verify.differences("study", ledger, storage) == []
    assert asked > 3


def test_an_answer_that_is_cut_off_is_asked_for_in_parts(tracking: Tracking, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Three runs with four evaluations each, where an answer holds few points: the same points, also of one run alone."""
    storage = tmp_path / "storage"
    ledger = shipped(storage, "study", range(3), tracking)
    by_the_client(monkeypatch)
    assert verify.differences("study", ledger, storage) == []
    run = next(iter(tracking.trial_rows(ledger.entries).values()))
    tracking._connected().log_metric(run.run_id, "eval/normalized_score", 1.0, step=7)
    for most in (3, 6, 9, 25_000):
        monkeypatch.setattr("service.tracking.connection.POINTS", most)
        monkeypatch.setattr(verify, "POINTS", most)
        (line,) = verify.differences("study", ledger, storage)
        assert "MLflow has too much: 1 points: ('eval/normalized_score', 1.0" in line
