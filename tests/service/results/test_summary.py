"""What a sweep's MLflow run says of the sweep: the report's own numbers, the same however they came there, and verified."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from service.ledger.ledger import Event, Ledger
from service.results import grid
from service.results.cells import tasks_of
from service.results.report.gather import gather
from service.results.standing import LIMIT, readable, standing_of
from service.results.summary import Summary, differences
from service.spool.writer import StackSpool
from service.tracking import verify
from service.tracking.reading import RunRow
from service.tracking.runs import Tracking
from service.tracking.shipping.shipper import Shipper
from tests.service.results.report.conftest import scores, trial
from tests.service.results.report.study import ORIGIN, spool
from trainables.reports import Checkpointed, Evaluated
from trainables.trial import Stack, Trial

pytestmark = pytest.mark.filterwarnings("ignore:.*noload.*:DeprecationWarning")  # MLflow's own use of a newer SQLAlchemy
ENDS = {("dense", 0.0): (80.0, 100.0), ("snip", 0.95): (79.0, 99.0), ("random_erk", 0.95): (40.0, float("nan")), ("snip", 0.99): (10.0,)}
OWN = [trial(*cell, seed) for cell, ends in ENDS.items() for seed in range(len(ends))]
WAITING = trial("snip", 0.99, 1)


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> str:
    """One for all tests, since making it takes seconds; each test has an experiment of its own."""
    return f"sqlite:///{tmp_path_factory.mktemp('mlflow')}/mlflow.db"


@pytest.fixture
def tracking(tmp_path: Path, database: str, monkeypatch: pytest.MonkeyPatch) -> Tracking:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", database)
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", tmp_path.name)
    (tmp_path / "storage").mkdir()
    return Tracking(tmp_path / "storage")


def planned(*trials: Trial, epoch: int = 1, into: Ledger | None = None, **by: str) -> Ledger:
    """The journal's first lines, of a run that was asked for `by` somebody."""
    ledger = Ledger() if into is None else into
    ledger.apply(Event(key="", state="opened", epoch=epoch, detail={"by": by} if by else {}))
    for each in trials:
        ledger.apply(Event(key=each.key, state="planned", epoch=epoch, detail={"trial": each.to_json()}))
    return ledger


def trained(storage: Path, each: Trial, ledger: Ledger) -> None:
    """Train a trial and record its end."""
    ledger.apply(Event(key=each.key, state="leased", epoch=ledger.epoch))
    state = spool(storage, each, scores(ENDS[each.pruner, each.sparsity][each.seed]))
    ledger.apply(Event(key=each.key, state=state, epoch=ledger.epoch, detail={"reason": "divergence"} if state == "diverged" else {}))


def shipper(storage: Path, ledger: Ledger, tracking: Tracking) -> Shipper:
    return Shipper(storage, "study", ledger, tracking, summary=Summary(ledger, tracking))


def parent(tracking: Tracking):
    return tracking.run(tracking.sweeps()["study"])


def found(ledger: Ledger, storage: Path) -> list[str]:
    return verify.differences("study", ledger, storage, differences)


def test_live_or_later_it_says_the_same_and_what_the_report_says(tmp_path: Path, tracking: Tracking) -> None:
    storage, ledger = tmp_path / "storage", planned(*OWN, WAITING)
    live, counts = shipper(storage, ledger, tracking), []
    for each in OWN:
        trained(storage, each, ledger)
        live.ship()
        counts.append(parent(tracking).data.metrics["trials/done"])
    assert counts == [1, 2, 3, 4, 5, 5, 6]
    run = parent(tracking)
    about = {name: number for name, number in run.data.metrics.items() if name.startswith("trials/")}
    assert {name.removeprefix("trials/"): number for name, number in about.items() if number} == {
        "total": 8, "planned": 1, "done": 6, "diverged": 1,
    }  # fmt: skip
    (task,) = tasks_of(gather(["study"], tracking, storage).runs)
    for cell in task.cells.values():
        name = f"bc hopper-expert/{readable(cell.runs[0].trial.cell)}"
        assert cell.mean is not None
        shown = [run.data.metrics.get(f"{what}/{name}") for what in ("mean", "low", "high", "seeds")]
        ends = [cell.mean.low, cell.mean.high] if cell.mean.seeds > 1 else [None, None]
        assert shown == [cell.mean.value, *ends, cell.mean.seeds]
    assert run.data.metrics["mean/bc hopper-expert/best"] == run.data.metrics["mean/bc hopper-expert/snip 95"] == 89.0
    assert run.data.tags["winnow.best"] == "bc hopper-expert: snip 95, 89.0 [-38.1, 216.1]"
    assert {name: value for name, value in run.data.params.items() if name.startswith("grid.")} == {
        "grid.dataset": "winnow/hopper/expert-v0", "grid.algorithm": "bc", "grid.pruner": "dense, snip, random_erk", "grid.seed": "0, 1",
        "grid.sparsity": "0, 0.95, 0.99", "grid.updates": "1000", "grid.evaluations": "4", "grid.final_episodes": "20",
    }  # fmt: skip
    assert found(ledger, storage) == []
    tracking._connected().delete_run(run.info.run_id)  # for good, as `mlflow gc` does
    tracking._connected()._client._tracking_client.store._hard_delete_run(run.info.run_id)
    later = Tracking(storage)
    shipper(storage, ledger, later).ship()
    again = parent(later)
    assert again.info.run_id != run.info.run_id
    ours = [({n: v for n, v in each.data.tags.items() if n.startswith(("winnow.grid.", "winnow.best"))}) for each in (run, again)]
    assert (again.data.metrics, again.data.params, ours[1]) == (run.data.metrics, run.data.params, ours[0])


def test_a_pass_without_news_logs_nothing_and_a_metric_has_few_points(tmp_path: Path, tracking: Tracking) -> None:
    storage, ledger = tmp_path / "storage", planned(*OWN)
    live = shipper(storage, ledger, tracking)
    for each in OWN:
        trained(storage, each, ledger)
        for _ in range(3):
            live.ship()
    shipper(storage, ledger, tracking).ship()
    client, run = tracking._connected(), parent(tracking)
    points = {name: client.get_metric_history(run.info.run_id, name) for name in run.data.metrics}
    assert [point.value for point in points["mean/bc hopper-expert/dense"]] == [80.0, 90.0]
    assert [point.value for point in points["trials/done"]] == [1, 2, 3, 4, 5, 6]
    assert len(points["low/bc hopper-expert/dense"]) == 1
    steps = [point.step for point in points["trials/done"]]
    assert steps == sorted(set(steps))


def test_verify_sees_a_summary_that_lies_and_sync_mends_it(tmp_path: Path, tracking: Tracking) -> None:
    storage, ledger = tmp_path / "storage", planned(*OWN)
    for each in OWN:
        trained(storage, each, ledger)
    Shipper(storage, "study", ledger, tracking).ship()  # as older code: without a summary
    assert any("param grid.seed is missing, not 0, 1" in line for line in found(ledger, storage))
    shipper(storage, ledger, tracking).ship()
    assert found(ledger, storage) == []
    client, run = tracking._connected(), parent(tracking)
    client.log_metric(run.info.run_id, "mean/bc hopper-expert/dense", 99.0, step=10**6)
    client.log_metric(run.info.run_id, "mean/bc hopper-expert/made up", 1.0)
    client.set_tag(run.info.run_id, "winnow.best", "mine")
    told = found(ledger, storage)
    assert len(told) == 3
    assert "sweep study: metric mean/bc hopper-expert/dense is 99.0, not 90.0" in told
    assert "sweep study: metric mean/bc hopper-expert/made up is 1.0, not nan" in told
    assert any(line.startswith("sweep study: tag winnow.best is mine, not bc hopper-expert") for line in told)
    shipper(storage, ledger, tracking).ship()
    assert len(found(ledger, storage)) == 1, "a point at a later step than ours stays the newest; the others are mended"


def test_a_mean_that_is_no_more_is_not_a_number(tmp_path: Path, tracking: Tracking) -> None:
    """Somebody deletes a run, and MLflow forgets no metric."""
    storage, ledger, deleted = tmp_path / "storage", planned(*OWN), trial("snip", 0.99, 0)
    for each in (OWN[0], deleted):
        trained(storage, each, ledger)
    shipper(storage, ledger, tracking).ship()
    assert parent(tracking).data.metrics["seeds/bc hopper-expert/snip 99"] == 1
    tracking._connected().delete_run(tracking.trial_rows([deleted.key])[deleted.key].run_id)
    shipper(storage, ledger, Tracking(storage)).ship()
    assert repr(parent(tracking).data.metrics["seeds/bc hopper-expert/snip 99"]) == "nan"
    assert not [line for line in found(ledger, storage) if "metric" in line]


def test_what_was_trained_on_other_data_stays_out_of_the_mean_while_trials_go_on(tmp_path: Path, tracking: Tracking) -> None:
    """A trial says its data when it begins, and not again in what is shipped later."""
    seeds = [trial("dense", 0.0, seed) for seed in range(3)]
    storage, ledger = tmp_path / "storage", planned(*seeds)
    live = shipper(storage, ledger, tracking)
    for each, end, version in zip(seeds, (40.0, 80.0, 50.0), ("ab", "cd", "ab"), strict=True):
        listener = StackSpool(Stack((each,)), storage, {each.dataset: ORIGIN | {"dataset_hash": 32 * version}}, each.updates)
        for update, score, state in ((500, 1.0, "leased"), (1000, end, "done")):
            listener(Evaluated(update, [{"returns": [score], "scores": [score]}]))
            listener(Checkpointed(update))
            ledger.apply(Event(key=each.key, state=state, epoch=1))
            live.ship()
        listener.close()
    metrics = parent(tracking).data.metrics
    assert (metrics["mean/bc hopper-expert/dense"], metrics["seeds/bc hopper-expert/dense"]) == (45.0, 2)


def test_it_is_told_at_once_also_while_trials_go_on(tmp_path: Path, tracking: Tracking) -> None:
    """And at once when they are done, however short a time ago it was told."""
    ledger, states = planned(*OWN), []
    summary, study = Summary(ledger, tracking), tracking.parent_run("study")
    for state, busy in (("leased", True), ("done", False)):
        summary.hold(OWN[0].key, RunRow("1", "FINISHED", {"eval/normalized_score": 1.5}, {"winnow.state": state}))
        summary.ship(study, busy=busy)
        states.append({name for name, number in parent(tracking).data.metrics.items() if name.startswith("trials/") and number == 1})
    assert states == [{"trials/running"}, {"trials/done"}]


def test_a_grid_that_grows_keeps_its_params_and_renews_its_tags(tmp_path: Path, tracking: Tracking) -> None:
    storage, ledger = tmp_path / "storage", planned(OWN[0])
    trained(storage, OWN[0], ledger)
    shipper(storage, ledger, tracking).ship()
    planned(*OWN[1:], epoch=2, into=ledger)
    trained(storage, OWN[1], ledger)
    shipper(storage, ledger, tracking).ship()
    run = parent(tracking)
    assert run.data.params["grid.pruner"] == "dense"
    assert run.data.tags["winnow.grid.pruner"] == "dense, snip, random_erk"
    assert found(ledger, storage) == []


def test_runs_are_of_who_asked_for_them_and_can_be_grouped(tmp_path: Path, tracking: Tracking) -> None:
    """Each trial's run is of who asked for it, the sweep's of who asked last; `sync` mends runs of older code."""
    storage, alice = tmp_path / "storage", {"user": "alice", "name": "winnow run study", "type": "LOCAL", "commit": "1f2e" * 10}
    ledger = planned(*OWN[:2], **alice)
    trained(storage, OWN[0], ledger)
    shipper(storage, ledger, tracking).ship()
    planned(epoch=2, into=ledger, **alice | {"user": "bob", "name": "winnow submit study", "type": "JOB"})
    trained(storage, OWN[1], ledger)
    shipper(storage, ledger, tracking).ship()
    rows = tracking.trial_rows(each.key for each in OWN[:2])
    first, second, sweep = (rows[OWN[0].key].tags, rows[OWN[1].key].tags, parent(tracking).data.tags)
    told = ("mlflow.user", "mlflow.source.name", "mlflow.source.type", "mlflow.source.git.commit")
    assert [first[name] for name in told] == list(alice.values())
    assert [second[name] for name in told] == [sweep[name] for name in told] == ["bob", "winnow submit study", "JOB", "1f2e" * 10]
    assert first["winnow.environment"] == "hopper"
    assert first["winnow.group"] == second["winnow.group"] == "bc/hopper-expert/dense, 1000 updates"
    assert found(ledger, storage) == []
    client = tracking._connected()
    client.delete_tag(rows[OWN[0].key].run_id, "winnow.group")
    client.set_tag(rows[OWN[0].key].run_id, "mlflow.user", "unknown")
    lines = found(ledger, storage)
    assert len(lines) == 2
    assert any("tag mlflow.user is 'unknown', not 'alice'" in line for line in lines)
    shipper(storage, ledger, tracking).ship()
    assert found(ledger, storage) == []


def test_an_axis_has_the_values_of_all_trials_and_which_copy_one_is_is_no_axis() -> None:
    plain = trial("snip", 0.95, 0)
    others = replace(plain, hyper={"learning_rate": 0.1}), replace(plain, fresh="study"), replace(plain, data="ab" * 8)
    found = grid.grid_of([plain, *others])
    assert found["grid.hyper.learning_rate"] == "default, 0.1"
    assert not {"grid.fresh", "grid.data"} & found.keys()
    assert grid.grid_of([]) == {}


def test_a_search_has_no_grid_from_the_start_but_what_it_has_suggested_so_far() -> None:
    """Its params could never change."""
    ledger = planned()
    for each in OWN[:3]:
        about = {"trial": each.to_json(), "study": "study", "params": {"pruner": each.pruner}, "keys": [each.key]}
        ledger.apply(Event(key=each.key, state="planned", epoch=1, detail=about))
    assert grid.params_of(ledger) == {}
    tags = grid.tags_of(ledger)
    assert (tags["winnow.grid.pruner"], tags[grid.SUGGESTIONS]) == ("dense, snip", "3")
    assert grid.SUGGESTIONS not in grid.tags_of(planned(*OWN)), "of a grid nothing is suggested"


def test_many_values_are_short() -> None:
    assert grid.shown([0, 1, 2, 3, 7, 9, 10]) == "0-3, 7, 9, 10"
    assert grid.shown([10, 0, 2, 1]) == "0-2, 10", "seeds may be planned in any order"
    assert grid.shown([True, False]) == "True, False"
    assert grid.shown([0.0, 0.5, 0.95]) == "0, 0.5, 0.95"
    names = [f"winnow/hopper/medium-{number}" for number in range(1000)], [f"{number:07}" for number in range(1000)]
    for values in (*names, [str((size, size)) for size in range(1000)]):
        many = grid.shown(values)
        known, _, end = many.rpartition(", ... ")
        assert end == "(1,000 values)"
        assert ", ".join(values).startswith(f"{known}, {values[0][:1]}"), "none is cut in two"
        assert grid.LENGTH - 30 < len(many) <= grid.LENGTH
    assert grid.shown(["x" * grid.LENGTH]) == "x" * grid.LENGTH
    assert len(grid.shown(["x" * 999])) <= grid.LENGTH


def test_a_name_has_only_what_mlflow_takes() -> None:
    from mlflow.utils.validation import _validate_metric_name

    odd = Trial(
        dataset="winnow/hopper/expert-v0", algorithm="td3_bc", pruner="snip", sparsity=0.95, sparsity_of={"critic": 0.5}, structure="units",
        calibration_batches=16, reward_scale=2.0, updates=50_000,
    )  # fmt: skip
    other = odd.using(updates=20_000, transitions=10_000)
    rows = {each.key: RunRow("1", "FINISHED", {"eval/normalized_score": 1.5}, {"winnow.state": "done"}) for each in (odd, other)}
    metrics = standing_of([odd, other], rows).metrics
    for name in metrics:
        _validate_metric_name(name)
    names = [name for name in metrics if name.startswith("mean/")]
    assert len(names) == 4, names
    assert any("50000 updates" in name and name.endswith("/snip 95 critic 50 units calibration_batches 16") for name in names), names


def test_every_state_is_counted_by_its_own_name() -> None:
    ends = {"leased": "RUNNING", "done": "FINISHED", "failed": "FAILED", "diverged": "FAILED", "stopped": "KILLED"}
    states = [state for number, state in enumerate(ends, 1) for _ in range(number)]  # one is running, two are done, and so on
    trials = [trial("snip", 0.95, seed) for seed in range(len(states) + 6)]
    rows = {
        each.key: RunRow(each.key, ends[state], {"eval/normalized_score": 1.0}, {"winnow.state": state, "winnow.stopped_at": "500"})
        for each, state in zip(trials, states, strict=False)
    }
    counted = {name: number for name, number in standing_of(trials, rows).metrics.items() if name.startswith("trials/")}
    assert counted == {
        "trials/total": 21, "trials/running": 1, "trials/done": 2, "trials/failed": 3, "trials/diverged": 4, "trials/stopped": 5,
        "trials/planned": 6,
    }  # fmt: skip


def test_the_best_is_the_highest_of_what_was_pruned_and_is_whole() -> None:
    """Neither dense, nor a control, nor a cell that lacks a seed."""
    snip = trial("snip", 0.95, 0)
    ends = [(trial("dense", 0.0, 0), 90.0), (trial("snip", 0.9, 0), 60.0), (snip, 70.0), (trial("random_erk", 0.95, 0), 50.0)]
    ends += [(snip.controls()["shuffle"], 75.0), (snip.controls()["small_dense"], 80.0), (trial("snip", 0.99, 0), 85.0)]
    done = {"winnow.state": "done"}
    rows = {each.key: RunRow(each.key, "FINISHED", {"eval/normalized_score": end}, done) for each, end in ends}
    found = standing_of([*(each for each, _ in ends), WAITING], rows)
    assert found.best == "bc hopper-expert: snip 95, 70.0 [one seed]"
    assert found.metrics["mean/bc hopper-expert/best"] == 70.0


def test_there_are_no_more_metrics_than_one_call_takes() -> None:
    trials = [trial("snip", round(0.5 + number / 2000, 4), seed) for number in range(400) for seed in (0, 1)]
    done = {"winnow.state": "done"}
    rows = {each.key: RunRow(each.key, "FINISHED", {"eval/normalized_score": float(each.seed)}, done) for each in trials}
    metrics = standing_of(trials, rows).metrics
    assert LIMIT - 4 < len(metrics) <= LIMIT
    assert metrics["trials/done"] == 800
    assert metrics["mean/bc hopper-expert/best"] == 0.5
