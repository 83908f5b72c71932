"""Signals and `winnow stop`, on a real session without Ray: what is committed, how it leaves, and that it leaves at all."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from service.__main__ import main
from service.ledger import lease, manifest
from service.planning.options import TrainingOptions
from service.planning.plan import make_plan
from service.planning.run_settings import RunSettings
from service.storage import paths
from service.terminal import signals
from tests.faults.support.harness import LONG, handles, wait_for
from tests.service.conftest import ROOT

SETTINGS = ("datasets=test/hopper/random-v0",)
CPU = RunSettings(overrides=SETTINGS, options=TrainingOptions(device="cpu"))
PROGRAM = """
import sys, time
from pathlib import Path
from service.ledger import lease
from service.planning.options import TrainingOptions
from service.planning.plan import make_plan
from service.planning.run_settings import RunSettings
from service.driving.session import Session
lease.BEAT = 0.05
storage = Path(sys.argv[1])
settings = RunSettings(overrides={settings}, options=TrainingOptions(device="cpu"))
plan = make_plan("smoke", settings, storage=storage)
session = Session(plan, storage)
try:
    with session:
        session.driver.prepare()
        session.driver.begin("cpu", 2)
        session.driver.started(session.driver.next())
        {work}
except KeyboardInterrupt:
    print("left:", session.leaving.why)
"""
# Python may hear of a signal between looking for one and going to sleep, and then sleeps on: so no sleep is long.
ASLEEP = "any(time.sleep(0.1) for _ in range(6000))"
IDLE = f"print('ready', flush=True); {ASLEEP}"
SLOWLY = "from service.terminal import signals\nsignals.SPEAK, signals.LEAVE = 50.0, 55.0\n"  # the watchdog's time is not what is tested
STUBBORN = """
        while True:
            try:
                print("ready", flush=True)
                any(time.sleep(0.1) for _ in range(600))
            except KeyboardInterrupt:
                pass
"""


@pytest.fixture
def driver(tmp_path: Path, hopper: str) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """`driver(work, before="")`: a driver that has started the first trial and then does `work`; `before` is run first."""
    started = []

    def start(work: str = IDLE, before: str = "") -> subprocess.Popen[str]:
        program = before + (SLOWLY if work is IDLE else "") + PROGRAM.format(settings=SETTINGS, work=work)
        command = [sys.executable, "-c", program, str(tmp_path)]
        process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        started.append(process)
        assert process.stdout is not None
        while (line := process.stdout.readline()) != "ready\n":
            assert line, process.communicate()[1]
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


def states(storage: Path) -> list[str]:
    return [entry.state for entry in manifest.read(storage, "smoke").entries.values()]


def stopped(pid: int) -> bool:
    """Whether all threads of a process stand still: on a busy machine its heart beats on until one of them has heard of SIGSTOP."""
    return all(task.read_text().rpartition(")")[2].split()[0] == "T" for task in Path(f"/proc/{pid}/task").glob("*/stat"))


def end(process: subprocess.Popen[str], seconds: float = 60) -> tuple[int, str, str]:
    """Exit code and output of a driver; -9 where it did not leave."""
    try:
        out, err = process.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        process.kill()
        out, err = process.communicate()
    return process.returncode, out, err


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_gives_back_what_is_not_done_and_ends_the_lease(number: signal.Signals, driver, tmp_path: Path) -> None:
    process = driver()
    assert states(tmp_path) == ["leased", "planned", "planned", "planned"]
    process.send_signal(number)
    assert end(process) == (0, f"left: {number.name}\n", "")
    assert states(tmp_path) == ["planned"] * 4
    detail = next(iter(manifest.read(tmp_path, "smoke").entries.values())).detail
    assert detail == {"reason": "interrupted"}
    assert lease.holder(tmp_path, "smoke")["state"] == "released"


def test_without_its_handler_a_closed_terminal_leaves_trials_leased(driver, tmp_path: Path) -> None:
    process = driver(before="from service.terminal import signals\nsignals.SIGNALS = signals.SIGNALS[:2]\n")
    process.send_signal(signal.SIGHUP)
    assert end(process)[0] == -signal.SIGHUP
    assert states(tmp_path)[0] == "leased"


def test_what_nohup_has_started_does_not_hear_of_a_closed_terminal(driver, tmp_path: Path) -> None:
    process = driver(before="import signal\nsignal.signal(signal.SIGHUP, signal.SIG_IGN)\n")
    process.send_signal(signal.SIGHUP)
    time.sleep(0.3)
    assert process.poll() is None
    process.send_signal(signal.SIGTERM)
    assert end(process) == (0, "left: SIGTERM\n", "")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
@pytest.mark.parametrize("after", [0.1, 0.3, 1.5])
def test_a_command_that_has_just_begun_ends_with_one_line(number: signal.Signals, after: float, hopper: str, tmp_path: Path) -> None:
    # Its data is there: without it, a fast machine has refused the sweep before the signal comes.
    command = [sys.executable, "-m", "service", "run", "smoke", "--set", f"datasets={hopper}", f"--storage={tmp_path / 'storage'}"]
    # Python itself takes a moment to come up: the signal is sent once our own handler is there.
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        while not handles(process.pid, number):
            assert process.poll() is None
            time.sleep(0.001)
        time.sleep(after)
        process.send_signal(number)
        out, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    # On a fast machine the sweep has begun, and says it on stdout or, in Ray's start, at once.
    said = [line for line in (out + err).splitlines() if line.startswith(("interrupted", "left at once"))]
    assert len(said) == 1, out + err
    assert said[0] in (out.splitlines()[-1:] + err.splitlines()[-1:]), out + err
    assert "Traceback" not in out + err


SWALLOWED = """
import os, signal, sys
from service.terminal import signals
signals.take()
from service import __main__ as commands
import gymnasium

make, raised = gymnasium.make, eval(sys.argv[1])

def interrupted(*given, **named):
    "As pybind11 does with an exception that comes while a module of its is imported."
    try:
        os.kill(os.getpid(), signal.SIGINT)
    except KeyboardInterrupt as error:
        if raised:
            raise raised("initialization failed") from error
    return make(*given, **named)

gymnasium.make = interrupted
sys.exit(commands.main(sys.argv[2:]))
"""


@pytest.mark.parametrize("raised", ["ImportError", "gymnasium.error.DependencyNotInstalled", "ZeroDivisionError", "None"])
def test_a_signal_that_foreign_code_takes_for_something_else_is_heard(raised: str, hopper: str, tmp_path: Path) -> None:
    run = ["run", "smoke", "--set", f"datasets={hopper}", f"--storage={tmp_path / 'storage'}"]
    command = [sys.executable, "-c", SWALLOWED, raised, *run]
    ran = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=LONG)
    assert (ran.returncode, ran.stderr.splitlines()[-1]) == (130, "interrupted"), ran.stderr
    assert "Traceback" not in ran.stderr


def test_there_is_time_to_leave_before_ray_kills() -> None:
    assert signals.SPEAK < signals.LEAVE < 3, "seconds that `ray job stop` gives"


def test_one_that_does_not_come_back_is_ended_after_its_last_words(driver, tmp_path: Path) -> None:
    process = driver(STUBBORN, before="from service.terminal import signals\nsignals.LEAVE = 8.0\n")
    process.send_signal(signal.SIGTERM)
    code, _, err = end(process)
    assert code == 130
    assert err == "left at once (SIGTERM)\n"
    assert states(tmp_path) == ["planned"] * 4
    assert lease.holder(tmp_path, "smoke")["state"] == "released"


def test_one_whose_storage_hangs_leaves_in_time_without_last_words(driver, tmp_path: Path) -> None:
    hang = "from service.ledger import journal\njournal.os.fsync = lambda file: __import__('time').sleep(60)\n"
    process = driver(f"exec({hang!r}); print('ready', flush=True); {ASLEEP}")
    process.send_signal(signal.SIGTERM)
    code, _, err = end(process)
    assert (code, err) == (130, "left at once (SIGTERM)\n")
    assert main(["stop", "smoke", "--storage", str(tmp_path)]) == 0, "the lease is dead with its process"
    assert states(tmp_path)[1:] == ["planned"] * 3
    again = driver()  # the next driver goes on from what is on disk
    assert again.poll() is None


def test_stop_ends_a_driver_of_this_host(driver, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    process = driver()
    owner = lease.holder(tmp_path, "smoke")["owner"]
    assert main(["stop", "smoke", "--storage", str(tmp_path)]) == 0
    assert capsys.readouterr().out == (
        f"{owner} has left; `winnow run smoke --set=datasets=test/hopper/random-v0 --device=cpu --storage={tmp_path}` "
        "continues from the checkpoints\n"
    )
    assert end(process)[0] == 0
    assert main(["stop", "smoke", "--storage", str(tmp_path)]) == 0
    assert capsys.readouterr().out == "nobody runs sweep 'smoke'\n"
    assert main(["status", "smoke", "--storage", str(tmp_path)]) == 0
    again = f"winnow resume smoke --storage={tmp_path}"
    assert capsys.readouterr().out.splitlines()[0] == f"smoke: 4 planned; nobody runs it now; `{again}` finishes it"


def test_stop_ends_a_driver_of_another_host_by_a_file(driver, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    process = driver(before="from service.ledger import lease\nlease.kernel = lambda: 'another'\nlease.owner = lambda: 'elsewhere:1'\n")
    assert main(["stop", "smoke", "--storage", str(tmp_path)]) == 0
    assert "elsewhere:1 has left" in capsys.readouterr().out
    assert end(process) == (0, "left: asked to stop\n", "")
    assert make_plan("smoke", CPU, storage=tmp_path).todo


def test_stop_signals_no_process_of_another_container_with_the_same_name(driver, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each has a process of that number, and this one's may be another sweep's driver."""
    process = driver(before="from service.ledger import lease\nlease.processes = lambda: 'pid:[1]'\n")
    signalled = list[int]()
    kill = os.kill
    monkeypatch.setattr(os, "kill", lambda pid, number: signalled.append(pid) if number else kill(pid, number))
    assert main(["stop", "smoke", "--storage", str(tmp_path)]) == 0
    assert signalled == []
    assert end(process) == (0, "left: asked to stop\n", "")


def test_a_driver_that_slept_through_a_takeover_leaves_without_a_word_in_the_journal(driver, tmp_path: Path) -> None:
    process = driver(before="from service.ledger import lease\nlease.kernel = lambda: 'another'\n")
    process.send_signal(signal.SIGSTOP)
    wait_for(lambda: stopped(process.pid))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(lease, "flock", lambda path: lease.os.open(path, lease.os.O_RDWR))  # not to be relied on across hosts
        lease.Lease(tmp_path, "smoke", bound=0.5)
    before = paths.manifest(tmp_path, "smoke").read_bytes()
    process.send_signal(signal.SIGCONT)
    code, _, err = end(process, 60)  # nobody counts here: it must leave by itself, and write nothing
    assert code == 1
    assert "SupersededError: epoch 1 is over: held by" in err
    assert paths.manifest(tmp_path, "smoke").read_bytes() == before
    assert states(tmp_path)[0] == "leased", "the new driver's to decide"


def test_a_second_driver_says_who_has_the_lease_and_leaves(driver, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    driver()
    about = lease.holder(tmp_path, "smoke")
    before = sorted((path, path.stat().st_size) for path in tmp_path.rglob("*") if path.is_file() and path.parent.name != "lease")
    assert main(["run", "smoke", "--storage", str(tmp_path), f"--set={SETTINGS[0]}"]) == 2
    told = f"error: sweep 'smoke' is being run by {about['owner']} since {about['since']}; wait for it, or "
    assert f"{told}`winnow stop smoke --storage={tmp_path}`" in capsys.readouterr().err
    after = sorted((path, path.stat().st_size) for path in tmp_path.rglob("*") if path.is_file() and path.parent.name != "lease")
    assert after == before


def test_status_tells_who_runs_it_and_the_age_of_reports(driver, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    driver()
    trial = make_plan("smoke", CPU, storage=tmp_path).trials[0]
    file = paths.spool(tmp_path, trial.key)
    file.parent.mkdir(parents=True)
    now = time.time_ns() // 1_000_000
    lines = [
        {"kind": "attempt", "time": now - 90_000},
        {"kind": "checkpointed", "update": 0, "time": now - 80_000},
        {"kind": "trained", "update": 60, "time": now - 60_000, "metrics": {"speed/updates_per_second": 41.5}},
    ]
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert main(["status", "smoke", "--storage", str(tmp_path), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["driver"] == lease.holder(tmp_path, "smoke")["owner"]
    assert told["counts"] == {"running": 1, "planned": 3}
    row = told["trials"][0]
    assert {n: row[n] for n in ("key", "state", "stack", "update", "rate")} == {
        "key": trial.key, "state": "running", "stack": 1, "update": 60, "rate": 41.5,
    }  # fmt: skip
    assert row["age"] >= 60
    main(["status", "smoke", "--storage", str(tmp_path)])
    head, columns, line = capsys.readouterr().out.splitlines()
    assert head.startswith(f"smoke: 1 running, 3 planned; run by {told['driver']} since ")
    assert columns.split() == ["state", "stack", "update", "of", "updates/s", "last", "report", "trial"]
    assert line.split()[:7] == ["running", "1", "60", "200", "42", line.split()[5], "s"]
