"""Which runs count, where a storage has several of one trial."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

from service.ledger.manifest import Manifest
from service.results.report.gather import gather
from service.results.runs import runs_of
from service.tracking.reading import ANY, PARENT, RunRow
from tests.service.trained import ship, train
from trainables.trial import Trial

pytestmark = pytest.mark.filterwarnings("ignore:.*noload.*:DeprecationWarning")  # MLflow's own use of a newer SQLAlchemy


def row(score: float) -> RunRow:
    return RunRow("id", "FINISHED", {"eval/return": score}, {})


def test_copies_of_a_trial_are_one_seed() -> None:
    plain = [Trial(dataset="winnow/hopper/expert-v0", algorithm="bc", seed=seed) for seed in (0, 1, 2)]
    fresh = [replace(trial, fresh="study") for trial in plain]
    rows = {plain[0].key: row(1.0), fresh[0].key: row(2.0), plain[1].key: row(3.0)}
    found = runs_of([*plain, *fresh], rows)
    assert [(run.trial.seed, run.trial.fresh, run.outcome) for run in found if run.done] == [(1, "", 3.0), (0, "study", 2.0)]
    assert [run.trial.seed for run in found if not run.done] == [2], "the one that is in neither is missing once"
    again = replace(plain[0], fresh="another")
    (last,) = runs_of([plain[0], fresh[0], again], rows | {again.key: row(4.0)})
    assert (last.trial.fresh, last.outcome) == ("another", 4.0)


@pytest.mark.parametrize("client", [False, True])
def test_a_trial_that_another_sweep_began_is_the_sweeps_that_finished_it(
    client: bool, tmp_path: Path, hopper: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its run is below the other sweep's."""
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    storage = tmp_path / "storage"
    trial = Trial(dataset=hopper, algorithm="bc", updates=5, evaluations=1, episodes=1, hyper={"hidden": (16, 16)})
    begun = Manifest(storage, "quickstart")
    begun.plan([trial])
    begun.record("leased", {trial.key: {"size": 1}})
    begun.close()
    ship(storage, "quickstart")
    train(storage, "smoke", [trial])
    tracking = ship(storage, "smoke")
    if client:  # as a server is asked
        monkeypatch.setattr("service.tracking.connection.OneLineErrors.engine", lambda client: None)
    (run,) = gather(["smoke"], tracking, storage).runs
    assert run.done
    asked = partial(tracking._search, {"winnow.sweep.quickstart": ANY})
    assert (len(asked()), asked(without={PARENT: tracking.sweeps()["quickstart"]})) == (1, []), "what is below its run is read once"
