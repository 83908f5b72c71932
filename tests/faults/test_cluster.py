"""Several raylets on this machine: nodes die, the head dies and another takes its place, a job is stopped and submitted again."""

from __future__ import annotations

import secrets
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from service import spool
from trainables import paths

from .conftest import Fresh, Record, arguments
from .harness import Process, RayNode, descendants, driver, kill, raylet, title, wait_for, workers
from .invariants import Twin, attempts, check, redone, twin_of
from .nursery import ROOT, Nursery

pytestmark = pytest.mark.slow_faults

EVERY = 100
SETTINGS = {"seeds": "0,1,2,3,4,5", "updates": "2000", "evaluations": "2"}


@pytest.fixture(scope="module")
def big(nursery: Nursery, fresh: Fresh) -> Twin:
    storage = fresh()
    assert nursery.run(*given(storage), faults=["no_table", "no_mlflow"]).code == 0
    return twin_of(storage)


@pytest.fixture(scope="module")
def place(fresh: Fresh) -> Path:
    """One storage for both clusters."""
    return fresh()


@pytest.fixture(scope="module")
def started() -> Iterator[list[Process]]:
    found: list[Process] = []
    yield found
    for process in reversed(found):
        process.end()


def given(storage: Path) -> list[str]:
    return arguments(storage, EVERY, 1, **SETTINGS)


def cluster(environment: dict[str, str], place: Path, started: list[Process], name: str, **more: str) -> list[RayNode]:
    """A head that trains nothing and two nodes of one CPU."""
    faults = {"FAULTS": f"no_table slow=2 work={place / 'work'}"} | more
    head = node(environment | faults, place / f"{name}.log", started, cpus=0)
    return [head, *(node(environment | faults, place / f"{name}{n}.log", started, number=n, address=head.address) for n in (1, 2))]


def node(environment: dict[str, str], log: Path, started: list[Process], **more: Any) -> RayNode:
    """A running node; a busy machine may not manage within Ray's own 15 and 30 seconds, so it is tried again."""
    for _ in range(8):
        found = RayNode(environment, log, **more)
        started.append(found)
        wait_for(lambda found=found: "Ray runtime started" in found.out or not found.runs())
        if found.runs():
            return found
    raise AssertionError(found.out)


def progress(storage: Path, twin: Twin) -> int:
    return sum(max(0, spool.committed_update(spool.read(paths.spool(storage, key)))) for key in twin.states)


def test_a_raylet_and_then_the_head_die(
    environment: dict[str, str], place: Path, big: Twin, started: list[Process], record: Record
) -> None:
    """Without tokens. The next test goes on from here."""
    off = {"RAY_AUTH_MODE": "disabled"}
    head, first, second = cluster(environment, place, started, "a", **off)
    alone = {"RAY_ADDRESS": head.address, "RAY_gcs_rpc_server_reconnect_timeout_s": "5", **off}
    run = driver(given(place), environment, place / "log", FAULTS="no_table", **alone)
    started.append(run)
    wait_for(lambda: {pid for a in attempts(place / "work") if a.first >= 0 for pid in [a.pid]} & set(descendants(first.pid)), run)
    kill(raylet(first.pid))
    first.kill()
    faults = {"FAULTS": f"no_table slow=2 work={place / 'work'}"}
    third = node(environment | faults | off, place / "a3.log", started, number=3, address=head.address)
    wait_for(lambda: any(a.first >= 0 for a in attempts(place / "work") if a.pid in descendants(third.pid)), run)
    assert redone(place / "work") <= EVERY
    record("raylet SIGKILL, another takes its place", redone=redone(place / "work"))
    for other in (head, second, third):
        other.kill()
    wait_for(lambda: not run.runs(), seconds=90)
    assert run.wait() != 0
    assert check(place, big, tracking=None)  # it was not over


def test_a_new_head_with_tokens_and_a_job_that_is_stopped_and_submitted_again(
    environment: dict[str, str], place: Path, big: Twin, started: list[Process], record: Record, tmp_path: Path
) -> None:
    token = secrets.token_hex(16)
    file = tmp_path / "token"
    file.write_text(token)
    file.chmod(0o600)
    on = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(file)}
    head, *_ = cluster(environment, place, started, "b", **on)

    def ray(*words: str, **more: str) -> subprocess.CompletedProcess[str]:
        command = [str(Path(sys.executable).with_name("ray")), "job", words[0], "--address", head.dashboard, *words[1:]]
        return subprocess.run(command, cwd=ROOT, env=environment | on | more, capture_output=True, text=True, check=False, timeout=120)

    assert ray("list", RAY_AUTH_MODE="disabled", RAY_AUTH_TOKEN_PATH="").returncode != 0  # nobody gets in without
    entry = [sys.executable, "-m", "service", *given(place)]
    quoted = [f"'{word}'" if set(word) & set("(, ") else word for word in entry]
    for attempt in range(2):
        before = progress(place, big)
        submitted = ray("submit", "--no-wait", "--submission-id", f"smoke-{attempt}", "--", *quoted)
        assert submitted.returncode == 0, submitted.stdout + submitted.stderr
        if attempt == 0:
            wait_for(lambda before=before: progress(place, big) > before)
            asked = time.monotonic()
            assert ray("stop", f"smoke-{attempt}").returncode == 0
            wait_for(lambda: not [pid for pid in descendants(head.pid) if "-m service run" in title(pid)])
            print(f"stopped after {time.monotonic() - asked:.1f} s")
            wait_for(lambda: not any(workers(other.pid) for other in started if isinstance(other, RayNode) and other.runs()))
    wait_for(lambda: any(word in ray("status", "smoke-1").stdout + ray("status", "smoke-1").stderr for word in ("succeeded", "failed")))
    logs = ray("logs", "smoke-1").stdout
    assert check(place, big) == [], logs
    assert redone(place / "work") <= EVERY
    record("head SIGKILL, a new one with token auth on the same storage", redone=redone(place / "work"))
    record("`ray job stop` and submitted again, with tokens", redone=redone(place / "work"))
    told = [path for path in place.rglob("*") if path.is_file() and token.encode() in path.read_bytes()]
    assert told == []
    assert token not in logs
