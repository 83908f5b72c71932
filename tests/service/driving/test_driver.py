"""The driver's decisions, on a real manifest and without Ray: what comes next after each kind of failure, also after a restart."""

from __future__ import annotations

import json
import platform
import time
from pathlib import Path
from typing import Any

import pytest

from service.driving import endings
from service.driving.driver import Driver
from service.ledger.claims import Permit
from service.ledger.errors import GoneError
from service.ledger.manifest import Manifest
from service.planning.options import TrainingOptions
from service.planning.packing import RETRIES
from service.planning.plan import Plan, make_plan
from service.planning.run_settings import RunSettings
from service.storage import paths
from service.terminal.display import Display
from trainables.failures import failure
from trainables.trial import Stack

SETTINGS = ("datasets=test/hopper/random-v0", "pruners=snip", "seeds=0,1,2,3")


def planned(storage: Path, retry_failed: bool = False, **options: Any) -> Plan:
    settings = RunSettings(overrides=SETTINGS, options=TrainingOptions(**{"device": "cpu"} | options), retry_failed=retry_failed)
    return make_plan("smoke", settings, storage=storage)


def begin(storage: Path, size: int = 4, retry: bool = False) -> tuple[Driver, Manifest]:
    plan = planned(storage, retry, stack_size=size)
    journal = Manifest(storage, "smoke")
    driver = Driver(plan, journal, storage, Display())
    driver.prepare()
    driver.begin("cpu", 4)
    return driver, journal


def fail(driver: Driver, reason: str) -> Stack:
    """The next stack is started and fails."""
    stack = driver.next()
    assert stack is not None
    driver.started(stack)
    driver.ended(stack, {"failure": {"reason": reason, "message": "as said", "traceback": "File ..."}})
    return stack


def drain(driver: Driver) -> list[int]:
    """Sizes of the stacks that come next."""
    return [len(stack) for stack in iter(driver.next, None)]


@pytest.fixture(autouse=True)
def no_pause(hopper: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(endings, "LONGEST_PAUSE", 0.0)


def test_out_of_memory_is_tried_in_halves_and_alone_no_more(tmp_path: Path) -> None:
    driver, journal = begin(tmp_path)
    assert len(fail(driver, "out_of_memory")) == 4
    assert [len(fail(driver, "out_of_memory")) for _ in range(2)] == [2, 2]
    assert [len(fail(driver, "out_of_memory")) for _ in range(4)] == [1, 1, 1, 1]
    assert driver.next() is None
    assert not driver.busy()
    assert [entry.state for entry in journal.ledger.entries.values()] == ["failed"] * 4
    assert {entry.detail["reason"] for entry in journal.ledger.entries.values()} == {"out_of_memory"}


def test_a_stack_is_as_large_as_memory_allows_where_nobody_asked_for_a_size(tmp_path: Path) -> None:
    for size, wanted in ((None, [2, 2]), (4, [4])):
        plan = planned(tmp_path / str(size), device="cuda", stack_size=size)
        driver = Driver(plan, Manifest(tmp_path / str(size), "smoke"), tmp_path / str(size), Display())
        driver.prepare()
        driver.begin("cuda", 1, lambda trial: 2)
        assert drain(driver) == wanted


def test_on_cpus_a_stack_is_as_large_as_the_cluster_has_cpus(tmp_path: Path) -> None:
    for cpus, wanted in ((1, [2, 2]), (2, [1] * 4)):
        plan = planned(tmp_path / str(cpus))
        driver = Driver(plan, Manifest(tmp_path / str(cpus), "smoke"), tmp_path / str(cpus), Display())
        driver.prepare()
        driver.begin("cpu", cpus)
        assert drain(driver) == wanted


def test_a_restarted_driver_knows_how_small_a_stack_has_to_be(tmp_path: Path) -> None:
    driver, journal = begin(tmp_path)
    fail(driver, "out_of_memory")
    driver.leave()
    journal.close()
    assert [len(stack) for stack in planned(tmp_path, stack_size=4).stacks] == [2, 2]
    driver, journal = begin(tmp_path)
    assert drain(driver) == [2, 2]
    journal.close()


def test_infrastructure_is_tried_again_whole_and_counted_across_restarts(tmp_path: Path) -> None:
    for _ in range(RETRIES):
        driver, journal = begin(tmp_path)
        assert len(fail(driver, "infrastructure")) == 4
        assert [entry.state for entry in journal.ledger.entries.values()] == ["planned"] * 4
        journal.close()
    driver, journal = begin(tmp_path)
    fail(driver, "infrastructure")
    assert [entry.state for entry in journal.ledger.entries.values()] == ["failed"] * 4
    journal.close()
    driver, journal = begin(tmp_path)
    assert driver.next() is None, "`run` leaves it at that"
    assert driver.exit_code() == 1
    journal.close()
    driver, journal = begin(tmp_path, retry=True)
    assert len(fail(driver, "infrastructure")) == 4, "`resume` starts the count anew"
    assert [entry.state for entry in journal.ledger.entries.values()] == ["planned"] * 4
    journal.close()


def test_a_trial_that_gets_further_between_its_failures_is_not_given_up(tmp_path: Path) -> None:
    """Preempted again and again over a long night, it is making its way."""
    driver, journal = begin(tmp_path)
    for update in range(3 * RETRIES):
        for trial in driver.plan.trials:
            path = paths.spool(tmp_path, trial.key)
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("a") as file:
                file.write(json.dumps({"update": 10 * (update + 1), "kind": "checkpointed", "time": 0}) + "\n")
        fail(driver, "infrastructure")
    for _ in range(RETRIES):
        assert {entry.state for entry in journal.ledger.entries.values()} == {"planned"}
        fail(driver, "infrastructure")
    assert {entry.state for entry in journal.ledger.entries.values()} == {"failed"}, "no further in six tries"
    journal.close()


def test_a_worker_that_dies_before_it_begins_is_a_failure_like_any_other(tmp_path: Path) -> None:
    driver, journal = begin(tmp_path)
    stack = driver.next()
    assert stack is not None
    driver.ended(stack, {"failure": {"reason": "infrastructure", "message": "the node is gone"}})
    assert [len(stack) for stack in [driver.next()] if stack] == [4]
    story = [event.state for event in next(iter(journal.ledger.entries.values())).events]
    assert story == ["planned", "leased", "failed", "planned", "leased"]
    journal.close()


def not_found(storage: Path, journal: Manifest, stack: Stack) -> dict[str, str]:
    """The failure of a worker whose host has a folder of its own where the driver has the storage."""
    permit = Permit(storage, "smoke", journal.lease.epoch, journal.lease.token)
    with pytest.raises(GoneError) as error:
        permit.claim(trial.key for trial in stack.trials)
    return failure(error.value)


def test_a_host_that_does_not_see_the_storage_is_at_fault_itself(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Its stacks were once given out again for ever, as trained by another sweep."""
    driver, journal = begin(tmp_path / "storage")
    for _ in range(RETRIES + 1):
        stack = driver.next()
        assert stack is not None
        driver.ended(stack, {"failure": not_found(tmp_path / "elsewhere", journal, stack)})
    assert not driver.waits_for
    assert not driver.busy()
    for entry in journal.ledger.entries.values():
        assert (entry.state, entry.detail["reason"]) == ("failed", "infrastructure")
        assert entry.detail["message"].startswith(f"{platform.node()} does not see the storage {tmp_path / 'storage'}, or sees another")
    assert "use a storage that all hosts share; it will be retried" in capsys.readouterr().out
    journal.close()


def test_a_worker_that_waits_since_its_host_fails_is_named_and_not_silent(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    driver, journal = begin(tmp_path / "storage")
    stack = driver.next()
    assert stack is not None
    driver.started(stack)
    driver.reported(stack, {"scores": {}, "waits": {"seconds": 40.0, "failure": not_found(tmp_path / "elsewhere", journal, stack)}})
    out = capsys.readouterr().out
    assert f"{stack.lead.name}: {platform.node()} does not see the storage {tmp_path / 'storage'}, or sees another one there; " in out
    assert "; its worker waits 40 s, as the host would fail the next stack, too" in out
    assert {entry.state for entry in journal.ledger.entries.values()} == {"leased"}
    journal.close()


def test_a_storage_that_is_gone_is_no_fault_of_a_host(tmp_path: Path) -> None:
    driver, journal = begin(tmp_path / "storage")
    stack = driver.next()
    assert stack is not None
    (tmp_path / "storage").rename(tmp_path / "moved")
    with pytest.raises(GoneError, match="the storage was removed under this run"):
        driver.ended(stack, {"failure": not_found(tmp_path / "storage", journal, stack)})
    assert not (tmp_path / "storage").exists()
    journal.close()


@pytest.mark.parametrize("reason", ["user_error", "error"])
def test_a_wrong_input_in_company_is_found_alone_and_left_at_that(reason: str, tmp_path: Path) -> None:
    driver, journal = begin(tmp_path)
    fail(driver, reason)
    assert [len(fail(driver, reason)) for _ in range(4)] == [1, 1, 1, 1]
    assert not driver.busy()
    journal.close()
    assert begin(tmp_path)[0].next() is None


def test_resume_tries_again_what_failed_but_not_what_diverged(tmp_path: Path) -> None:
    """A divergence would come again, bit for bit. A stop is a search's answer, and none to this grid. What another sweep has done since
    counts."""
    driver, journal = begin(tmp_path)
    trials = driver.plan.trials
    journal.record("leased", {trial.key: {} for trial in trials})
    for trial, state in zip(trials, ("failed", "diverged", "stopped", "stopped"), strict=True):
        journal.record(state, {trial.key: {"reason": "as said", "message": "as said"}})
    journal.close()
    other = Manifest(tmp_path, "quickstart")
    other.plan(trials[3:])
    for state in ("leased", "done"):
        other.record(state, {trials[3].key: {}})
    other.close()
    driver, journal = begin(tmp_path, retry=True)
    told = ["planned", "diverged", "planned", "done"]
    assert [driver.plan.state[trial.key] for trial in trials] == told
    assert [journal.ledger.state(trial.key) for trial in trials] == told
    assert [trial for stack in iter(driver.next, None) for trial in stack.trials] == [trials[0], trials[2]]
    journal.close()


def test_failures_that_keep_coming_are_tried_again_later_and_later(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [1000.0]
    monkeypatch.setattr(endings, "LONGEST_PAUSE", 60.0)
    monkeypatch.setattr(time, "monotonic", lambda: clock[0])
    driver, journal = begin(tmp_path)
    pauses = []
    for _ in range(RETRIES):
        fail(driver, "infrastructure")
        began = clock[0]
        while (stack := driver.next()) is None:
            assert driver.busy()
            clock[0] += 1
        pauses.append(clock[0] - began)
        driver._queue.stacks.appendleft(stack)  # type: ignore[attr-defined]
    journal.close()
    assert pauses == [0, 4, 8, 16, 32]


def test_a_retry_and_its_failure_are_one_write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A crash between the two would leave a trial failed that is to be tried again."""
    driver, journal = begin(tmp_path)
    stack = driver.next()
    assert stack is not None
    driver.started(stack)
    writes: list[Any] = []
    append = journal._append
    monkeypatch.setattr(journal, "_append", lambda content: (writes.append(content), append(content)))
    driver.ended(stack, {"failure": {"reason": "infrastructure", "message": "gone"}})
    assert len(writes) == 1
    assert writes[0].count(b'"failed"') == writes[0].count(b'"planned"') == 4
    journal.close()
