"""A stalled worker: named while it is, ended where the user asks for it. On real Ray."""

from __future__ import annotations

import json
import signal
import subprocess
import sys

import pytest

from ..conftest import Fresh, Record, arguments
from ..support.harness import Process, driver, kill, wait_for
from ..support.invariants import Twin, attempts, check, redone, twin_of
from ..support.nursery import ROOT, Nursery

pytestmark = pytest.mark.slow_faults

EVERY, SETTINGS = 500, {"updates": "3000", "evaluations": "1"}


@pytest.fixture(scope="module")
def twin(nursery: Nursery, fresh: Fresh) -> Twin:
    storage = fresh()
    assert nursery.run(*arguments(storage, EVERY, 2, **SETTINGS), faults=["no_table", "no_mlflow"]).code == 0
    return twin_of(storage)


def test_a_worker_that_stands_still_is_named_and_ended_where_asked_for(
    environment: dict[str, str], fresh: Fresh, twin: Twin, started: list[Process], record: Record
) -> None:
    place = fresh()
    faults = f"no_table no_mlflow slow=5 work={place / 'work'}"
    run = driver([*arguments(place, EVERY, 2, **SETTINGS), "--stalled-after=45"], environment, place / "log", FAULTS=faults)
    started.append(run)
    (attempt,) = wait_for(lambda: [each for each in attempts(place / "work") if each.last > 700], run)
    kill(attempt.pid, signal.SIGSTOP)
    wait_for(lambda: "1 worker silent for" in run.out, run)
    command = [sys.executable, "-m", "service", "status", "smoke", f"--storage={place}", "--json"]
    told = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=True)
    assert all(row["silent"] > 29 for row in json.loads(told.stdout)["trials"])
    assert run.wait() == 0, run.out
    assert "and was ended; it will be retried" in run.out
    assert check(place, twin, tracking=None) == []
    assert redone(place / "work") <= EVERY
    record("worker SIGSTOP: named, and ended after `--stalled-after`", redone=redone(place / "work"))
