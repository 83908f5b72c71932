"""`verify` asks MLflow about many runs at once: the same number of questions for few runs as for more, and not fewer differences."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from service.ledger.ledger import Ledger
from service.tracking import verify
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


def counted(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """Counts what MLflow's database is asked from here on."""
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

    counts = Counter[str]()

    def counting(name: str) -> None:
        whole = getattr(SqlAlchemyStore, name)

        def call(*given: object, **named: object) -> object:
            counts[name] += 1
            return whole(*given, **named)

        monkeypatch.setattr(SqlAlchemyStore, name, call)

    for name in sorted(vars(SqlAlchemyStore)):
        if name.startswith(("get_", "search_", "list_", "_search_runs")) and callable(getattr(SqlAlchemyStore, name)):
            counting(name)
    return counts


def test_it_asks_no_more_for_twice_as_many_runs(tracking: Tracking, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    storage = tmp_path / "storage"
    ledgers = {"few": shipped(storage, "few", range(2), tracking), "more": shipped(storage, "more", range(2, 6), tracking)}
    counts, asked = counted(monkeypatch), {}
    for sweep, ledger in ledgers.items():
        counts.clear()
        assert verify.differences(sweep, ledger, storage) == []
        asked[sweep] = dict(counts)
    assert asked["few"] == asked["more"]
    assert asked["more"]["get_metric_history_bulk"] > 5
    assert "get_metric_history" not in asked["more"]
    assert asked["more"].get("get_run", 0) <= 3, "of the sweep, not of its trials"


def test_an_answer_that_is_cut_off_is_asked_for_in_parts(tracking: Tracking, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Three runs with four evaluations each, where an answer holds few points: the same points, also of one run alone."""
    storage = tmp_path / "storage"
    ledger = shipped(storage, "study", range(3), tracking)
    assert verify.differences("study", ledger, storage) == []
    run = next(iter(tracking.trial_rows(ledger.entries).values()))
    tracking._connected().log_metric(run.run_id, "eval/normalized_score", 1.0, step=7)
    for most in (3, 6, 9, 25_000):
        monkeypatch.setattr("service.tracking.connection.POINTS", most)
        monkeypatch.setattr(verify, "POINTS", most)
        (line,) = verify.differences("study", ledger, storage)
        assert "MLflow has too much: 1 points: ('eval/normalized_score', 1.0" in line
