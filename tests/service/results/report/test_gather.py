"""What a report reads: the plan from MLflow, else from the journal; runs that this code cannot read are left out and said."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest

from service.ledger.manifest import Manifest
from service.results.report.gather import Gathered, cost, gather, speed
from service.storage import paths
from service.tracking import plan_artifact
from service.tracking.runs import Tracking
from tests.service.results.report.conftest import scores, trial
from tests.service.results.report.study import ship, spool
from trainables.errors import UserError
from trainables.trial import Trial

pytestmark = pytest.mark.filterwarnings("ignore:.*noload.*:DeprecationWarning")  # MLflow's own use of a newer SQLAlchemy
OLD = trial("snip", 0.8, 0)  # of a sweep whose code told no plan


@pytest.fixture(scope="module")
def tracking(tmp_path_factory: pytest.TempPathFactory) -> Tracking:
    """`planned`: SNIP done with seed 0, ERK done with seed 7, SNIP 99 % never begun; `old`: without a plan in MLflow."""
    storage = tmp_path_factory.mktemp("runs") / "storage"
    storage.mkdir()
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        found = Tracking(storage)
    done = [trial("snip", 0.95, 0), trial("random_erk", 0.95, 7)]
    states = [(each, spool(storage, each, scores(50.0))) for each in done]
    ship(storage, "planned", [*states, (trial("snip", 0.99, 3, "winnow/walker2d/medium-v0"), "planned")], found)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("service.tracking.shipping.shipper.Shipper._ship_plan", lambda _: None)
        ship(storage, "old", [(OLD, spool(storage, OLD, scores(50.0)))], found)
    return found


def names(found: Gathered) -> set[tuple[str, str]]:
    return {(run.trial.name, run.state) for run in found.runs}


def test_without_the_journal_missing_cells_are_known_and_none_is_invented(tracking: Tracking, tmp_path: Path) -> None:
    found = gather(["planned"], tracking, tmp_path)
    assert names(found) == {
        ("bc/hopper-expert/snip@95/s0", "done"), ("bc/hopper-expert/random_erk@95/s7", "done"),
        ("bc/walker2d-medium/snip@99/s3", "missing"),
    }  # fmt: skip
    assert found.notes == []


def test_without_a_plan_the_journal_tells_also_where_the_sweeps_file_is_gone(tracking: Tracking, tmp_path: Path) -> None:
    manifest = Manifest(tmp_path, "old")  # there is no search_spaces/old.py
    manifest.plan([OLD, trial("snip", 0.8, 1)])
    manifest.close()
    found = gather(["old"], tracking, tmp_path)
    assert names(found) == {("bc/hopper-expert/snip@80/s0", "done"), ("bc/hopper-expert/snip@80/s1", "missing")}
    assert found.notes == []


@pytest.mark.parametrize("journal", ["absent", "damaged"])
def test_without_either_it_is_said(journal: str, tracking: Tracking, tmp_path: Path) -> None:
    if journal == "damaged":
        paths.manifest(tmp_path, "old").parent.mkdir(parents=True)
        paths.manifest(tmp_path, "old").write_bytes(b"no json\n{}\n")
    found = gather(["old"], tracking, tmp_path)
    assert names(found) == {("bc/hopper-expert/snip@80/s0", "done")}
    (note,) = found.notes
    assert note.startswith("old: MLflow holds no plan of it and its journal ")
    assert ("cannot be read" if journal == "damaged" else "is not here") in note


def test_a_run_that_cannot_be_read_is_left_out_and_said(tracking: Tracking, tmp_path: Path) -> None:
    client, parent = tracking._connected(), tracking.parent_run("odd")
    for key, params in (("a" * 16, {}), ("b" * 16, {"dataset": "x/y/z-v0", "algorithm": "bc", "pruner": "removed", "sparsity": "0.5"})):
        tags = {"winnow.trial_key": key, "winnow.kind": "trial", "mlflow.parentRunId": parent}
        run = client.create_run(tracking._experiment, tags=tags)
        for name, value in params.items():
            client.log_param(run.info.run_id, name, value)
    known = trial("snip", 0.95, 4)
    tags = {"winnow.trial_key": known.key, "winnow.kind": "trial", "mlflow.parentRunId": parent}
    client.create_run(tracking._experiment, tags=tags)  # killed ahead of its params, but planned
    with pytest.raises(UserError, match=r"no trial of odd has begun; .*3 runs left out") as refused:
        gather(["odd"], tracking, tmp_path)
    assert "no pruner 'removed'" in str(refused.value)
    tracking.log_bytes(parent, *plan_artifact.to_file([known]))
    found = gather(["odd"], tracking, tmp_path)
    assert names(found) == {(known.name, "not finished")}
    assert found.notes[0].startswith("2 runs left out: ")


def test_compute_is_that_of_the_weights_that_were_kept_meanwhile() -> None:
    """Two networks of 50 and 25 weights, 100 and 50 FLOPs a row, in minibatches of 32 and three passes."""
    masks = {"actor": {"density": 0.1, "flops": {"dense": 100}}, "critic": {"density": 0.2, "flops": {"dense": 50}}}
    changes = {"actor": {0: 1.0, 500: 0.5, 800: 0.1}, "critic": {0: 1.0, 500: 0.6, 800: 0.2}}
    small = {"hyper": {"batch_size": 32}}
    gradual = cost(trial("gmp", 0.9, 0).using(**small), masks, changes.__getitem__, [400, 500, 1000])
    actor, critic = (500 * 1.0 + 300 * 0.5 + 200 * 0.1) * 100, (500 * 1.0 + 300 * 0.6 + 200 * 0.2) * 50
    assert gradual == pytest.approx({400: 3 * 32 * 400 * 150, 500: 3 * 32 * 500 * 150, 1000: 3 * 32 * (actor + critic)})
    at_once = cost(trial("snip", 0.9, 0).using(**small), masks, changes.__getitem__, [1000])
    assert at_once == pytest.approx({1000: 3 * 32 * 1000 * (0.1 * 100 + 0.2 * 50)})
    assert math.isnan(cost(trial("snip", 0.9, 0), None, changes.__getitem__, [1000])[1000]), "without masks it is not known"
    unknown = cost(trial("gmp", 0.9, 0).using(**small), masks, lambda _: {}, [1000])
    assert math.isnan(unknown[1000]), "nor without the history of masks that change"


def test_a_speed_is_that_of_all_updates_together() -> None:
    """300 updates took six seconds, and 100 more at twice the speed one more."""
    assert speed({300: 50.0, 400: 100.0}, {300: 4.0, 400: 4.0}) == (pytest.approx(400 / 7), 4.0)
    assert all(math.isnan(number) for number in speed({}, {}))


def test_a_plan_comes_back_as_it_was(tmp_path: Path) -> None:
    trials = [Trial(dataset="a/b/c-v0", algorithm="iql", hyper={"hidden": (8, 8)}, fresh="smoke", seed=s) for s in range(3)]
    trials.append(Trial(dataset="a/b/c-v0", pruner="snip", sparsity=0.9, sparsity_of={"critic": 0.5}, control="shuffle"))
    assert plan_artifact.from_file(*plan_artifact.to_file(trials)) == ({each.key: each for each in trials}, [])
    many = [trials[0].using(seed=seed) for seed in range(2000)]
    name, content = plan_artifact.to_file(many)
    assert len(content) < 60_000
    assert list(plan_artifact.from_file(name, content)[0].values()) == many
    odd = json.dumps({"trials": {"k": {"dataset": "a/b/c-v0", "pruner": "removed", "sparsity": 0.5}}}).encode()
    assert plan_artifact.from_file("planned.json", odd)[1][0].startswith("k: no pruner 'removed'")


def test_the_plan_is_told_again_when_it_has_changed(tracking: Tracking) -> None:
    from service.ledger.ledger import Event
    from service.tracking.shipping.shipper import Shipper
    from tests.service.tracking.test_shipper import ledger_of

    first, second = trial("snip", 0.6, 0), trial("snip", 0.6, 1)
    ledger = ledger_of(first)
    shipper = Shipper(tracking._storage, "grown", ledger, tracking)
    shipper.ship()
    assert "grown" not in tracking.sweeps(), "nothing has begun"
    ledger.apply(Event(key=first.key, state="leased"))
    shipper.ship()
    parent = tracking.sweeps()["grown"]
    assert plan_artifact.read(tracking, parent) == ({first.key: first}, [])
    ledger.apply(Event(key=second.key, state="planned", detail={"trial": second.to_json()}))
    shipper.ship()
    assert plan_artifact.read(tracking, parent) == ({first.key: first, second.key: second}, [])
    tracking.log_bytes(parent, *plan_artifact.to_file(first.using(seed=seed) for seed in range(2000)))
    Shipper(tracking._storage, "grown", ledger, tracking).ship()
    assert len(plan_artifact.read(tracking, parent)[0]) == 2, "what was forgotten is in no plan any more"
