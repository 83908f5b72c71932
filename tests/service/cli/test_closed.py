"""Standard streams that are closed, as by `>&-`, or lead to a full disk: no traceback, the work is done, no file takes their number."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from service.ledger.manifest import Manifest
from tests.faults.support.harness import LONG
from tests.service.conftest import ROOT, Command
from trainables.trial import Trial

TRIAL = Trial(dataset="test/hopper/random-v0", algorithm="bc")
CLOSED = {"stdout": ">&-", "stderr": "2>&-", "both": ">&- 2>&-", "stdin": "<&-", "all": "<&- >&- 2>&-"}
# As after each start of a command, without its imports: what is opened first, and where a process below writes its output.
OPENED = """
import os, subprocess, sys
from trainables.output import open_streams
closed = open_streams()
file = open(sys.argv[1], "w")
subprocess.run(["sh", "-c", "echo to stdout; echo to stderr >&2"])
print("printed")
sys.stdout.flush()
sys.stderr.write(f"{sorted(closed)} {file.fileno()}")
"""


@pytest.fixture
def planned(storage: Path) -> Path:
    journal = Manifest(storage, "smoke")
    journal.plan([TRIAL])
    journal.close()
    return storage


def run(words: str, redirection: str, service: Command, *, at_once: bool = False) -> subprocess.CompletedProcess[bytes]:
    """`at_once`: each write reaches the stream by itself."""
    command = f"exec {sys.executable} -m service {words} {redirection}"
    environment = {name: value for name, value in service.environment.items() if name != "PYTHONUNBUFFERED"}
    environment |= {"PYTHONUNBUFFERED": "1"} if at_once else {}
    return subprocess.run(["sh", "-c", command], cwd=ROOT, env=environment, capture_output=True, check=False, timeout=LONG)


@pytest.mark.parametrize("which", CLOSED)
def test_a_command_does_its_work(which: str, service: Command, planned: Path) -> None:
    """`archive` says that there is nothing to put into one; `status` has something to say."""
    told, refused = run("status smoke", CLOSED[which], service), run("archive smoke --to nothing.zip", CLOSED[which], service)
    assert told.returncode == (141 if ">&-" in CLOSED[which].split() else 0)
    assert refused.returncode == 2
    assert b"Traceback" not in told.stderr + refused.stderr
    assert told.stdout == b"" or told.stdout.startswith(b"smoke: 1 planned")
    assert refused.stderr == b"" or refused.stderr.startswith(b"error: ")


@pytest.mark.parametrize("words", ["--help", "plan quickstart"])
def test_what_nobody_can_read_ends_as_for_a_closed_pipe(words: str, service: Command) -> None:
    ended = run(words, ">&-", service)
    assert (ended.returncode, ended.stderr) == (141, b"")


@pytest.mark.parametrize("at_once", [False, True])
def test_a_full_disk_behind_stdout_is_one_line(at_once: bool, service: Command, planned: Path) -> None:
    ended = run("status smoke", "> /dev/full", service, at_once=at_once)
    assert (ended.returncode, ended.stderr) == (2, b"error: stdout: No space left on device\n")


def test_no_file_takes_the_number_of_a_closed_stream(tmp_path: Path) -> None:
    file = tmp_path / "file"
    command = f'exec {sys.executable} -c "$PROGRAM" {file} <&- >&- 2>{tmp_path / "errors"}'
    subprocess.run(["sh", "-c", command], cwd=ROOT, env=os.environ | {"PROGRAM": OPENED}, check=True, timeout=LONG)
    assert file.read_bytes() == b""
    errors = (tmp_path / "errors").read_text()
    assert errors.startswith("to stderr\n[0, 1] ")
    assert int(errors.split()[-1]) > 2
