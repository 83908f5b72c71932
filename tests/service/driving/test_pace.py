"""When a worker counts as silent, and what a driver makes of it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from service.__main__ import main
from service.driving import driver as module
from service.driving.driver import Driver
from service.driving.workers.pace import FIRST, LEAST, TIMES, Pace
from service.driving.workers.silence import Silence
from service.ledger.manifest import Manifest
from service.planning.options import TrainingOptions
from service.planning.plan import make_plan
from service.planning.run_settings import RunSettings
from service.storage import paths
from service.terminal.display import Display
from trainables.trial import Stack, Trial


def followed(pace: Pace, until: float, since: float = 0.0, after: float | None = None) -> dict[str, float]:
    """What is silent at the end, looked at every second like a driver does."""
    silent: dict[str, float] = {}
    for second in range(int(since), int(until) + 1):
        silent = pace.silent(float(second), after)
    return silent


def test_a_worker_is_silent_after_a_multiple_of_its_own_pace() -> None:
    pace = Pace()
    pace.start("a", 0.0)
    pace.start("b", 0.0)
    for second in (20.0, 40.0, 60.0):
        assert not followed(pace, second, second - 20)
        pace.news("a", second)
    assert not followed(pace, 60 + TIMES * 20, 60)
    assert followed(pace, 61 + TIMES * 20, 61) == {"a": 1 + TIMES * 20}
    assert set(followed(pace, 1 + FIRST, 162)) == {"a", "b"}, "before its first news a worker has more time"
    pace.news("a", 1 + FIRST)
    pace.end("b")
    assert not pace.silent(2 + FIRST)


def test_a_fast_worker_is_not_silent_at_once_and_a_limit_of_the_user_counts_instead() -> None:
    pace = Pace()
    pace.start("a", 0.0)
    pace.news("a", 1.0)
    pace.news("a", 1.1)
    assert not followed(pace, LEAST)
    assert followed(pace, LEAST + 2, LEAST) == {"a": pytest.approx(LEAST + 0.9)}
    assert followed(pace, 40, LEAST + 2, after=10) == {"a": pytest.approx(38.9)}
    assert not followed(pace, 50, 40, after=60)


def test_a_driver_that_was_suspended_blames_nobody() -> None:
    pace = Pace()
    pace.start("a", 0.0)
    pace.news("a", 1.0)
    assert not followed(pace, 3, 1)
    assert not pace.silent(10_000.0)
    assert followed(pace, 10_000 + LEAST, 10_000)


def test_a_silent_worker_is_named_in_the_line_and_in_status_and_ended_where_the_user_asks_for_it(
    tmp_path: Path, hopper: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    clock = [1000.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: clock[0])
    options = TrainingOptions(device="cpu", stack_size=2, stalled_after=100.0)
    plan = make_plan("smoke", RunSettings(overrides=(f"datasets={hopper}",), options=options), storage=tmp_path)
    journal = Manifest(tmp_path, "smoke")
    driver = Driver(plan, journal, tmp_path, Display())
    driver.prepare()
    driver.begin("cpu", 1)
    stack = driver.next()
    assert stack is not None
    driver.started(stack)

    def wait(seconds: float) -> list[str]:
        """The trials whose worker is to be ended."""
        named = []
        for _ in range(round(seconds)):
            clock[0] += 1
            driver.idle()
            named += [trial.key for each in driver.stalled() for trial in each.trials]
        return named

    driver.reported(stack, {"update": 20})
    clock[0] += 1
    driver.reported(stack, {"update": 40})
    assert driver.silent() == []
    assert wait(40) == []
    assert driver.silent() == [stack]
    said = capsys.readouterr().out
    assert f"{stack.lead.name}: its worker has been silent for 31 s, longer than usual" in said
    assert "| 1 worker silent for 3" in said.splitlines()[-1]
    main(["status", "smoke", f"--storage={tmp_path}", "--json"])
    rows = json.loads(capsys.readouterr().out)["trials"]
    assert [row["key"] for row in rows if row["silent"]] == [trial.key for trial in stack.trials]
    assert 30 < rows[0]["silent"] <= 41
    main(["status", "smoke", f"--storage={tmp_path}"])
    assert "its worker has been silent for" in capsys.readouterr().out
    driver.reported(stack, {"update": 60})
    assert not paths.silent(tmp_path, "smoke").exists()
    assert "left" in driver._progress.line()
    assert wait(200) == [trial.key for trial in stack.trials], "once"
    driver.ended(stack, {"failure": {"reason": "infrastructure", "message": "the worker died"}})
    assert "silent for 2 min and was ended; it will be retried" in capsys.readouterr().out
    assert {journal.ledger.state(trial.key) for trial in stack.trials} == {"planned"}
    assert not paths.silent(tmp_path, "smoke").exists()
    journal.close()


def test_silent_workers_are_named_in_the_order_in_which_they_began(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock, said = [0.0], list[str]()
    monkeypatch.setattr("service.driving.workers.silence.time.monotonic", lambda: clock[0])
    screen = type("Screen", (), {"note": lambda self, line: said.append(line)})()
    silence = Silence(tmp_path, "smoke", screen, limit=FIRST)
    stacks = [Stack((Trial(dataset="test/hopper/random-v0", algorithm="bc", seed=seed),)) for seed in range(20)]
    for stack in stacks:
        silence.started(stack, 0.0)
    silence.look()
    for _ in range(round(FIRST) + 1):
        clock[0] += 1
        silence.look()
    assert [line.partition(":")[0] for line in said] == [stack.lead.name for stack in stacks]
    assert silence.over_limit() == stacks
