"""MLflow holds each point once, in one run per trial, whenever the shipper dies and whenever MLflow is away."""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from service.storage import paths
from service.storage.identity import identity_of
from service.tracking.experiment import EXPERIMENT

from ..conftest import QUICK, Fresh, Record, arguments
from ..support.invariants import Twin, check, mlflow_client
from ..support.nursery import Ended, Nursery

NOWHERE = "http://127.0.0.1:9"  # the discard port, where nobody listens


@pytest.fixture(scope="module")
def calls(nursery: Nursery, fresh: Fresh) -> int:
    """How many calls to MLflow and notes of how far it is a sweep takes; a few more or less with the shipper's period."""
    most = nursery.run(*arguments(fresh()), faults=["no_table", "die_at_call=0"]).boundaries
    assert most > 15
    return most


def kill_at(
    numbers: Iterable[int], nursery: Nursery, fresh: Fresh, twin: Twin, *switches: str, until: str = "never"
) -> dict[int, list[str]]:
    """What is wrong after the shipper died ahead of each call and the sweep ran again; no more than what shows `until`."""
    problems = {}
    for number in numbers:
        storage = fresh()
        killed = nursery.run(*arguments(storage), faults=["no_table", *switches, f"die_at_call={number}"])
        assert killed.code in (137, 0), killed.out
        again = nursery.run(*arguments(storage), faults=["no_table", *switches])
        verified = nursery.run("verify", "smoke", f"--storage={storage}")
        found = check(storage, twin) + [ended.out[-500:] for ended in (again, verified) if ended.code]
        if found:
            problems[number] = found
        if any(until in text for text in found):
            break
    return problems


def test_the_shipper_killed_ahead_of_some_calls(nursery: Nursery, fresh: Fresh, twin: Twin, calls: int, record: Record) -> None:
    numbers = range(9, calls, 20)
    assert kill_at(numbers, nursery, fresh, twin) == {}
    record(f"shipper killed ahead of some of {calls} calls to MLflow and notes of how far it is", kills=len(numbers))


@pytest.mark.slow_faults
def test_the_shipper_killed_ahead_of_every_call(nursery: Nursery, fresh: Fresh, twin: Twin, calls: int, record: Record) -> None:
    """Between a batch and the note of it, too."""
    assert kill_at(range(1, calls + 1), nursery, fresh, twin) == {}
    record("shipper killed ahead of every call to MLflow and every note of how far it is", kills=calls)


@pytest.mark.slow_faults
@pytest.mark.parametrize(
    ("switch", "says"),
    [("no_source_time", "points that the spool has not"), ("no_search", "2 runs for"), ("no_cursor_reset", "lacks")],
)
def test_without_the_protection_it_shows(nursery: Nursery, fresh: Fresh, twin: Twin, calls: int, switch: str, says: str) -> None:
    if switch == "no_cursor_reset":
        told = moved(nursery, fresh, twin, switch, "cursor_believed")  # or the comparison would notice it
    else:
        told = [text for found in kill_at(range(4, calls, 3), nursery, fresh, twin, switch, until=says).values() for text in found]
    assert any(says in text for text in told), told


def test_points_that_no_checkpoint_covers_are_not_shipped(nursery: Nursery, fresh: Fresh, twin: Twin, record: Record) -> None:
    """Else those of the update that is computed again would be there twice, with two times."""
    assert lost_update(nursery, fresh, twin) == []
    record("kill between a point and its checkpoint, `sync` in between")


@pytest.mark.slow_faults
def test_without_the_commit_they_are_there_twice(nursery: Nursery, fresh: Fresh, twin: Twin) -> None:
    told = lost_update(nursery, fresh, twin, "ship_uncommitted")
    assert any("points that the spool has not" in text for text in told)


def lost_update(nursery: Nursery, fresh: Fresh, twin: Twin, *switches: str) -> list[str]:
    storage = fresh()
    faults = ["no_table", *switches]
    assert nursery.run(*arguments(storage), faults=[*faults, "die_after=Trained@37"]).code == 137
    assert nursery.run("sync", "smoke", f"--storage={storage}", faults=faults).code == 0
    ended = nursery.run(*arguments(storage), faults=faults)
    return check(storage, twin) + ([ended.out] if ended.code else [])


def test_a_dead_mlflow_stops_nothing_and_sync_ships_the_rest(nursery: Nursery, fresh: Fresh, twin: Twin, record: Record) -> None:
    storage = fresh()
    ended = nursery.run(*arguments(storage), faults=["patience=1"], MLFLOW_TRACKING_URI=NOWHERE)
    assert ended.code == 1, "done here, and not tracked"
    assert check(storage, twin, tracking=None) == []
    assert "MLflow did not take everything" in ended.out
    assert f"`winnow sync smoke --storage={storage}` ships the rest" in ended.out
    assert "Traceback" not in ended.out
    synced = nursery.run("sync", "smoke", f"--storage={storage}")
    assert synced.code == 0, synced.out
    assert check(storage, twin) == []
    assert "0 points shipped" in nursery.run("sync", "smoke", f"--storage={storage}").out
    record("no MLflow at all, then `sync`")


def test_another_mlflow_gets_all_of_it(nursery: Nursery, fresh: Fresh, twin: Twin, record: Record) -> None:
    assert moved(nursery, fresh, twin) == []
    record("another MLflow gets all of it")


def moved(nursery: Nursery, fresh: Fresh, twin: Twin, *switches: str) -> list[str]:
    storage, other = fresh(), fresh()
    assert nursery.run(*arguments(storage), faults=["no_table"]).code == 0
    address = f"sqlite:///{paths.mlflow_db(other)}"
    assert nursery.run("sync", "smoke", f"--storage={storage}", faults=switches, MLFLOW_TRACKING_URI=address).code == 0
    return check(storage, twin, address)


SENSELESS = {
    "torn": b'{"ki',
    "a list": b"[]",
    "no kind": b'{"update": 3}',
    "words for numbers": b'{"kind": "trained", "update": "x", "metrics": 5, "time": 0}',
    "a kind that is none": b'{"kind": {}, "update": 20}',
}


@pytest.mark.parametrize("line", SENSELESS)
def test_a_trial_that_cannot_be_shipped_does_not_hold_up_the_others(
    nursery: Nursery, fresh: Fresh, twin: Twin, record: Record, line: str
) -> None:
    storage = fresh()
    assert nursery.run(*arguments(storage), faults=QUICK).code == 0
    key, other = twin.states
    path = paths.spool(storage, key)
    whole = path.read_bytes()
    path.write_bytes(SENSELESS[line] + b"\n" + whole)
    ended = nursery.run("sync", "smoke", f"--storage={storage}")
    assert ended.code == 1, ended.out
    (left,) = [text for text in ended.out.splitlines() if "not shipped: " in text]
    assert key in left
    assert "Traceback" not in ended.out
    verified = nursery.run("verify", "smoke", f"--storage={storage}")
    assert verified.code == 1
    assert key in verified.out
    assert other not in verified.out
    path.write_bytes(whole)
    assert nursery.run("sync", "smoke", f"--storage={storage}").code == 0
    assert check(storage, twin) == []
    record(f"a senseless line in a spool ({line}): the other trials are shipped", kills="")


def runs_of(client: Any) -> list[Any]:
    return list(client.search_runs([client.get_experiment_by_name(EXPERIMENT).experiment_id], run_view_type=3))


def lose_database(storage: Path, empty: Path) -> None:
    shutil.copy(empty, paths.mlflow_db(storage))


def lose_runs(storage: Path, empty: Path) -> None:
    """As `mlflow gc` does."""
    with mlflow_client(f"sqlite:///{paths.mlflow_db(storage)}") as client:
        store = client._tracking_client.store
        for run in runs_of(client):
            if run.data.tags.get("winnow.kind") == "trial":
                store._hard_delete_run(run.info.run_id)


def lose_parent(storage: Path, empty: Path) -> None:
    with mlflow_client(f"sqlite:///{paths.mlflow_db(storage)}") as client:
        (parent,) = [run for run in runs_of(client) if run.data.tags["winnow.kind"] == "sweep"]
        client._tracking_client.store._hard_delete_run(parent.info.run_id)


def lose_artifacts(storage: Path, empty: Path) -> None:
    shutil.rmtree(paths.mlflow_artifacts(storage))


def older_database(storage: Path, empty: Path) -> None:
    shutil.copy(storage / "backup.db", paths.mlflow_db(storage))


LOSSES = {
    "another database": lose_database, "a backup of the database": older_database, "runs purged": lose_runs,
    "the sweep's run purged": lose_parent, "artifacts removed": lose_artifacts,
}  # fmt: skip


def lost(nursery: Nursery, fresh: Fresh, twin: Twin, loss: str, *switches: str) -> list[str]:
    """What is wrong after MLflow has lost something, once `sync` has run."""
    storage = fresh()
    assert nursery.run(*arguments(storage), faults=["no_table", "die_after=Trained@50"]).code == 137
    assert nursery.run("sync", "smoke", f"--storage={storage}").code == 0
    shutil.copy(paths.mlflow_db(storage), storage / "backup.db")
    assert nursery.run(*arguments(storage)).code == 0
    assert check(storage, twin) == []
    LOSSES[loss](storage, fresh() / "mlflow.db")
    synced = nursery.run("sync", "smoke", f"--storage={storage}", faults=switches)
    verified = nursery.run("verify", "smoke", f"--storage={storage}")
    reported = nursery.run("report", "smoke", f"--storage={storage}", f"--to={storage / 'report'}")
    found = [ended.out for ended in (synced, verified, reported) if ended.code or "missing" in ended.out]
    return check(storage, twin) + found


@pytest.mark.parametrize("loss", LOSSES)
def test_what_mlflow_has_lost_is_shipped_again(nursery: Nursery, fresh: Fresh, twin: Twin, record: Record, loss: str) -> None:
    assert lost(nursery, fresh, twin, loss) == []
    record(f"MLflow has lost what it held: {loss}, then `sync`", kills="")


@pytest.mark.slow_faults
@pytest.mark.parametrize("loss", LOSSES)
def test_without_the_comparison_it_stays_lost(nursery: Nursery, fresh: Fresh, twin: Twin, loss: str) -> None:
    assert lost(nursery, fresh, twin, loss, "cursor_believed") != []


def everything(nursery: Nursery, storage: Path) -> dict[str, Ended]:
    """What each command says of the sweep and of its MLflow."""
    commands = {name: [name, "smoke", f"--storage={storage}"] for name in ("sync", "verify", "report", "results")}
    return {name: nursery.run(*command) for name, command in commands.items()} | {"run": nursery.run(*arguments(storage))}


@pytest.mark.parametrize("what", ["trial", "sweep", "experiment"])
def test_what_somebody_deleted_is_named_and_left_alone_until_asked(
    nursery: Nursery, fresh: Fresh, twin: Twin, record: Record, what: str
) -> None:
    storage = fresh()
    assert nursery.run(*arguments(storage)).code == 0
    with mlflow_client(f"sqlite:///{paths.mlflow_db(storage)}") as client:
        if what == "experiment":
            client.delete_experiment(client.get_experiment_by_name(EXPERIMENT).experiment_id)
        else:
            client.delete_run(next(run.info.run_id for run in runs_of(client) if run.data.tags["winnow.kind"] == what))
        before = {run.info.run_id: run.info.lifecycle_stage for run in runs_of(client)}
        told = everything(nursery, storage)
        assert {run.info.run_id: run.info.lifecycle_stage for run in runs_of(client)} == before
    assert all("Traceback" not in ended.out for ended in told.values()), told
    silent = {"results"} if what != "experiment" else set()  # of a deleted run it says `missing`
    for command in told.keys() - silent:
        assert "deleted in MLflow" in told[command].out, (command, told[command].out)
        assert "--restore" in told[command].out, (command, told[command].out)
        assert told[command].code or (command, what) == ("report", "trial"), (command, told[command].out)
    assert nursery.run("sync", "smoke", f"--storage={storage}", "--restore").code == 0
    assert {command: ended.out for command, ended in everything(nursery, storage).items() if ended.code} == {}
    assert check(storage, twin) == []
    record(f"{what} deleted in MLflow: named, left alone, brought back by `sync --restore`", kills="")


def two_storages(nursery: Nursery, fresh: Fresh, *switches: str) -> list[str]:
    """What `verify` says of two storages whose sweeps one MLflow tracks; the first is read by a third that has not begun."""
    first, second, third, shared = fresh(), fresh(), fresh(), {"MLFLOW_TRACKING_URI": f"sqlite:///{fresh() / 'mlflow.db'}"}
    for storage in (first, second):
        assert nursery.run(*arguments(storage), faults=["no_table", *switches], **shared).code == 0
    told = [nursery.run("verify", "smoke", f"--storage={storage}", faults=switches, **shared) for storage in (first, second)]
    if not switches:
        for storage in (first, second):
            reported = nursery.run("report", "smoke", f"--storage={storage}", f"--to={storage / 'report'}", **shared)
            assert reported.code == 0, reported.out
            assert "missing" not in reported.out
            assert reported.out.count("smoke: 1 other storage fills a sweep of this name in this MLflow, whose runs are left out") == 1
        assert nursery.run(*arguments(third), faults=[*QUICK, "die_after=Trained@30"]).code == 137
        settings = [word for word in arguments(third) if word.startswith("--set")]
        read = nursery.run("results", "smoke", f"--storage={third}", *settings, **shared)
        assert read.code == 0, read.out
        assert "2 of 2 trials were trained into another storage; their scores are read from its runs" in read.out
        with mlflow_client(shared["MLFLOW_TRACKING_URI"]) as client:
            by_storage = Counter(run.data.tags["winnow.storage"] for run in runs_of(client))
        assert by_storage == {identity_of(storage): 3 for storage in (first, second)}
        shown = nursery.run("results", "smoke", f"--storage={first}", *settings, **shared)
        assert "smoke: 1 other storage fills a sweep of this name in this MLflow, whose runs are left out" in shown.out
        alone = nursery.run("results", "smoke", f"--storage={first}", *settings, MLFLOW_TRACKING_URI=f"sqlite:///{first / 'mlflow.db'}")
        assert "other storage" not in alone.out
    return [ended.out for ended in told if ended.code]


def test_two_storages_on_one_mlflow_have_runs_of_their_own(nursery: Nursery, fresh: Fresh, twin: Twin, record: Record) -> None:
    assert two_storages(nursery, fresh) == []
    record("two storages, one MLflow: each has its own runs, no point twice", kills="")


def test_without_that_points_are_there_twice(nursery: Nursery, fresh: Fresh) -> None:
    assert any("has too much" in text for text in two_storages(nursery, fresh, "every_run_is_mine"))


def test_runs_of_older_code_belong_to_the_storage_that_has_their_cursor(nursery: Nursery, fresh: Fresh, twin: Twin) -> None:
    first, second, shared = fresh(), fresh(), f"sqlite:///{fresh() / 'mlflow.db'}"
    assert nursery.run(*arguments(first), MLFLOW_TRACKING_URI=shared).code == 0
    with mlflow_client(shared) as client:
        for run in runs_of(client):
            client.delete_tag(run.info.run_id, "winnow.storage")
        for storage in (second, first):
            assert nursery.run(*arguments(storage), faults=["no_table"], MLFLOW_TRACKING_URI=shared).code == 0
            assert nursery.run("verify", "smoke", f"--storage={storage}", MLFLOW_TRACKING_URI=shared).code == 0
        assert Counter(run.data.tags["winnow.storage"] for run in runs_of(client)) == {identity_of(s): 3 for s in (first, second)}


def test_a_sweep_that_only_sync_has_shipped_ends(nursery: Nursery, fresh: Fresh, twin: Twin) -> None:
    storage = fresh()
    assert nursery.run(*arguments(storage), faults=[*QUICK, "die_after=Trained@50"]).code == 137
    states = []
    for faults in (None, QUICK):
        if faults:
            assert nursery.run(*arguments(storage), faults=faults).code == 0
        assert nursery.run("sync", "smoke", f"--storage={storage}").code == 0
        with mlflow_client(f"sqlite:///{paths.mlflow_db(storage)}") as client:
            states += [run.info.status for run in runs_of(client) if run.data.tags["winnow.kind"] == "sweep"]
    assert states == ["KILLED", "FINISHED"]


def test_a_database_that_is_damaged_is_moved_away_and_filled_anew(nursery: Nursery, fresh: Fresh) -> None:
    storage = fresh()
    assert nursery.run(*arguments(storage), faults=QUICK).code == 0
    paths.mlflow_db(storage).write_bytes(b"garbage" * 1000)
    ended = nursery.run("sync", "smoke", f"--storage={storage}")
    assert ended.code != 0
    assert "move that file away, and `winnow sync SWEEP` fills a new one" in ended.out
    paths.mlflow_db(storage).unlink()
    assert nursery.run("sync", "smoke", f"--storage={storage}").code == 0
    assert nursery.run("verify", "smoke", f"--storage={storage}").code == 0


@pytest.mark.parametrize(
    ("address", "said"),
    [
        (
            "file:///tmp/mlruns",
            "MLFLOW_TRACKING_URI 'file:///tmp/mlruns' is a folder, which MLflow no longer supports; set http://HOST:PORT",
        ),
        ("nonsense://host", "MLFLOW_TRACKING_URI 'nonsense://host' is not an address that MLflow knows; set http://HOST:PORT"),
        ("mysql+nothing://host/x", "check MLFLOW_TRACKING_URI with `winnow doctor`"),
        ("sqlite:////proc/no/mlflow.db", "check MLFLOW_TRACKING_URI with `winnow doctor`"),
    ],
)
def test_an_address_that_cannot_work_is_refused_before_training(
    nursery: Nursery, fresh: Fresh, record: Record, address: str, said: str
) -> None:
    storage = fresh()
    ended = nursery.run(*arguments(storage), faults=["patience=1"], MLFLOW_TRACKING_URI=address)
    assert ended.code == 2, ended.out
    (error,) = [line for line in ended.out.splitlines() if line.startswith("error: ")]
    assert said in error
    assert "Traceback" not in ended.out
    assert not paths.trials(storage).exists()
    record(f"MLFLOW_TRACKING_URI={address}: refused before training", kills="")
