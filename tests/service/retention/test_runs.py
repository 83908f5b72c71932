"""What is removed of a run: the folder of its artifacts and no other, and its rows as soon as the database is free."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest

from service.retention import runs
from service.tracking.connection import TrackingError


@pytest.mark.parametrize(
    ("uri", "folder"),
    [
        ("/mlruns/1/abc/artifacts", "/mlruns/1/abc"),
        ("/my%20runs/1/abc/artifacts", "/my%20runs/1/abc"),  # a path is what it says
        ("file:///my%20runs/1/abc/artifacts", "/my runs/1/abc"),  # an address is not
        ("/mlruns/1/abc", "/mlruns/1/abc"),
        ("/mlruns/1/other/artifacts", None),
        ("/mlruns/1/artifacts", None),
        ("/mlruns/1/abc/artifacts/models", None),
        ("/abc/data", None),
        ("s3://bucket/1/abc/artifacts", None),
        ("mlflow-artifacts:/1/abc/artifacts", None),
        ("", None),
    ],
)
def test_a_folder_that_may_hold_more_than_a_runs_artifacts_is_not_removed(uri: str, folder: str | None) -> None:
    run = SimpleNamespace(info=SimpleNamespace(artifact_uri=uri, run_id="abc"))
    assert runs.folder_of(run) == (Path(folder) if folder else None)


@pytest.mark.parametrize(
    ("why", "failures", "calls"),
    [("database is locked", runs.TRIES - 1, runs.TRIES), ("database is locked", runs.TRIES, -runs.TRIES), ("no such table", 1, -1)],
)
def test_a_database_that_is_busy_is_asked_again_a_while(why: str, failures: int, calls: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """`calls`: how many are made; below 0 the last one fails, too."""
    asked, waited = [], list[float]()
    monkeypatch.setattr(runs.time, "sleep", waited.append)

    def call() -> None:
        asked.append(why)
        if len(asked) <= failures:
            raise TrackingError(RuntimeError(why))

    if calls > 0:
        runs.Removal._patiently(None, call)  # type: ignore[arg-type]
    else:
        with pytest.raises(TrackingError, match=why):
            runs.Removal._patiently(None, call)  # type: ignore[arg-type]
    assert len(asked) == abs(calls)
    assert waited == [runs.PAUSE] * (abs(calls) - 1)
