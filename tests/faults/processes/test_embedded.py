"""An embedded Ray: what it keeps to itself, how it is left at any moment, and what happens when it dies. On real Ray."""

from __future__ import annotations

import json
import os
import pty
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from service.cluster import embedded
from service.ledger import manifest

from ..conftest import Fresh, Record, arguments
from ..support.harness import LONG, PATIENT, Process, descendants, driver, handles, kill, raylet, title, wait_for
from ..support.invariants import SWEEP
from ..support.nursery import ROOT

pytestmark = pytest.mark.slow_faults

SECRET = "hunter2hunter2"
PLANTED = {
    "AWS_ACCESS_KEY_ID": f"{SECRET}0", "AWS_SECRET_ACCESS_KEY": f"{SECRET}1", "AWS_SESSION_TOKEN": f"{SECRET}2",
    "MLFLOW_TRACKING_TOKEN": f"{SECRET}3", "MLFLOW_TRACKING_URI": f"https://me:{SECRET}4@mlflow.example",
}  # fmt: skip
# Trains an empty stack, then looks at everything that Ray has written, and lets another process ask Ray to run a function.
PROGRAM = """
import json, os, subprocess, sys
from pathlib import Path
from service.cluster import ray_cluster, ray_process
from service.planning.options import TrainingOptions
from trainables.trial import Stack, Trial

if sys.argv[1] == "off":
    ray_process.class_cache.ENV_VARS_TO_PROPAGATE |= {name for name in os.environ if name.startswith("AWS_")}
    def start(folder):
        os.environ["RAY_AUTH_MODE"] = "disabled"
        ray_process.Config.initialize("")
        ray_process.ray.init("local", num_cpus=1, include_dashboard=False, _temp_dir=str(folder), **ray_process.QUIET)
    ray_process._start = start

class Conductor:
    left = [Stack((Trial(dataset="a/b/c-v0", algorithm="bc", updates=10, evaluations=1, episodes=1),))]
    def next(self): return self.left.pop() if self.left else None
    def busy(self): return False
    def started(self, stack): pass
    def reported(self, stack, news): pass
    def ended(self, stack, news): print(json.dumps({"ended": news.get("failure")}), flush=True)
    def idle(self): pass
    def silent(self): return []
    def stalled(self): return []
    def spent(self): return False

class Listener:
    storage, dataset_hash = Path(sys.argv[2]), ""
    def __call__(self, report): pass
    def check(self): pass
    def sync(self): pass
    def close(self): pass

def work(stack, storage, **options):
    yield from ()

with ray_cluster.connect(TrainingOptions(device="cpu")) as cluster:
    cluster.train("x", Conductor(), Path(sys.argv[2]), lambda stack, root: Listener(), work)
    ray = ray_cluster.ray
    node = ray._private.worker._global_node
    folder = Path(node.get_session_dir_path())
    written = [str(path) for path in folder.rglob("*") if path.is_file() and b"hunter2" in path.read_bytes()]
    written += [str(path) for path in Path(sys.argv[2]).rglob("*") if path.is_file() and b"hunter2" in path.read_bytes()]
    accessor = ray._private.state.state._connect_and_get_accessor()
    actors = b"hunter2" in b"".join(accessor.get_actor_table(None, None))
    below = ray_process.embedded.descendants(os.getpid())
    titles = [file.read_bytes() for pid in below if (file := Path(f"/proc/{pid}/cmdline")).exists()]
    intruder = "import ray; ray.init(sys.argv[1], logging_level=50); print(ray.get(ray.remote(lambda: 'ran').remote(), timeout=20))"
    command = [sys.executable, "-c", "import sys; " + intruder, node.gcs_address]
    untold = os.environ | {"RAY_AUTH_MODE": "disabled"}
    asked = subprocess.run(command, env=untold, capture_output=True, text=True, timeout=600)
    host, port = node.gcs_address.split(":")
    mode = oct((folder.parents[1]).stat().st_mode & 0o777)
    found = dict(written=written, actors=actors, titles=any(b"hunter2" in title for title in titles), ran="ran" in asked.stdout,
                 asks=ray_cluster.address.asks_for_token(host, int(port)), mode=mode, folder=str(folder.parents[1]),
                 environment=[name for name in os.environ if name.startswith("RAY_AUTH")], said=asked.stderr[-300:],
                 serves=node.metrics_agent_port > 0)
found["gone"] = not Path(found["folder"]).exists()
print(json.dumps(found))
"""


@pytest.mark.parametrize("protection", ["on", "off"])
def test_nobody_else_reads_or_uses_an_embedded_ray(protection: str, environment: dict[str, str], tmp_path: Path, record: Record) -> None:
    """With the protection off, both are done: so it is this that helps."""
    ran = subprocess.run(
        [sys.executable, "-c", PROGRAM, protection, str(tmp_path)],
        cwd=ROOT, env=environment | PLANTED, capture_output=True, text=True, check=False, timeout=LONG,
    )  # fmt: skip
    assert ran.returncode == 0, ran.stderr
    ended, found = map(json.loads, ran.stdout.splitlines())
    assert ended == {"ended": None}
    on = protection == "on"
    assert bool(found["written"]) is not on, found
    assert found["actors"] is not on
    assert found["ran"] is not on, found["said"]
    assert found["asks"] is on
    assert not found["titles"]
    assert found["gone"]
    assert found["serves"] is not on, "a second Ray on this host waits for its agent's port"
    if on:
        assert found["mode"] == "0o700"
        assert found["environment"] == [], "the token stays with Ray's processes"
        record("secrets in the environment: in no file, actor or command line of an embedded Ray")
        record("another process without the token asks an embedded Ray to run a function: refused")


@pytest.fixture
def place(fresh: Fresh) -> Path:
    return fresh()


def begun(place: Path, environment: dict[str, str], started: list[Process], *faults: str, **more: str) -> Process:
    """A driver of a sweep that would take minutes."""
    words = arguments(place, 1000, 1, updates="100000")
    run = driver(words, environment, place / "log", FAULTS=" ".join(["no_table", "slow=2", *faults]), **more)
    started.append(run)
    return run


def trains(place: Path) -> bool:
    return bool(manifest.read(place, SWEEP).keys_in("leased")) if (place / "sweeps").exists() else False


def folders(pid: int) -> list[Path]:
    """Private folders that the processes below `pid` use."""
    words = " ".join(title(each) for each in descendants(pid))
    return [folder for folder in Path("/tmp").glob(f"{embedded.PREFIX}*") if str(folder) in words]


def halt_agents(pids: list[int]) -> None:
    """Ray's agents stand still, as they do on a busy machine: they do not notice that their raylet is dead."""
    agents = [pid for pid in pids if "agent" in title(pid)]
    assert agents
    for pid in agents:
        kill(pid, signal.SIGSTOP)


def nothing_is_left(place: Path, below: list[int], rooms: list[Path]) -> None:
    wait_for(lambda: not any(title(pid) for pid in below))
    assert not [room for room in rooms if room.exists()]
    if (place / "sweeps").exists():
        assert not manifest.read(place, SWEEP).keys_in("leased")


@pytest.mark.parametrize("what", ["head", "raylet"])
def test_an_embedded_ray_whose_head_or_raylet_dies_is_one_line(
    what: str, environment: dict[str, str], place: Path, started: list[Process], record: Record
) -> None:
    run = begun(place, environment, started)
    wait_for(lambda: trains(place), run)
    below, rooms = descendants(run.pid), folders(run.pid)
    assert len(rooms) == 1
    victim = raylet(run.pid) if what == "raylet" else next(pid for pid in below if "gcs_server" in title(pid).split(" ")[0])
    halt_agents(below)
    asked = time.monotonic()
    kill(victim)
    assert run.wait() == 1, run.out
    took = time.monotonic() - asked
    assert run.out.count("\n") - run.out[: run.out.index(f"Ray's {what} has died")].count("\n") == 1, run.out
    assert f"Ray's {what} has died by signal 9; `winnow run smoke" in run.out or "left at once" in run.out
    nothing_is_left(place, below, rooms)
    assert took < 60, "Ray itself waits for minutes"
    record(f"embedded Ray's {what} SIGKILL: one line, nothing left, after {took:.1f} s")


def test_without_a_watch_a_dead_head_is_not_noticed_for_long(environment: dict[str, str], place: Path, started: list[Process]) -> None:
    run = begun(place, environment, started, "unwatched")
    wait_for(lambda: trains(place), run)
    kill(next(pid for pid in descendants(run.pid) if "gcs_server" in title(pid).split(" ")[0]))
    time.sleep(6)
    assert run.runs() or "Ray's head has died" not in run.out


def test_without_adoption_agents_of_a_dead_raylet_stay(environment: dict[str, str], place: Path, started: list[Process]) -> None:
    run = begun(place, environment, started, "no_adoption")
    wait_for(lambda: trains(place), run)
    below = descendants(run.pid)
    halt_agents(below)
    kill(raylet(run.pid))
    run.wait()
    left = [pid for pid in below if title(pid)]
    for pid in left:
        kill(pid)
    assert left


def test_without_a_shield_ray_has_the_last_word(environment: dict[str, str], place: Path, started: list[Process]) -> None:
    run = begun(place, environment, started, "unshielded")
    wait_for(lambda: MOMENTS["Ray's raylet starts"](place, run), run, every=0.005)
    run.signal(signal.SIGTERM)
    assert run.wait() != 130, run.out


MOMENTS = {
    "imports": lambda place, run: handles(run.pid),
    "Ray starts": lambda place, run: any("gcs_server" in title(pid) for pid in descendants(run.pid)),
    "Ray's raylet starts": lambda place, run: any("/raylet" in title(pid).split(" ")[0] for pid in descendants(run.pid)),
    "Ray's agents start": lambda place, run: any("runtime_env_agent" in title(pid) for pid in descendants(run.pid)),
    "trains": lambda place, run: trains(place),
}


@pytest.mark.parametrize("delay", [0.0, 1.0])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP], ids=lambda number: number.name)
@pytest.mark.parametrize("moment", MOMENTS)
def test_a_signal_at_any_moment_commits_and_leaves_nothing(
    moment: str, number: signal.Signals, delay: float, environment: dict[str, str], place: Path, started: list[Process], record: Record
) -> None:
    run = begun(place, environment, started)
    wait_for(lambda: MOMENTS[moment](place, run), run, every=0.005)
    time.sleep(0.2 + delay)
    below, rooms = descendants(run.pid), folders(run.pid)
    asked = time.monotonic()
    run.signal(number)
    assert run.wait() == 130, run.out
    took = time.monotonic() - asked
    last = run.out.splitlines()[-1]
    assert last.startswith(("interrupted", "left at once")), run.out
    assert "Traceback" not in run.out
    nothing_is_left(place, below, rooms)
    record(f"{number.name} while {moment}, {delay:g} s later: gone after {took:.1f} s")


@pytest.mark.parametrize("delay", [0.0, 0.3, 1.0, 2.0, 4.0])
def test_a_signal_while_a_run_stops_ships_and_draws(
    delay: float, environment: dict[str, str], place: Path, started: list[Process], record: Record
) -> None:
    run = driver(arguments(place, 20, 1), environment, place / "log")
    started.append(run)
    wait_for(lambda: trains(place), run)
    below, rooms = descendants(run.pid), folders(run.pid)
    wait_for(lambda: len(manifest.read(place, SWEEP).keys_in("done")) == 2, run)
    time.sleep(delay)
    run.signal(signal.SIGTERM)
    assert run.wait() in (0, 130), run.out
    assert "Traceback" not in run.out
    nothing_is_left(place, below, rooms)
    assert len(manifest.read(place, SWEEP).keys_in("done")) == 2
    record(f"SIGTERM {delay:g} s after the last trial was done: exit code {run.wait()}")


def test_a_terminal_that_is_closed_ends_the_run(environment: dict[str, str], place: Path) -> None:
    """Ray's processes are not hung up with it: they end with the driver."""
    main, other = pty.openpty()
    words = [sys.executable, "-m", "service", *arguments(place, 1000, 1, updates="100000")]
    terminal = "import fcntl, os, subprocess, sys, termios; os.setsid(); fcntl.ioctl(0, termios.TIOCSCTTY, 0); "
    shell = f"{terminal}sys.exit(subprocess.call({words!r}))"
    run = subprocess.Popen([sys.executable, "-c", shell], cwd=ROOT, env=environment | PATIENT, stdin=other, stdout=other, stderr=other)
    os.close(other)
    try:
        until = time.monotonic() + 300
        while not trains(place):
            assert time.monotonic() < until
            assert run.poll() is None
            time.sleep(0.1)
            with open(main, "rb", buffering=0, closefd=False) as screen:
                os.set_blocking(main, False)
                screen.read(100_000)
        below, rooms = descendants(run.pid), folders(run.pid)
        os.close(main)
        run.wait()
        nothing_is_left(place, below, rooms)
    finally:
        for pid in [*descendants(run.pid), run.pid]:
            kill(pid)
