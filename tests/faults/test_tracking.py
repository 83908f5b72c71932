"""MLflow holds each point once, in one run per trial, whenever the shipper dies and whenever MLflow is away."""

from __future__ import annotations

from collections.abc import Iterable

import pytest

from service.storage import paths

from .conftest import QUICK, Fresh, Record, arguments
from .invariants import Twin, check
from .nursery import Nursery

NOWHERE = "http://127.0.0.1:9"  # the discard port, where nobody listens


@pytest.fixture(scope="module")
def calls(nursery: Nursery, fresh: Fresh) -> int:
    """How many calls to MLflow and notes of how far it is a sweep takes; a few more or less with the shipper's period."""
    most = nursery.run(*arguments(fresh()), faults=["no_table", "die_at_call=0"]).boundaries
    assert most > 20
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
        told = moved(nursery, fresh, twin, switch)
    else:
        told = [text for found in kill_at(range(4, calls, 3), nursery, fresh, twin, switch, until=says).values() for text in found]
    assert any(says in text for text in told), told


def test_points_that_no_checkpoint_covers_are_not_shipped(nursery: Nursery, fresh: Fresh, twin: Twin, record: Record) -> None:
    """Else those of the update that is computed again would be there twice, with two times."""
    assert lost_update(nursery, fresh, twin) == []
    record("kill between a point and its checkpoint, `sync` in between")


@pytest.mark.slow_faults
def test_without_the_commit_they_are_there_twice(nursery: Nursery, fresh: Fresh, twin: Twin) -> None:
    assert any("points that the spool has not" in text for text in lost_update(nursery, fresh, twin, "ship_uncommitted"))


def lost_update(nursery: Nursery, fresh: Fresh, twin: Twin, *switches: str) -> list[str]:
    storage = fresh()
    faults = ["no_table", *switches]
    assert nursery.run(*arguments(storage), faults=[*faults, "die_after=Trained@37"]).code == 137
    assert nursery.run("sync", "smoke", f"--storage={storage}", faults=faults).code == 0
    assert nursery.run(*arguments(storage), faults=faults).code == 0
    return check(storage, twin)


def test_a_dead_mlflow_stops_nothing_and_sync_ships_the_rest(nursery: Nursery, fresh: Fresh, twin: Twin, record: Record) -> None:
    storage = fresh()
    ended = nursery.run(*arguments(storage), faults=["patience=1"], MLFLOW_TRACKING_URI=NOWHERE)
    assert ended.code == 0
    assert check(storage, twin, tracking=None) == []
    assert "MLflow did not take everything" in ended.out
    assert f"`python -m service sync smoke --storage={storage}` ships the rest" in ended.out
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


def test_a_trial_that_cannot_be_shipped_does_not_hold_up_the_others(nursery: Nursery, fresh: Fresh, twin: Twin) -> None:
    storage = fresh()
    assert nursery.run(*arguments(storage), faults=QUICK).code == 0
    path = paths.spool(storage, next(iter(twin.states)))
    whole = path.read_bytes()
    path.write_bytes(whole.replace(b'"kind"', b'"kind', 1))
    ended = nursery.run("sync", "smoke", f"--storage={storage}")
    assert ended.code == 2
    assert f"error: {path} is damaged" in ended.out
    path.write_bytes(whole)
    wrong = [text for text in check(storage, twin) if not text.startswith("MLflow: has runs for")]
    assert [key for key in twin.states if any(key in text for text in wrong)] == []  # all of the other, nothing of this one
    assert nursery.run("sync", "smoke", f"--storage={storage}").code == 0
    assert check(storage, twin) == []
