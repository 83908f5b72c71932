"""A host that fails each stack at once would be given one after the other: its workers wait before they report it."""

from __future__ import annotations

import errno
import json
import platform
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from service.driving.workers.pace import FIRST as PATIENCE
from trainables import tune_trainable
from trainables.errors import UserError
from trainables.reports import Report, Trained
from trainables.storage import failing_host
from trainables.trial import Trial
from trainables.tune_trainable import StackTrainable

TRIAL = Trial(dataset="test/hopper/random-v0", algorithm="bc")
FULL = OSError(errno.ENOSPC, "No space left on device")
OPTIONS: Any = SimpleNamespace(device="cpu", execution="auto", checkpoint_every=100, tf32=False)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[float]:
    """Nobody has to wait; what sleeps moves it on. The host's count is this test's own."""
    monkeypatch.setenv("WINNOW_CACHE", str(tmp_path / "cache"))
    now = [1000.0]

    def sleep(seconds: float) -> None:
        now[0] += seconds

    moved = SimpleNamespace(monotonic=lambda: now[0], time=lambda: now[0], sleep=sleep)
    monkeypatch.setattr(tune_trainable, "time", moved)
    monkeypatch.setattr(failing_host, "time", moved)
    return now


def worker(error: Exception, *, trains: bool = False, shared: bool = True) -> StackTrainable:
    """One whose stack fails, after its first updates where it `trains`."""

    def work(*arguments: Any, **options: Any) -> Iterator[Report]:
        if trains:
            yield Trained(update=10, metrics=[{}], updates_per_second=10.0)
        raise error

    class Listener:
        storage, dataset_hash = Path(), ""

        def __call__(self, report: Report) -> None: ...
        def check(self) -> None: ...
        def sync(self) -> None: ...
        def close(self) -> None: ...

    made = object.__new__(StackTrainable)  # without what Tune wants of it
    stack = {"stack": json.dumps([TRIAL.to_json()])}
    made.setup(stack, storage="", listen=lambda stack, storage: Listener(), options=OPTIONS, work=work, shared=shared)
    return made


def waited(clock: list[float], error: Exception = FULL, **how: bool) -> float:
    """How many seconds pass before the failure is reported."""
    began, made = clock[0], worker(error, **how)
    heard = began
    while not (news := made.step()).get("done"):
        assert clock[0] - heard < PATIENCE, "the driver would call the worker silent"
        heard = clock[0]
    assert "failure" in news
    clock[0] += 0.1  # until the next stack is here
    return round(clock[0] - 0.1 - began)


def test_each_failure_in_a_row_keeps_the_place_twice_as_long_until_a_stack_trains(clock: list[float]) -> None:
    assert [waited(clock) for _ in range(9)] == [5, 10, 20, 40, 80, 160, 320, 600, 600]
    assert waited(clock, trains=True) == 0, "it has made updates, so the host works"
    assert waited(clock) == 5


def test_failures_at_once_are_one(clock: list[float]) -> None:
    assert [failing_host.wait() for _ in range(3)] == [5, 5, 5]
    clock[0] += 6
    assert [failing_host.wait() for _ in range(3)] == [10, 10, 10]


def test_what_is_no_fault_of_the_host_is_reported_at_once(clock: list[float]) -> None:
    assert waited(clock, UserError("the mask leaves no path")) == 0
    assert waited(clock, ZeroDivisionError()) == 0
    assert waited(clock, shared=False) == 0, "an embedded Ray has no other host"


@pytest.mark.parametrize("cache", ["/proc/cache", "file"])
def test_a_host_without_a_cache_waits_as_long_each_time(cache: str, clock: list[float], tmp_path: Path, monkeypatch: Any) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("WINNOW_CACHE", cache if cache.startswith("/") else str(tmp_path / cache))
    assert [waited(clock) for _ in range(3)] == [60, 60, 60]


def test_a_damaged_count_begins_anew(clock: list[float], tmp_path: Path) -> None:
    (tmp_path / "cache").mkdir(mode=0o700)
    for content in (b"", b"[1]", b'{"a": 1}', b'["x", null]', b"\xff"):
        (tmp_path / "cache" / f"failures-{platform.node()}.json").write_bytes(content)
        assert failing_host.wait() == 5


def test_a_worker_that_is_asked_to_leave_waits_no_longer(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("WINNOW_CACHE", str(tmp_path))
    monkeypatch.setattr(failing_host, "FIRST", 600.0)
    made = worker(FULL)
    told = made.step()
    assert told["waits"]["seconds"] == 600
    assert told["waits"]["failure"]["message"].startswith(f"{platform.node()}: OSError: ")
    made._leave.asked = True
    began = time.monotonic()
    assert made.step()["done"]
    assert time.monotonic() - began < tune_trainable.NEWS_EVERY / 2
