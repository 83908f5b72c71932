"""Several raylets on this machine: nodes die, the head dies and another takes its place, a job is stopped and submitted again."""

from __future__ import annotations

import secrets
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from service.ledger import manifest
from service.spool import lines
from service.storage import paths

from ..conftest import Fresh, Record, arguments
from ..support.harness import PATIENT, Jobs, Process, RayNode, descendants, driver, kill, node, raylet, title, wait_for, workers
from ..support.invariants import SWEEP, Twin, attempts, check, redone, twin_of
from ..support.nursery import Nursery

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


def faults(place: Path) -> dict[str, str]:
    return {"FAULTS": f"no_table slow=2 work={place / 'work'}"}


def cluster(environment: dict[str, str], place: Path, started: list[Process], name: str, nodes: int, **more: str) -> list[RayNode]:
    """A head that trains nothing and `nodes` of one CPU."""
    environment = environment | faults(place) | more
    head = node(environment, place / f"{name}.log", started, cpus=0)
    return [head, *(node(environment, place / f"{name}{n}.log", started, number=n + 1, address=head.address) for n in range(nodes))]


def progress(storage: Path, twin: Twin) -> int:
    return sum(max(0, lines.committed_update(lines.read(paths.spool(storage, key)))) for key in twin.states)


def test_a_raylet_and_then_the_head_die(
    environment: dict[str, str], place: Path, big: Twin, started: list[Process], record: Record
) -> None:
    """Without tokens, and with one node at a time, so that nobody finishes the sweep meanwhile. The next test goes on from here."""
    off = {"RAY_AUTH_MODE": "disabled"}
    head, first = cluster(environment, place, started, "a", 1, **off)
    alone = {"RAY_ADDRESS": head.address, "RAY_gcs_rpc_server_reconnect_timeout_s": "15", **off}
    run = driver(given(place), environment, place / "log", FAULTS="no_table", **alone)
    started.append(run)
    wait_for(lambda: any(a.last > 1.5 * EVERY for a in attempts(place / "work") if a.pid in descendants(first.pid)), run)
    kill(raylet(first.pid))
    first.kill()
    second = node(environment | faults(place) | off, place / "a2.log", started, number=2, address=head.address)
    wait_for(lambda: any(a.first >= 0 for a in attempts(place / "work") if a.pid in descendants(second.pid)), run)
    (key,) = attempts(place / "work")[0].keys
    wait_for(lambda: "infrastructure" in [event.detail.get("reason") for event in manifest.read(place, SWEEP).entries[key].events], run)
    record("raylet SIGKILL, another takes its place; then head and node; tokens off", kills=3)
    for other in (head, second):
        other.kill()
    wait_for(lambda: not run.runs())
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
    head, *others = cluster(environment, place, started, "b", 2, **on)
    jobs = Jobs(head, environment | on, token)
    command = [sys.executable, "-m", "service", *given(place)]
    assert jobs.submit("no-token", *command, RAY_AUTH_MODE="disabled", RAY_AUTH_TOKEN_PATH="").returncode != 0  # nobody gets in without
    before = progress(place, big)
    submitted = jobs.submit("smoke-0", *command)
    assert submitted.returncode == 0, submitted.stdout + submitted.stderr
    wait_for(lambda: progress(place, big) > before or not jobs.runs("smoke-0"), every=0.5)
    assert jobs.runs("smoke-0"), head.log_of("smoke-0")
    (pid,) = [pid for pid in descendants(head.pid) if title(pid).startswith(f"{sys.executable} -m service run")]
    asked = time.monotonic()
    jobs.stop("smoke-0")
    wait_for(lambda: not title(pid))
    took = time.monotonic() - asked
    # It left by itself, ahead of Ray's SIGKILL: the journal names no worker that is gone, and the lease is over.
    assert "interrupted (SIGTERM)" in head.log_of("smoke-0")
    ledger = manifest.read(place, SWEEP)
    assert not ledger.keys_in("leased")
    assert any(entry.detail.get("reason") == "interrupted" for entry in ledger.entries.values())
    wait_for(lambda: not any(workers(other.pid) for other in others))
    assert check(place, big, tracking=None)  # it was not over
    submitted = jobs.submit("smoke-1", *command)
    assert submitted.returncode == 0, submitted.stdout + submitted.stderr
    wait_for(lambda: not jobs.runs("smoke-1"), every=1)
    said = head.log_of("smoke-1")
    assert jobs.status("smoke-1") == "SUCCEEDED", said
    assert check(place, big) == [], said
    first, *later = attempts(place / "work")
    on_others = [attempt for attempt in later if attempt.keys == first.keys and attempt.first >= 0]
    assert on_others[0].first >= EVERY  # what the dead node had begun has gone on from its checkpoint
    most = redone(place / "work")
    assert most <= EVERY
    record("head SIGKILL, a new one with token auth on the same storage", redone=most)
    record(f"`ray job stop` (the driver was gone after {took:.1f} s) and submitted again, with tokens", redone=most)
    told = [path for path in place.rglob("*") if path.is_file() and token.encode() in path.read_bytes()]
    assert told == []
    assert token not in said


ON_EVERY_DEVICE = """
import sys
from service.__main__ import main
from service.driving.session import Session
from service.planning import update_cost
from trainables.training import memory

memory.free_bytes = lambda: 10**9
update_cost.START.update(cpu=0.0, cuda=0.0)
started = Session.train

def work(stack, storage, *, device, **options):
    from trainables.run import run_stack
    yield from run_stack(stack, storage, device="cpu", **options)

Session.train = lambda self, listen: started(self, listen, work)
sys.exit(main(sys.argv[1:]))
"""


def test_the_only_node_with_a_gpu_dies_and_another_comes(
    environment: dict[str, str], fresh: Fresh, nursery: Nursery, started: list[Process], record: Record, tmp_path: Path
) -> None:
    """A GPU is a number to Ray here: what is placed on it trains on the CPU, as slowly as ever."""
    storage, alone, off = fresh(), fresh(), {"RAY_AUTH_MODE": "disabled"}
    words = arguments(storage, EVERY, 1, pruners="dense,snip", seeds="0-2", updates="1000", sparsities="0.95", algorithms="bc")
    assert nursery.run(*[word.replace(str(storage), str(alone)) for word in words], faults=["no_table", "no_mlflow"]).code == 0
    noted = environment | off | {"FAULTS": f"no_table slow=20 work={tmp_path / 'work'}"}
    head = node(noted, tmp_path / "head.log", started, cpus=1)
    gpu = node(noted, tmp_path / "gpu.log", started, number=1, address=head.address, cpus=2, gpus=1)
    words = [word.replace("--device=cpu", "--device=all") for word in words]
    command = [sys.executable, "-c", ON_EVERY_DEVICE, *words, "--gpu-fraction=1"]
    run = Process(command, environment, tmp_path / "log", FAULTS="no_table no_mlflow", RAY_ADDRESS=head.address, **(PATIENT | off))
    started.append(run)

    def on_gpu() -> list[str]:
        return [key for key, entry in manifest.read(storage, SWEEP).entries.items() if entry.detail.get("on") == "gpu"]

    def begun(since: int) -> bool:
        there = {key for each in attempts(tmp_path / "work")[since:] if each.last > 1.5 * EVERY for key in each.keys}
        return bool(there & {*on_gpu()})

    wait_for(lambda: begun(0), run)
    before = len(attempts(tmp_path / "work"))
    gpu.kill()
    wait_for(lambda: "gpu is no longer here" in run.out, run)
    node(noted, tmp_path / "gpu2.log", started, number=2, address=head.address, cpus=2, gpus=1)
    wait_for(lambda: begun(before), run)
    assert run.wait() == 0, run.out
    assert check(storage, twin_of(alone), tracking=None) == []
    most = redone(tmp_path / "work")
    assert most <= EVERY
    record("the only node with a GPU killed; another comes", redone=most)


def test_a_broken_node_waits_before_it_takes_the_next_stack(
    environment: dict[str, str], fresh: Fresh, started: list[Process], record: Record, tmp_path: Path
) -> None:
    """It cannot write tables into its cache, and is alone at first. The other one is given what it has failed."""
    storage, off = fresh(), {"RAY_AUTH_MODE": "disabled"}
    (tmp_path / "cache").mkdir(mode=0o700)
    (tmp_path / "cache" / "index").touch()  # where a folder is to be
    broken = environment | off | {"WINNOW_CACHE": str(tmp_path / "cache")}
    head = node(environment | off, tmp_path / "head.log", started, cpus=0)
    node(broken, tmp_path / "broken.log", started, number=1, address=head.address)
    run = driver(arguments(storage, EVERY, 1), environment, tmp_path / "log", FAULTS="no_table no_mlflow", RAY_ADDRESS=head.address, **off)
    started.append(run)
    for seconds in (5, 10):
        wait_for(lambda said=f"; its worker waits {seconds} s, as": said in run.out, run)
    node(environment | off, tmp_path / "good.log", started, number=2, address=head.address)
    assert run.wait() == 0, run.out
    assert 2 <= run.out.count("; its worker waits") <= 6
    record("a node with a broken cache beside a good one", kills="")
