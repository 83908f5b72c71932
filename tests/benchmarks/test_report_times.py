"""The benchmark of reports: a sweep multiplied in MLflow's database is what a report reads like any other."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from benchmarks import report_times
from service.results.report.gather import gather
from service.tracking.runs import Tracking
from tests.service.results.report.conftest import scores, trial
from tests.service.results.report.study import ship, spool

pytestmark = pytest.mark.filterwarnings("ignore:.*noload.*:DeprecationWarning")  # MLflow's own use of a newer SQLAlchemy


def test_a_multiplied_sweep_is_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    storage = tmp_path / "storage"
    storage.mkdir()
    tracking = Tracking(storage)
    own = [trial("dense", 0.0, 0), trial("snip", 0.95, 0), trial("random_erk", 0.95, 0)]
    ship(storage, report_times.STUDY, [(each, spool(storage, each, scores(50.0))) for each in own], tracking)
    assert report_times.multiply(storage, 20) == 30  # fifteen cells; every third of four seeds
    found = gather([report_times.MANY], tracking, storage)
    assert found.notes == []
    cells = Counter((run.trial.pruner, run.trial.control) for run in found.runs)
    assert len(cells) == 15
    assert all(run.done and len(run.points) == 4 and run.masks for run in found.runs)
    assert len({run.last for run in found.runs}) > 10
    study = gather([report_times.STUDY], tracking, storage)
    assert len(study.runs) == 3, "what was there is as it was"
