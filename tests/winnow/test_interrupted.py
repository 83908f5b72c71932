"""A process in which `winnow.run` was interrupted, or reached a limit, goes on as if it had called nothing."""

from __future__ import annotations

from pathlib import Path

from tests.winnow.conftest import Winnow

SESSION = """
import os, signal

import winnow

small = {"datasets": "test/hopper/random-v0", "algorithms": "bc", "pruners": "dense", "seeds": 0, "updates": 3_000_000, "evaluations": 1}
small |= {"episodes": 1, "hyper.hidden": "(16, 16)"}
before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)]

def press(line):
    if "1 running" in line:
        os.kill(os.getpid(), signal.SIGINT)

try:
    winnow.run("smoke", small, device="cpu", progress=press)
except KeyboardInterrupt:
    print("interrupted")

from service.terminal import signals
assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)] == before
assert not (signals.hurried() or signals.left())
try:
    os.kill(os.getpid(), signal.SIGINT)
    signal.pause()
except KeyboardInterrupt:
    print("heard")

some = winnow.run("smoke", small, device="cpu", max_hours=1e-6, progress=False)
print(list(some.outcome), [note for note in some.attrs["notes"] if "limit" in note])
small["updates"] = 20
print(list(winnow.run("smoke", small, device="cpu", progress=False).outcome))
"""


def test_after_an_interruption_and_a_limit_the_process_goes_on(tmp_path: Path, winnow: Winnow, hopper_folder: Path) -> None:
    (tmp_path / "session.py").write_text(SESSION)
    ran = winnow(folder=tmp_path, module="session", MINARI_DATASETS_PATH=str(hopper_folder), OMP_NUM_THREADS="1")
    assert ran.returncode == 0, ran.stdout + ran.stderr
    interrupted, heard, limited, after = ran.stdout.splitlines()
    assert (interrupted, heard) == ("interrupted", "heard")
    outcome = "interrupted" if "['interrupted']" in limited else "limit reached"  # whether the first run came to a checkpoint
    assert limited.startswith(f"['{outcome}'] ['smoke: limit reached (--max-hours=")
    assert after == f"['done', '{outcome}']"
