"""What a report needs is one artifact per sweep: read in as many requests whatever the number of trials, kept up, and verified."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest

from service.ledger.others import settle
from service.results.report.gather import gather
from service.spool.writer import StackSpool
from service.storage import paths
from service.tracking import curve_table
from service.tracking.runs import Tracking
from service.tracking.shipping.shipper import Shipper
from service.tracking.verify import differences
from tests.service.results.report.conftest import scores, trial
from tests.service.results.report.study import ORIGIN, ship, spool
from trainables.trial import Stack

pytestmark = pytest.mark.filterwarnings("ignore:.*noload.*:DeprecationWarning")  # MLflow's own use of a newer SQLAlchemy
CALLS = ("get_metric_history", "list_artifacts", "download_artifacts", "search_runs", "get_run")


@pytest.fixture
def tracking(tmp_path: Path, monkeypatch) -> Tracking:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    (tmp_path / "storage").mkdir()
    return Tracking(tmp_path / "storage")


def counted(monkeypatch) -> Counter[str]:
    """Counts the calls of MLflow's client from here on."""
    import mlflow

    counts = Counter[str]()

    def counting(name: str) -> None:
        whole = getattr(mlflow.MlflowClient, name)

        def call(*given: object, **named: object) -> object:
            counts[name] += 1
            return whole(*given, **named)

        monkeypatch.setattr(mlflow.MlflowClient, name, call)

    for name in CALLS:
        counting(name)
    return counts


def test_a_report_makes_as_many_requests_for_many_trials_as_for_one(tracking: Tracking, tmp_path: Path, monkeypatch) -> None:
    storage = tmp_path / "storage"
    for sweep, sparsity, seeds in (("one", 0.9, 1), ("many", 0.95, 6)):
        own = [trial("snip", sparsity, seed) for seed in range(seeds)]
        ship(storage, sweep, [(each, spool(storage, each, scores(50.0))) for each in own], tracking)
    counts = counted(monkeypatch)
    made = {}
    for sweep in ("one", "many"):
        counts.clear()
        assert all(run.done and len(run.points) == 4 and run.masks for run in gather([sweep], tracking, storage).runs)
        made[sweep] = dict(counts)
    assert made["one"] == made["many"]
    assert "get_metric_history" not in made["many"]


def test_it_says_what_the_runs_say(tracking: Tracking, tmp_path: Path, monkeypatch) -> None:
    """Masks that change during training, a stack of two, one that diverged: the same numbers by either way."""
    storage = tmp_path / "storage"
    own = [trial("snip", 0.95, 0), trial("gmp", 0.95, 1), trial("dense", 0.0, 2), trial("random_erk", 0.9, 3)]
    given = [scores(50.0), scores(40.0), scores(30.0), {250: [1.0], 500: [float("nan")]}]
    ship(storage, "study", [(each, spool(storage, each, curve)) for each, curve in zip(own, given, strict=True)], tracking)
    table = gather(["study"], tracking, storage).runs
    monkeypatch.setattr("service.tracking.curve_table.read", lambda *_: None)
    runs = gather(["study"], tracking, storage).runs
    assert [repr(run.points) for run in table] == [repr(run.points) for run in runs]
    assert [(run.speed, run.stack, run.alone, repr(run.outcome)) for run in table] == [
        (run.speed, run.stack, run.alone, repr(run.outcome)) for run in runs
    ]
    for one, other in zip(table, runs, strict=True):
        assert one.masks
        assert other.masks
        assert one.masks["actor"]["parameters"] == other.masks["actor"]["parameters"]


def test_masks_that_are_kept_in_mlflow_alone_are_read_there(tracking: Tracking, tmp_path: Path) -> None:
    """Another sweep has trained the trial and kept only its curves here."""
    storage, own = tmp_path / "storage", trial("snip", 0.95, 0)
    ledger = ship(storage, "first", [(own, spool(storage, own, scores(50.0)))], tracking)
    (before,) = gather(["first"], tracking, storage).runs
    paths.masks_json(storage, own.key).unlink()
    twin = settle({"first": ledger, "twin": ship(storage, "nothing", [(own, "planned")], tracking)}, "twin")
    Shipper(storage, "twin", twin, tracking).ship()
    (after,) = gather(["twin"], tracking, storage).runs
    assert after.masks
    assert repr(after.points) == repr(before.points)


def test_a_row_that_is_older_than_its_run_is_read_from_the_run(tracking: Tracking, tmp_path: Path) -> None:
    storage, growing = tmp_path / "storage", trial("snip", 0.95, 0)
    early = {update: episodes for update, episodes in scores(50.0).items() if update <= 500}
    ledger = ship(storage, "study", [(growing, spool(storage, growing, early))], tracking)
    shipper = Shipper(storage, "study", ledger, tracking)
    shipper.ship()
    assert not differences("study", ledger, storage)
    spool(storage, growing, scores(50.0))
    shipper.ship()  # within a minute, while the trial goes on
    (parent,) = tracking.sweeps().values()
    rows = curve_table.read(tracking, parent)
    assert rows
    assert len(rows[growing.key]["curves"]["eval/normalized_score"]) == 2, "written now and then"
    (run,) = gather(["study"], tracking, storage).runs
    assert [point.update for point in run.points] == [250, 500, 750, 1000]


def test_verify_sees_a_table_that_lies_and_sync_mends_it(tracking: Tracking, tmp_path: Path) -> None:
    storage, own = tmp_path / "storage", [trial("snip", 0.95, seed) for seed in (0, 1)]
    ledger = ship(storage, "study", [(each, spool(storage, each, scores(50.0))) for each in own], tracking)
    assert differences("study", ledger, storage) == []
    (parent,) = tracking.sweeps().values()
    rows = curve_table.read(tracking, parent)
    assert rows
    forged = json.loads(json.dumps(rows))
    forged[own[0].key]["curves"]["eval/normalized_score"][-1][1] = 99.0
    forged[own[0].key]["offset"] -= 1
    for content, told in (
        (curve_table.to_file(forged), [f"sweep study: artifact curves.json.gz has not what trial {own[0].key} wrote"]),
        (b"torn", ["sweep study: artifact curves.json.gz is missing or damaged"]),
    ):
        tracking.log_bytes(parent, curve_table.NAME, content)
        assert differences("study", ledger, storage) == told
        Shipper(storage, "study", ledger, tracking).ship()
        assert differences("study", ledger, storage) == []


def test_a_spool_that_makes_no_sense_is_named_once_and_hides_nothing_else(tracking: Tracking, tmp_path: Path) -> None:
    storage, own = tmp_path / "storage", [trial("snip", 0.9, seed) for seed in range(2)]
    ledger = ship(storage, "study", [(each, spool(storage, each, scores(50.0))) for each in own], tracking)
    assert differences("study", ledger, storage) == []
    file = paths.spool(storage, own[0].key)
    file.write_bytes(b'{"kind": "trained", "update": "x", "metrics": 5, "time": 0}\n' + file.read_bytes())
    (said,) = differences("study", ledger, storage)
    assert said.startswith(f"{own[0].key} {own[0].name}: cannot be compared (")


def test_of_a_trial_that_was_pruned_and_never_evaluated_there_are_masks(tracking: Tracking, tmp_path: Path) -> None:
    storage, begun = tmp_path / "storage", trial("snip", 0.95, 0)
    ledger = ship(storage, "study", [(begun, spool(storage, begun, {}))], tracking)
    (parent,) = tracking.sweeps().values()
    rows = curve_table.read(tracking, parent)
    assert rows
    assert rows[begun.key]["masks"]["actor"]["layers"]
    assert paths.masks_json(storage, begun.key).exists()
    assert differences("study", ledger, storage) == []


def test_of_a_sweep_in_which_nothing_was_committed_no_table_is_missing(tracking: Tracking, tmp_path: Path) -> None:
    storage, begun = tmp_path / "storage", trial("snip", 0.95, 0)
    StackSpool(Stack((begun,)), storage, {begun.dataset: ORIGIN}, begun.updates).close()
    ledger = ship(storage, "study", [(begun, "leased")], tracking)
    (parent,) = tracking.sweeps().values()
    assert curve_table.read(tracking, parent) is None
    assert differences("study", ledger, storage) == []
