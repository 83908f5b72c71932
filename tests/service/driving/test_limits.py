"""What a run has used is counted by its own stacks, and which limit that reaches; how a run that has ended at one is shown."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest

from service.__main__ import main
from service.driving import limits as module
from service.driving.driver import Driver
from service.driving.limits import WARNED, LimitReachedError, Limits
from service.ledger import manifest
from service.ledger.manifest import Manifest
from service.planning.options import TrainingOptions
from service.terminal import signals
from service.terminal.display import Display
from tests.service.driving.test_driver import planned
from trainables.trial import Stack, Trial

HOUR = 3600.0


class Clock:
    """A clock that only the test moves."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now

    def time(self) -> float:
        return time.time() + self.now - 1000.0


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(module, "time", made)
    return made


def stack(seed: int) -> Stack:
    return Stack((Trial(dataset="test/hopper/random-v0", algorithm="bc", pruner="dense", seed=seed),))


def test_core_hours_are_the_seconds_of_stacks_those_in_training_included(clock: Clock) -> None:
    limits = Limits(TrainingOptions(max_core_hours=2))
    clock.now += 10 * HOUR
    assert limits.reached() == "", "waiting costs nothing"
    for seed in (0, 1):
        limits.started(stack(seed), 0.0)
    clock.now += HOUR
    assert limits.reached() == "--max-core-hours=2"
    limits.ended(stack(0), 1800.0)  # it has trained for half of that time
    assert limits.reached() == ""
    limits.ended(stack(1), None)  # its worker has died
    limits.started(stack(1), 0.0)
    clock.now += 0.5 * HOUR
    assert limits.reached() == "--max-core-hours=2"


def test_gpu_hours_are_shares_of_gpus_and_none_on_cpus(clock: Clock) -> None:
    limits, beside = Limits(TrainingOptions(max_gpu_hours=1)), Limits(TrainingOptions(max_gpu_hours=1))
    for seed in range(4):
        limits.started(stack(seed), 0.25)
        beside.started(stack(seed), 0.0 if seed == 3 else 0.25)
    clock.now += HOUR - 1
    assert limits.reached() == ""
    clock.now += 1
    assert (limits.reached(), beside.reached()) == ("--max-gpu-hours=1", ""), "one of the others is on a core"


def test_hours_and_the_time_of_day_count_from_the_beginning(clock: Clock) -> None:
    until = time.strftime("%H:%M+00:00", time.gmtime(time.time() + 12 * HOUR))
    limits = Limits(TrainingOptions(max_hours=0.5))
    clock.now += 1799
    assert limits.reached() == ""
    clock.now += 1
    assert limits.reached() == "--max-hours=0.5"
    late = Limits(TrainingOptions(until=until))
    assert late.reached() == ""
    clock.now += 25 * HOUR
    assert late.reached() == f"--until={until}"


def test_a_batch_system_s_warning_is_a_limit_of_any_run(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    limits = Limits(TrainingOptions())
    assert limits.reached() == ""
    monkeypatch.setattr(signals, "_warned", True)
    assert limits.reached() == WARNED


def test_a_run_at_its_limit_gives_everything_back_and_says_so_everywhere(
    tmp_path: Path, hopper: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)

    def driver(**options: Any) -> tuple[Driver, Manifest]:
        journal = Manifest(tmp_path, "smoke")
        made = Driver(planned(tmp_path, stack_size=2, **options), journal, tmp_path, Display())
        made.prepare()
        made.begin("cpu", 4)
        return made, journal

    first, journal = driver(max_core_hours=1e-12)  # 4 ns: a fast machine is some microseconds after `started` when it asks
    assert not first.spent(), "nothing is used before anything is trained"
    training = first.next()
    assert training is not None
    first.started(training)
    assert first.spent()
    with pytest.raises(LimitReachedError) as ended:
        first.end()
    first.leave()
    journal.close()
    assert ended.value.limit == "--max-core-hours=1e-12"
    ledger = manifest.read(tmp_path, "smoke")
    details = [entry.detail.get("reason", "") for entry in ledger.entries.values()]
    assert (details, ledger.limit) == (["limit", "limit", "", ""], "--max-core-hours=1e-12")
    assert {entry.state for entry in ledger.entries.values()} == {"planned"}

    def shown(command: str, *more: str) -> str:
        main([command, *more, f"--storage={tmp_path}"])
        return capsys.readouterr().out

    capsys.readouterr()
    assert "smoke: 4 planned; limit reached (--max-core-hours=1e-12); `winnow resume smoke" in shown("status", "smoke")
    assert json.loads(shown("status", "smoke", "--json"))["limit"] == "--max-core-hours=1e-12"
    assert [line.split()[:3] for line in shown("list").splitlines() if line.split()[:1] == ["smoke"]] == [["smoke", "limit", "reached"]]
    second, journal = driver()
    assert manifest.read(tmp_path, "smoke").limit == "", "the next run begins without it"
    assert not second.spent()
    second.leave()
    journal.close()


def test_a_run_that_is_done_has_reached_no_limit(tmp_path: Path, hopper: str) -> None:
    journal = Manifest(tmp_path, "smoke")
    driver = Driver(planned(tmp_path, stack_size=4, max_core_hours=1e-9), journal, tmp_path, Display())
    driver.prepare()
    driver.begin("cpu", 1)
    for last in iter(driver.next, None):
        driver.started(last)
        driver.ended(last, {"failure": {"reason": "user_error", "message": "as said"}})
    assert not driver.spent()
    journal.close()
