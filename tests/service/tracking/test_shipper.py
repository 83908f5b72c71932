"""Spools to a real MLflow on sqlite: what is committed arrives once, whatever is repeated or missing."""

from __future__ import annotations

import itertools
import json
import math
import threading
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from service.ledger.ledger import Event, Ledger
from service.ledger.others import settle
from service.spool import lines as spool
from service.spool.writer import StackSpool
from service.storage import paths
from service.tracking import cursor as cursors
from service.tracking import verify
from service.tracking.runs import Tracking, finite
from service.tracking.shipping import thread as shipper_thread
from service.tracking.shipping.shipper import PartlyShippedError, Shipper
from service.tracking.shipping.thread import ShipperThread
from service.tracking.sql import many
from trainables.errors import SupersededError, UserError
from trainables.reports import Checkpointed, Evaluated, Finished, Pruned, Trained
from trainables.trial import Stack, Trial

DATASET = "test/hopper/random-v0"
ORIGIN = {DATASET: {"dataset_hash": "ab" * 32, "dataset_score": "1.50", "reference": "made up", "revision": "abc123"}}
SEEDS = itertools.count()
pytestmark = pytest.mark.filterwarnings("ignore:.*noload.*:DeprecationWarning")  # MLflow's own use of a newer SQLAlchemy


@pytest.fixture(scope="module")
def tracking(tmp_path_factory: pytest.TempPathFactory) -> Tracking:
    """One MLflow for all tests: making its database takes seconds. Each test has trials of its own."""
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        found = Tracking(tmp_path_factory.mktemp("mlflow") / "storage")
    found._storage.mkdir()
    return found


@pytest.fixture
def trial() -> Trial:
    return Trial(dataset=DATASET, algorithm="bc", pruner="snip", sparsity=0.8, seed=next(SEEDS), updates=40, evaluations=2)


def write(storage: Path, trial: Trial, last: int = 40, every: int = 10) -> None:
    """Spool a run up to update `last`, with checkpoints at 0, 20 and 40."""
    listener = StackSpool(Stack((trial,)), storage, ORIGIN, 20)
    listener(Pruned(0, [{"mask/density/actor": 0.2}], [{}], [["actor: a hidden layer has 3 live units left"]]))
    listener(Checkpointed(0))
    for update in range(every, last + 1, every):
        listener(Trained(update, [{"train/actor_loss": 1 / update}], 50.0))
        if update % 20 == 0:
            listener(Evaluated(update, [{"returns": [1.0, 3.0], "scores": [10.0, 30.0]}]))
            listener(Checkpointed(update))
    if last == 40:
        listener(Finished(40, 1.0, "dense"))
    listener.close()


def ledger_of(trial: Trial, *states: str, **detail: str) -> Ledger:
    ledger = Ledger()
    ledger.apply(Event(key=trial.key, state="planned", detail={"trial": trial.to_json()}))
    for state in states:
        ledger.apply(Event(key=trial.key, state=state, detail=detail))
    return ledger


def ship(storage: Path, trial: Trial, tracking: Tracking, *states: str, **detail: str) -> int:
    return Shipper(storage, "smoke", ledger_of(trial, *states, **detail), tracking).ship()


def shipped(tracking: Tracking, trial: Trial) -> set[tuple[str, float, int, int]]:
    """All points that MLflow holds of the trial; asserts that there is one run and no point twice."""
    client = tracking._connected()
    (run,) = runs(tracking, trial)
    found = [
        (name, point.value, point.timestamp, point.step)
        for name in run.data.metrics
        for point in client.get_metric_history(run.info.run_id, name)
    ]
    assert len({(name, step) for name, _, _, step in found}) == len(found)
    return set(found)


def spooled(storage: Path, trial: Trial) -> set[tuple[str, float, int, int]]:
    lines = spool.committed(spool.read(paths.spool(storage, trial.key)))
    return {(name, value, p.line["time"], p.update) for p in lines for name, value in p.line.get("metrics", {}).items()}


def runs(tracking: Tracking, trial: Trial) -> list[Any]:
    return tracking._search({"winnow.trial_key": trial.key})


def forget(tracking: Tracking, run_id: str) -> None:
    """Remove a run for good."""
    from sqlalchemy import text

    inputs = f"SELECT input_uuid FROM inputs WHERE destination_id = '{run_id}'"
    with tracking._connected().engine().begin() as connection:
        for table in ("tags", "params", "metrics", "latest_metrics"):
            connection.execute(text(f"DELETE FROM {table} WHERE run_uuid = '{run_id}'"))
        connection.execute(text(f"DELETE FROM input_tags WHERE input_uuid IN ({inputs})"))
        connection.execute(text(f"DELETE FROM inputs WHERE destination_id = '{run_id}'"))
        connection.execute(text(f"DELETE FROM runs WHERE run_uuid = '{run_id}'"))
    tracking.forget()


def test_mlflow_holds_exactly_what_is_committed(tmp_path: Path, trial: Trial, tracking: Tracking) -> None:
    write(tmp_path, trial, last=30)
    ship(tmp_path, trial, tracking, "leased")
    assert shipped(tracking, trial) == spooled(tmp_path, trial)
    assert max(step for *_, step in shipped(tracking, trial)) == 20
    assert runs(tracking, trial)[0].info.status == "RUNNING"


def test_a_pass_ships_only_what_is_new(tmp_path: Path, trial: Trial, tracking: Tracking) -> None:
    write(tmp_path, trial, last=30)
    first = ship(tmp_path, trial, tracking, "leased")
    assert ship(tmp_path, trial, tracking, "leased") == 0
    listener = StackSpool(Stack((trial,)), tmp_path, ORIGIN, 20)  # resumed from the checkpoint at 20
    for report in (Trained(30, [{"train/actor_loss": 0.5}], 50.0), Trained(40, [{"train/actor_loss": 0.4}], 50.0), Checkpointed(40)):
        listener(report)
    listener.close()
    assert first + ship(tmp_path, trial, tracking, "leased") == len(spooled(tmp_path, trial))
    assert shipped(tracking, trial) == spooled(tmp_path, trial)


@pytest.mark.parametrize("lost", ["cursor", "cursor before the last batch"])
def test_shipping_again_changes_nothing(lost: str, tmp_path: Path, trial: Trial, tracking: Tracking) -> None:
    write(tmp_path, trial, last=20)
    ship(tmp_path, trial, tracking, "leased")
    cursor = paths.shipped(tmp_path, trial.key)
    old = cursor.read_bytes()
    write(tmp_path, trial)
    ship(tmp_path, trial, tracking, "leased", "done")
    before = shipped(tracking, trial)
    if lost == "cursor":
        cursor.unlink()
    else:
        cursor.write_bytes(old)
    assert ship(tmp_path, trial, tracking, "leased", "done") > 0
    assert shipped(tracking, trial) == before == spooled(tmp_path, trial)


def test_the_spool_of_a_trial_that_has_ended_is_read_no_more(tmp_path: Path, trial: Trial, tracking: Tracking) -> None:
    """It costs as much as that of one in training, and there may be ten thousand of them."""
    write(tmp_path, trial)
    shipper = Shipper(tmp_path, "smoke", ledger_of(trial, "leased", "done"), tracking)
    assert shipper.ship() > 0
    with paths.spool(tmp_path, trial.key).open("ab") as file:
        file.write(b"no line\n")
    assert shipper.ship() == 0
    with pytest.raises(UserError, match="is damaged"):
        ship(tmp_path, trial, tracking, "leased", "done")


def test_a_damaged_spool_holds_back_neither_the_plan_nor_the_tables(tmp_path: Path, trial: Trial, tracking: Tracking) -> None:
    trials = [trial, replace(trial, seed=next(SEEDS))]
    ledger = Ledger()
    for each in trials:
        write(tmp_path, each)
        for state, detail in (("planned", {"trial": each.to_json()}), ("done", {})):
            ledger.apply(Event(key=each.key, state=state, detail=detail))
    file = paths.spool(tmp_path, trials[1].key)
    file.write_bytes(b"{" + file.read_bytes())
    with pytest.raises(PartlyShippedError, match="is damaged"):
        Shipper(tmp_path, "partly", ledger, tracking).ship()
    assert shipped(tracking, trials[0]) == spooled(tmp_path, trials[0])
    assert tracking.artifacts(tracking.parent_run("partly")) == {"planned.json.gz", "curves.json.gz"}


def test_a_trial_that_ends_the_same_way_again_between_two_passes_is_read_again(tmp_path: Path, trial: Trial, tracking: Tracking) -> None:
    ledger = ledger_of(trial, "leased", "failed")
    shipper = Shipper(tmp_path, "smoke", ledger, tracking)
    write(tmp_path, trial, last=20)
    assert shipper.ship() > 0
    write(tmp_path, trial)
    assert shipper.ship() == 0, "whatever comes after the end is another attempt's"
    for state in ("planned", "leased", "failed"):
        ledger.apply(Event(key=trial.key, state=state))
    assert shipper.ship() > 0
    assert shipped(tracking, trial) == spooled(tmp_path, trial)


def test_a_trial_that_ends_while_its_spool_is_read_is_read_once_more(
    tmp_path: Path, trial: Trial, tracking: Tracking, monkeypatch: pytest.MonkeyPatch
) -> None:
    ledger = ledger_of(trial, "leased")
    shipper = Shipper(tmp_path, "smoke", ledger, tracking)
    write(tmp_path, trial, last=20)
    shipper.ship()
    read = spool.read

    def read_too_early(path: Path, offset: int = 0) -> list[spool.Placed]:
        lines = read(path, offset)
        if ledger.state(trial.key) == "leased":
            ledger.apply(Event(key=trial.key, state="done"))
            write(tmp_path, trial)
        return lines

    monkeypatch.setattr(spool, "read", read_too_early)
    shipper.ship()
    assert shipped(tracking, trial) < spooled(tmp_path, trial)
    shipper.ship()
    assert shipped(tracking, trial) == spooled(tmp_path, trial)
    assert runs(tracking, trial)[0].info.status == "FINISHED"


def test_more_points_than_a_batch_takes(tmp_path: Path, tracking: Tracking) -> None:
    trial = Trial(dataset=DATASET, algorithm="bc", seed=next(SEEDS), updates=3000)
    listener = StackSpool(Stack((trial,)), tmp_path, ORIGIN, 3000)
    for update in range(1, 3001):
        listener(Trained(update, [{"train/actor_loss": 1 / update}], 50.0))
    listener(Checkpointed(3000))
    listener.close()
    assert ship(tmp_path, trial, tracking, "leased") == len(spooled(tmp_path, trial)) >= 6000
    run = runs(tracking, trial)[0]
    history = tracking._connected().get_metric_history(run.info.run_id, "train/actor_loss")
    assert sorted(point.step for point in history) == list(range(1, 3001))


def test_a_lost_answer_to_create_leaves_no_second_run(tmp_path: Path, trial: Trial, tracking: Tracking) -> None:
    client = tracking._connected()
    older, _ = (client.create_run(tracking._experiment, tags={"winnow.trial_key": trial.key, "winnow.kind": "trial"}) for _ in range(2))
    write(tmp_path, trial)
    ship(tmp_path, trial, tracking, "leased", "done")
    (run,) = runs(tracking, trial)
    assert run.info.run_id == older.info.run_id
    assert shipped(tracking, trial) == spooled(tmp_path, trial)
    assert run.data.params["pruner"] == "snip"


@pytest.mark.parametrize("cursor", ["kept", "lost"])
def test_a_run_that_somebody_deleted_is_left_alone_unless_asked(tmp_path: Path, trial: Trial, tracking: Tracking, cursor: str) -> None:
    write(tmp_path, trial)
    ship(tmp_path, trial, tracking, "leased", "done")
    deleted = runs(tracking, trial)[0].info.run_id
    tracking._connected().delete_run(deleted)
    if cursor == "lost":
        paths.shipped(tmp_path, trial.key).unlink()
    again = Tracking(tracking._storage)
    shipper = Shipper(tmp_path, "smoke", ledger_of(trial, "leased", "done"), again)
    assert shipper.ship() == 0
    assert list(shipper.deleted) == [trial.key]
    (line,) = shipper.left_alone()
    assert deleted in line
    assert "sync smoke --restore" in line
    assert runs(again, trial) == []
    shipper = Shipper(tmp_path, "smoke", ledger_of(trial, "leased", "done"), Tracking(tracking._storage, restore=True))
    shipper.ship()
    assert shipper.left_alone() == []
    assert runs(again, trial)[0].info.run_id == deleted
    assert shipped(again, trial) == spooled(tmp_path, trial)


def test_the_runs_status_and_reason_follow_the_manifest(tmp_path: Path, trial: Trial, tracking: Tracking) -> None:
    ship(tmp_path, trial, tracking, "leased", "failed", reason="out_of_memory", message="no room")
    run = runs(tracking, trial)[0]
    assert run.info.status == "FAILED"
    assert run.data.tags["winnow.reason"] == "out_of_memory"
    assert run.data.tags["winnow.message"] == "no room"
    ship(tmp_path, trial, tracking, "leased", "failed", "planned", "leased")
    assert runs(tracking, trial)[0].info.status == "RUNNING"
    ship(tmp_path, trial, tracking, "leased", "planned", reason="interrupted")
    assert runs(tracking, trial)[0].info.status == "KILLED"
    write(tmp_path, trial)
    ship(tmp_path, trial, tracking, "leased", "done")
    run = runs(tracking, trial)[0]
    assert run.info.status == "FINISHED"
    assert run.data.tags["winnow.reason"] == ""


def test_whoever_read_the_journal_before_a_trial_ended_does_not_take_its_end_back(tmp_path: Path, trial: Trial, tracking: Tracking) -> None:
    """`sync` beside a driver: the trial ends between its look at the journal and its turn. Without a driver's word it was begun anew."""
    write(tmp_path, trial)
    ship(tmp_path, trial, tracking, "leased", "done")
    old = ledger_of(trial, "leased")
    assert Shipper(tmp_path, "smoke", old, tracking, has_ended=lambda key: key == trial.key).ship() == 0
    assert runs(tracking, trial)[0].info.status == "FINISHED"
    Shipper(tmp_path, "smoke", old, tracking).ship()
    assert runs(tracking, trial)[0].info.status == "RUNNING"


def test_a_trial_that_never_began_has_no_run(tmp_path: Path, trial: Trial, tracking: Tracking) -> None:
    ship(tmp_path, trial, tracking)
    assert not runs(tracking, trial)


def test_a_dead_mlflow_is_waited_for_and_then_told(
    tmp_path: Path, trial: Trial, tracking: Tracking, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path, trial)
    with monkeypatch.context() as patch:
        patch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")  # nobody listens there
        patch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
        dead = Tracking(tmp_path)
        thread = ShipperThread(Shipper(tmp_path, "smoke", ledger_of(trial, "leased", "done"), dead))
        assert not thread.finish(30)
    assert thread.trouble
    assert not paths.shipped(tmp_path, trial.key).exists()
    thread = ShipperThread(Shipper(tmp_path, "smoke", ledger_of(trial, "leased", "done"), tracking))
    assert thread.finish(60), thread.trouble
    assert shipped(tracking, trial) == spooled(tmp_path, trial)


class Slow(Shipper):
    """Takes `seconds` for each of ten notes of how far it is; `stuck` for ever with the third."""

    def __init__(self, seconds: float, stuck: bool = False) -> None:
        self.stored, self._seconds, self._stuck, self._over = 0, seconds, stuck, threading.Event()

    def ship(self) -> int:
        while self.stored < 10 and not self._over.wait(60 if self._stuck and self.stored == 3 else self._seconds):
            self.stored += 1
        return self.stored


def test_nothing_is_shipped_before_it_is_wanted(monkeypatch: pytest.MonkeyPatch) -> None:
    """While Ray starts: comparing 10,000 trials with MLflow would make that take twice as long."""
    monkeypatch.setattr(shipper_thread, "PERIOD", 0.01)
    asked, passes = threading.Event(), threading.Event()
    eager = SimpleNamespace(ask=asked.set, ship=passes.set, stored=0)
    thread = ShipperThread(eager)
    thread.start()
    assert asked.wait(60)
    assert not passes.wait(0.3)
    thread.check(60)
    assert passes.wait(60)
    assert thread.finish(60)


def test_the_end_waits_as_long_as_mlflow_gets_on_and_no_longer() -> None:
    slow = Slow(0.5)
    assert ShipperThread(slow).finish(4.0, while_it_gets_on=True)
    assert slow.stored == 10
    for shipper, on in ((Slow(6.0), False), (Slow(0.2, stuck=True), True)):
        thread = ShipperThread(shipper)
        assert not thread.finish(1.5, while_it_gets_on=on)
        assert thread.trouble == "MLflow does not answer"
        assert shipper.stored < 10
        shipper._over.set()


def test_an_interrupted_sweep_does_not_seem_to_run(tmp_path: Path, trial: Trial, tracking: Tracking) -> None:
    """And does again once a driver goes on with it."""
    ledger, sweep = ledger_of(trial, "leased"), f"interrupted {trial.seed}"
    write(tmp_path, trial, last=20)
    for state in ("planned", "leased"):
        shipper = Shipper(tmp_path, sweep, ledger, tracking)
        shipper.ship()
        thread, closed = ShipperThread(shipper), state == "planned"
        (run,) = tracking.parents(sweep)
        assert run.info.status == ("RUNNING" if closed else "KILLED")
        ledger.apply(Event(key=trial.key, state=state))
        assert thread.finish(60.0, unfinished=closed), thread.trouble
        (run,) = tracking.parents(sweep)
        assert run.info.status == ("KILLED" if closed else "RUNNING")


def test_sqlite_is_told_how_large_its_tables_have_become(tmp_path: Path, tracking: Tracking) -> None:
    """MLflow's page, sorted by a metric, takes it seconds without; told of, a table is not taken for a small one."""
    from sqlalchemy import text

    def seen() -> int:
        with tracking._connected().engine().connect() as connection:
            rows = connection.execute(text("SELECT stat FROM sqlite_stat1 WHERE tbl = 'latest_metrics'")).scalars()
            return max(int(row.split()[0]) for row in rows)

    counts, ledger = [], Ledger()
    shipper = Shipper(tmp_path, "smoke", ledger, tracking)
    for more in (4, 5):
        for trial in (Trial(dataset=DATASET, algorithm="bc", seed=next(SEEDS), updates=40, evaluations=2) for _ in range(more)):
            write(tmp_path, trial)
            for state, detail in (("planned", {"trial": trial.to_json()}), ("leased", {}), ("done", {})):
                ledger.apply(Event(key=trial.key, state=state, detail=detail))
        shipper.ship()
        counts.append(seen())
        shipper.ship()
    assert counts[0] < counts[1]


def test_a_driver_that_has_lost_its_lease_tells_mlflow_nothing(tmp_path: Path, trial: Trial, tracking: Tracking) -> None:
    def superseded() -> None:
        raise SupersededError("another driver has taken over")

    write(tmp_path, trial)
    ledger = ledger_of(trial, "leased", "done")
    with pytest.raises(SupersededError, match="another driver has taken over"):
        Shipper(tmp_path, "smoke", ledger, tracking, superseded).ship()
    assert runs(tracking, trial) == []
    Shipper(tmp_path, "smoke", ledger, tracking).ship()
    assert shipped(tracking, trial) == spooled(tmp_path, trial)


def rows(tracking: Tracking, keys: list[str]) -> dict[str, list[str]]:
    """All that MLflow's tables hold of the runs of trials, but for ids and the times at which they were shipped."""
    from sqlalchemy import text

    names = {run.info.run_id: key for key in keys for run in tracking._search({"winnow.trial_key": key})}
    found: dict[str, list[str]] = {}
    asked = {table: f"SELECT * FROM {table}" for table in ("runs", "tags", "params", "metrics", "latest_metrics")}
    asked["inputs"] = (
        "SELECT inputs.*, input_tags.name, input_tags.value, datasets.name AS data, digest, dataset_source_type, dataset_source, "
        "dataset_schema, dataset_profile FROM inputs JOIN input_tags USING (input_uuid) JOIN datasets ON source_id = dataset_uuid"
    )
    left = {"start_time", "end_time", "artifact_uri", "input_uuid", "source_id"}
    with tracking._connected().engine().connect() as connection:
        for table, statement in asked.items():
            for row in connection.execute(text(statement)).mappings():
                about = {name: names.get(str(value), value) for name, value in row.items() if name not in left}
                if about.get("run_uuid", about.get("destination_id")) in keys:
                    found.setdefault(table, []).append(repr(about))
    return {table: sorted(each) for table, each in found.items()}


def test_runs_made_at_once_are_those_that_mlflow_would_make(tmp_path: Path, tracking: Tracking, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every row of every table, also of trials that failed or diverged, of one resumed on other data, and of nan and infinity."""
    trials = [Trial(dataset=DATASET, algorithm="bc", pruner="snip", sparsity=0.8, seed=next(SEEDS), updates=40) for _ in range(5)]
    ledger = Ledger()
    for trial, state in zip(trials, ("done", "failed", "diverged", "done", "done"), strict=True):
        write(tmp_path, trial, last=40 if state == "done" else 20)
        ledger.apply(Event(key=trial.key, state="planned", detail={"trial": trial.to_json()}))
        ledger.apply(Event(key=trial.key, state="leased"))
        ledger.apply(Event(key=trial.key, state=state, detail={} if state == "done" else {"reason": "error", "message": "no " * 3000}))
    attempt = {"kind": "attempt", "time": 5, "dataset_hash": "cd" * 32, "host": "there"}
    odd = {"train/a": float("nan"), "train/b": float("inf"), "train/c": -0.0, "train/d": 1e300}
    more = [attempt, {"kind": "trained", "update": 40, "time": 6, "metrics": odd}, {"kind": "checkpointed", "update": 40, "time": 7}]
    with paths.spool(tmp_path, trials[3].key).open("a") as file:
        file.write("".join(json.dumps(line) + "\n" for line in more))
    keys, made, whole = [trial.key for trial in trials], [], type(tracking).create_ended
    for at_once in (True, False):
        calls: list[int] = []

        def create(asked: Tracking, wanted: Any, at_once: bool = at_once, calls: list[int] = calls) -> dict[str, str]:
            calls.append(len(wanted))
            return whole(asked, wanted) if at_once else {}

        with monkeypatch.context() as patch:
            patch.setattr(type(tracking), "create_ended", create)
            shipper = Shipper(tmp_path, "smoke", ledger, tracking)
            shipped = shipper.ship()
            assert shipper.ship() == 0
        assert calls == [5]
        found = rows(tracking, keys)
        assert len(found["runs"]) == 5
        assert len(found["inputs"]) == 6
        ids = {key: runs(tracking, trial)[0].info.run_id for key, trial in zip(keys, trials, strict=True)}
        files = {key: sorted(tracking.artifacts(id)) for key, id in ids.items()}
        made.append((shipped, found, files, [cursors.read(tmp_path, key).held for key in keys]))
        for key, id in ids.items():
            paths.shipped(tmp_path, key).unlink()
            forget(tracking, id)
    assert made[0] == made[1]


def test_a_run_that_another_process_has_made_meanwhile_is_kept(tmp_path: Path, tracking: Tracking, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two processes ship one storage: a driver, and a `sync` by hand."""
    trials = [Trial(dataset=DATASET, algorithm="bc", seed=next(SEEDS), updates=40, evaluations=2) for _ in range(2)]
    ledger = Ledger()
    for trial in trials:
        write(tmp_path, trial)
        for state, detail in (("planned", {"trial": trial.to_json()}), ("leased", {}), ("done", {})):
            ledger.apply(Event(key=trial.key, state=state, detail=detail))
    insert, older = many.insert, [""]

    def late(engine: Any, experiment: str, made: Any) -> None:
        tags = {"winnow.trial_key": trials[0].key, "winnow.kind": "trial", "winnow.storage": tracking._filler()}
        older[0] = tracking._connected().create_run(experiment, tags=tags, start_time=1).info.run_id
        insert(engine, experiment, made)

    monkeypatch.setattr(many, "insert", late)
    Shipper(tmp_path, "smoke", ledger, tracking).ship()
    assert [run.info.run_id for run in runs(tracking, trials[0])] == older
    for trial in trials:
        assert shipped(tracking, trial) == spooled(tmp_path, trial)
        assert runs(tracking, trial)[0].info.status == "FINISHED"


def test_trials_that_end_during_a_pass_are_shipped_at_once_in_the_next(
    tmp_path: Path, tracking: Tracking, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where trials end faster than they can be shipped one by one, as short ones do, most of them end during a pass."""
    trials = [Trial(dataset=DATASET, algorithm="bc", seed=next(SEEDS), updates=40, evaluations=2) for _ in range(4)]
    first, *others = trials
    ledger, calls, whole = Ledger(), [], type(tracking).create_ended
    for trial in trials:
        for state, detail in (("planned", {"trial": trial.to_json()}), ("leased", {})):
            ledger.apply(Event(key=trial.key, state=state, detail=detail))
    write(tmp_path, first, last=20)

    def others_end() -> None:
        """While the first is shipped, since it was leased."""
        for trial in others:
            if ledger.state(trial.key) == "leased" and runs(tracking, first):
                write(tmp_path, trial)
                ledger.apply(Event(key=trial.key, state="done"))

    def create(asked: Tracking, wanted: Any) -> dict[str, str]:
        calls.append(sorted(wanted))
        return whole(asked, wanted)

    monkeypatch.setattr(type(tracking), "create_ended", create)
    shipper = Shipper(tmp_path, "smoke", ledger, tracking, others_end)
    while len(shipper._settled) < len(others):
        shipper.ship()
    assert calls == [sorted(trial.key for trial in others)]
    for trial in others:
        assert shipped(tracking, trial) == spooled(tmp_path, trial)


def test_runs_made_at_once_last_as_long_as_their_trials(tmp_path: Path, trial: Trial, tracking: Tracking) -> None:
    write(tmp_path, trial)
    file = paths.spool(tmp_path, trial.key)
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    file.write_text("".join(json.dumps(line | {"time": 1_000_000 + 500 * place}) + "\n" for place, line in enumerate(lines)))
    ship(tmp_path, trial, tracking, "leased", "done")
    (run,) = runs(tracking, trial)
    assert (run.info.start_time, tracking.run(run.info.run_id).info.end_time) == (1_000_000, 1_000_000 + 500 * (len(lines) - 1))


def test_numbers_are_given_to_mlflow_as_its_databases_hold_them() -> None:
    """Not a number is one; infinities, which some databases refuse, are left out, and zero has no sign."""
    numbers = {"a": math.nan, "b": math.inf, "c": -math.inf, "d": -0.0, "e": -1.5}
    found = {name: value for name, value, *_ in finite((name, value, 5, 1) for name, value in numbers.items())}
    assert repr(found) == repr({"a": math.nan, "d": 0.0, "e": -1.5})


def test_a_sweeps_run_is_opened_once_and_again_after_it_was_closed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each pass of a sweep that runs asks for it; `results` closes the run in between."""
    tracking, told = Tracking(tmp_path), list[tuple[str, str]]()
    client = SimpleNamespace(
        set_terminated=lambda run, status: told.append((run, status)), update_run=lambda run, status: told.append((run, status))
    )
    monkeypatch.setattr(tracking, "_connected", lambda: client)
    monkeypatch.setattr(tracking, "log", lambda run, points, tags: told.append((run, tags["winnow.state"])))
    opened, closed = [("sweep", "leased"), ("sweep", "RUNNING")], [("sweep", "done"), ("sweep", "FINISHED")]
    tracking.reopen("sweep")
    tracking.reopen("sweep")
    assert told == opened
    tracking.set_state("trial", "failed", {})
    tracking.reopen("sweep")
    assert told == [*opened, ("trial", "failed"), ("trial", "FAILED")], "a trial that ends does not close it"
    told.clear()
    tracking.set_state("sweep", "done", {})
    tracking.reopen("sweep")
    assert told == [*closed, *opened]


def test_shipping_waits_for_no_disk_of_its_own(tmp_path: Path, trial: Trial, tracking: Tracking, monkeypatch: pytest.MonkeyPatch) -> None:
    """How far it is may be lost with the machine: an empty cursor is one at the start, and what is shipped again changes nothing."""
    write(tmp_path, trial)
    flushed: list[int] = []
    with monkeypatch.context() as patch:
        patch.setattr("os.fsync", flushed.append)
        ship(tmp_path, trial, tracking, "leased", "done")
    assert flushed == []
    before = shipped(tracking, trial)
    paths.shipped(tmp_path, trial.key).write_bytes(b"")
    ship(tmp_path, trial, tracking, "leased", "done")
    assert shipped(tracking, trial) == before == spooled(tmp_path, trial)


@pytest.mark.parametrize("state", ["leased", "done", "failed"])
def test_a_sweep_that_has_only_planned_a_trial_does_not_say_how_it_stands(state: str, trial: Trial, tracking: Tracking) -> None:
    """Another sweep trains it; what both have shipped of it is right for both, whoever comes first."""
    storage = tracking._storage
    early = Shipper(storage, "early", ledger_of(trial), tracking)
    early.ship()
    write(storage, trial, last=40 if state == "done" else 20)
    states = ("leased",) if state == "leased" else ("leased", state)
    ship(storage, trial, tracking, *states)
    (before,) = runs(tracking, trial)
    twin = ledger_of(trial)
    early.ship()
    Shipper(storage, "twin", twin, tracking).ship()
    Shipper(storage, "twin", twin, tracking, again=True).ship()
    (after,) = runs(tracking, trial)
    assert (after.info.status, after.data.tags["winnow.state"]) == (before.info.status, state)
    assert verify.differences("twin", twin, storage) == []
    assert verify.differences("smoke", ledger_of(trial, *states), storage) == []


@pytest.mark.parametrize("before", [(), ("leased", "failed"), ("leased", "planned")])
def test_what_another_sweep_has_done_is_done_for_mlflow_too(before: tuple[str, ...], trial: Trial, tracking: Tracking) -> None:
    storage = tracking._storage
    write(storage, trial)
    ship(storage, trial, tracking, "leased", "done")
    twin = settle({"twin": ledger_of(trial, *before), "smoke": ledger_of(trial, "leased", "done")}, "twin")
    assert twin.entries[trial.key].reused
    Shipper(storage, "twin", twin, tracking).ship()
    (run,) = runs(tracking, trial)
    assert (run.info.status, run.data.tags["winnow.state"], run.data.tags["winnow.sweep.twin"]) == ("FINISHED", "done", "reused")
    assert verify.differences("twin", twin, storage) == []
    assert verify.differences("smoke", ledger_of(trial, "leased", "done"), storage) == []
