"""Two sweeps that share trials, at once, on one storage: each trial is trained by one of them, and the other waits for it."""

from __future__ import annotations

import os
import signal
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from service.ledger import manifest

from ..conftest import QUICK, Fresh, Record, arguments
from ..support.harness import wait_for
from ..support.invariants import Twin, attempts, check, redone, twin_of
from ..support.nursery import Ended, Nursery

OTHER = "quickstart"
SETTINGS = {"updates": "300", "algorithms": "bc"}
SEEDS = {"smoke": "0,1,2", OTHER: "1,2,3"}


def given(storage: Path, name: str, seeds: str = "") -> list[str]:
    words = arguments(storage, 20, 1, **SETTINGS, seeds=seeds or SEEDS[name], sparsities="0.8")
    return ["run", name, *words[2:]]


@pytest.fixture(scope="module")
def twin(nursery: Nursery, fresh: Fresh) -> dict[str, Twin]:
    """Each sweep alone."""
    twins = {}
    for name in SEEDS:
        storage = fresh()
        assert nursery.run(*given(storage, name), faults=QUICK).code == 0
        twins[name] = twin_of(storage, name)
    return twins


def both(nursery: Nursery, storage: Path) -> list[Ended]:
    """Both at once, each in a process of its own."""
    faults = [*QUICK, "slow=3", f"work={storage / 'work'}"]
    with ThreadPoolExecutor(2) as threads:
        runs = [threads.submit(nursery.run, *given(storage, name), faults=faults) for name in SEEDS]
        return [run.result() for run in runs]


def trained_by(storage: Path) -> dict[str, list[int]]:
    """The processes that have trained each trial."""
    found: dict[str, list[int]] = {}
    for attempt in attempts(storage / "work"):
        for key in attempt.keys if attempt.first >= 0 else ():
            found.setdefault(key, []).append(attempt.pid)
    return found


def test_each_shared_trial_is_trained_once_and_both_sweeps_end_well(
    nursery: Nursery, fresh: Fresh, twin: dict[str, Twin], record: Record
) -> None:
    storage = fresh()
    ended = both(nursery, storage)
    assert [each.code for each in ended] == [0, 0], [each.out for each in ended]
    by = trained_by(storage)
    assert len(by) == 4
    assert {len(pids) for pids in by.values()} == {1}, by
    for name in SEEDS:
        assert check(storage, twin[name], tracking=None) == []
    assert redone(storage / "work") == 0
    record("two sweeps that share two of four trials, at once", kills="", redone=0)


def test_without_a_look_at_other_sweeps_they_take_trials_from_each_other(nursery: Nursery, fresh: Fresh, tmp_path: Path) -> None:
    """One trial that both have: the first trains it slowly until the second has begun it, too, however long that takes to start."""
    storage, until = fresh(), tmp_path / "until-both-have-begun"
    until.touch()
    faults = [*QUICK, f"slow_while={until}", f"work={storage / 'work'}", "no_look_elsewhere"]

    def taken() -> bool:
        return any(len(set(pids)) == 2 for pids in trained_by(storage).values())  # one that has lost it may have taken it back by now

    with ThreadPoolExecutor(2) as threads:
        runs = [threads.submit(nursery.run, *given(storage, name, seeds="1"), faults=faults) for name in SEEDS]
        wait_for(lambda: taken() or any(run.done() for run in runs))
        until.unlink()
    assert taken(), [run.result().out for run in runs]


def test_what_a_sweep_that_dies_has_trained_is_taken_over(
    nursery: Nursery, fresh: Fresh, twin: dict[str, Twin], record: Record, tmp_path: Path
) -> None:
    storage, until = fresh(), tmp_path / "until-one-is-dead"
    until.touch()
    faults = [*QUICK, f"slow_while={until}", f"work={storage / 'work'}"]
    shared = manifest_keys(twin)
    with ThreadPoolExecutor(2) as threads:
        first = threads.submit(nursery.run, *given(storage, OTHER), faults=faults)
        wait_for(lambda: first.done() or any(each.last > 21 for each in attempts(storage / "work")))
        assert not first.done(), first.result().out
        attempt = next(each for each in attempts(storage / "work") if each.last > 21)
        assert attempt.keys[0] in shared
        second = threads.submit(nursery.run, *given(storage, "smoke"), faults=faults)
        wait_for(lambda: second.done() or manifest.read(storage, "smoke").epoch)
        time.sleep(0.2)
        os.kill(attempt.pid, signal.SIGKILL)
        until.unlink()
        assert first.result().code == -9
        assert second.result().code == 0, second.result().out
    assert check(storage, twin["smoke"], tracking=None) == []
    assert redone(storage / "work") <= 20
    record("a sweep SIGKILL, for one of whose trials another waits", redone=redone(storage / "work"))


def manifest_keys(twin: dict[str, Twin]) -> set[str]:
    one, other = (set(each.states) for each in twin.values())
    return one & other
