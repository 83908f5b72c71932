"""Sweeps of several people on one cluster: each has its share of the places, and a higher priority takes them at a checkpoint."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from service.ledger import manifest

from ..conftest import Fresh, Record, arguments
from ..support.harness import PATIENT, Process, descendants, driver, kill, title, wait_for
from ..support.invariants import SWEEP, attempts, check, redone, twin_of
from ..support.nursery import ROOT, Nursery

pytestmark = pytest.mark.slow_faults

EVERY = 5000  # no checkpoint but those of stacks that leave, and the last one
PLACES = 4
OFF = {"RAY_AUTH_MODE": "disabled"}
QUICK = "no_table no_mlflow"


HEAD = f"""
import sys, time
import ray

ray.init("local", num_cpus={PLACES}, include_dashboard=False, log_to_driver=False, _temp_dir=sys.argv[1], _node_ip_address="127.0.0.2")
print("address", ray.get_runtime_context().gcs_address, flush=True)
time.sleep(1e6)
"""


@pytest.fixture
def head(environment: dict[str, str], tmp_path: Path, started: list[Process]) -> Iterator[tuple[Process, str]]:
    """A cluster of four places, whose workers are slow, slower while there is a file `wait`, and note what they do; and its address.

    Without what `ray start` starts besides: on a busy machine that takes longer than it waits for."""
    loopback = {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "1", "RAY_worker_niceness": "0"}  # the first keeps the address that it was given
    more = PATIENT | OFF | loopback | {"FAULTS": f"{QUICK} slow=10 slow_while={tmp_path / 'wait'} work={tmp_path / 'work'}"}
    with tempfile.TemporaryDirectory(prefix="wf", dir="/tmp") as folder:  # short: sockets lie in it
        for _ in range(8):
            found = Process([sys.executable, "-c", HEAD, folder], environment, tmp_path / "head.log", **more)
            started.append(found)
            wait_for(lambda found=found: "address " in found.out or not found.runs())
            if found.runs():
                break
        yield found, found.out.partition("address ")[2].split()[0]
        for process in reversed(started):
            process.end()


def given(storage: Path, seeds: str, updates: int) -> list[str]:
    return arguments(storage, EVERY, 1, seeds=seeds, updates=str(updates), sparsities="0.8")


def begin(address: str, environment: dict[str, str], words: list[str], storage: Path, started: list[Process]) -> Process:
    run = driver(words, environment, storage / "log", FAULTS=QUICK, RAY_ADDRESS=address, **OFF)
    started.append(run)
    return run


def times(storage: Path, state: str, reason: str = "") -> list[float]:
    """When trials came into a state, for a reason."""
    events = [event for entry in manifest.read(storage, SWEEP).entries.values() for event in entry.events]
    return sorted(event.time for event in events if event.state == state and (not reason or event.detail.get("reason") == reason))


def actor(head: Process) -> int:
    """The process of the actor that divides the places."""
    return next((pid for pid in descendants(head.pid) if title(pid).startswith("ray::Places")), 0)


def test_places_are_shared_by_weight_also_by_one_that_comes_later(
    head: tuple[Process, str], environment: dict[str, str], fresh: Fresh, started: list[Process], record: Record
) -> None:
    one, two = fresh(), fresh()
    first = begin(head[1], environment, given(one, "0-999", 100), one, started)
    wait_for(lambda: len(times(one, "leased")) > PLACES, first)
    second = begin(head[1], environment, [*given(two, "1000-1999", 100), "--weight=2"], two, started)
    wait_for(lambda: times(two, "done"), second)
    since = max(times(two, "leased"))
    wait_for(lambda: len([when for when in times(two, "leased") if when > since]) > 30, second, every=1)
    until = max(times(two, "leased"))
    starts = [len([when for when in times(storage, "leased") if since < when <= until]) for storage in (one, two)]
    assert 0.2 < starts[0] / sum(starts) < 0.47, "a third of the places"
    assert "beside smoke (" in first.out
    assert "weight 2, priority normal" in second.out
    kill(second.pid)
    wait_for(lambda: "no other sweep shares the cluster any more" in first.out, first)
    wait_for(lambda: _at_once(one) >= PLACES, first)
    kill(first.pid, signal.SIGTERM)
    assert first.wait() == 130
    record(f"two sweeps of weights 1 and 2 on a cluster: {starts[0]} and {starts[1]} starts; SIGKILL for one of them")


def _at_once(storage: Path) -> int:
    return len(manifest.read(storage, SWEEP).keys_in("leased"))


def test_a_higher_priority_takes_places_at_a_checkpoint_and_what_left_ends_like_the_twin(
    head: tuple[Process, str],
    environment: dict[str, str],
    nursery: Nursery,
    fresh: Fresh,
    started: list[Process],
    record: Record,
    tmp_path: Path,
) -> None:
    low, high, alone = fresh(), fresh(), fresh()
    assert nursery.run(*given(alone, "0-3", 1500), faults=QUICK.split()).code == 0
    (tmp_path / "wait").touch()
    waits = begin(head[1], environment, [*given(low, "0-3", 1500), "--priority=low"], low, started)
    wait_for(lambda: len([each for each in attempts(tmp_path / "work") if each.last > 10]) == PLACES, waits)
    goes = begin(head[1], environment, [*given(high, "4-6", 1500), "--priority=high"], high, started)
    wait_for(lambda: len(times(low, "planned", "gives way")) >= 3, waits)
    wait_for(lambda: _at_once(high) == 3, goes)
    said = wait_for(lambda: json.loads(_status(environment, low, "--json"))["share"], goes)
    assert (said["places"], said["whole"], said["priority"]) == ({"cpu": 1}, {"cpu": PLACES}, "low")
    assert f"share: {said['text']}\n" in _status(environment, low)
    kill(before := actor(head[0]))
    wait_for(lambda: actor(head[0]) not in (0, before))
    (tmp_path / "wait").unlink()
    assert goes.wait() == 0, goes.out
    assert waits.wait() == 0, waits.out
    assert check(low, twin_of(alone), tracking=None) == []
    assert redone(tmp_path / "work") == 0
    record("places taken for a higher priority, and the actor that divides them SIGKILL", kills=4, redone=0)


def _status(environment: dict[str, str], storage: Path, *more: str) -> str:
    command = [sys.executable, "-m", "service", "status", SWEEP, f"--storage={storage}", *more]
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=True).stdout
