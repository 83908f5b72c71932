"""What the disk refuses is said in one line, and the next run goes on."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from ..conftest import QUICK, Fresh, Record, arguments
from ..support.invariants import Twin, check
from ..support.nursery import ROOT, Nursery


def test_a_storage_that_cannot_be_written_is_said_in_one_line(nursery: Nursery, fresh: Fresh, record: Record) -> None:
    storage = fresh()
    ended = nursery.run(*arguments(storage), faults=[*QUICK, f"read_only={storage}"])
    assert ended.code == 2
    assert "Traceback" not in ended.out
    (error,) = [line for line in ended.out.splitlines() if line.startswith("error: ")]
    assert str(storage) in error
    assert "Read-only file system" in error
    assert [path.name for path in storage.iterdir()] == ["mlflow.db"]
    record("read-only storage: said in one line, nothing written")


def test_a_storage_where_no_folder_can_be_is_said_in_one_line(nursery: Nursery) -> None:
    ended = nursery.run(*arguments("/proc/mine"), faults=QUICK)
    assert ended.code == 2
    assert "Traceback" not in ended.out
    assert "error: the storage cannot be made: there can be no folder /proc/mine; choose another with --storage" in ended.out.splitlines()


@pytest.mark.parametrize("command", ["archive smoke --to=/proc/c.zip", "report smoke --to=/proc/x"])
def test_a_place_where_nothing_can_be_written_is_said_in_one_line(nursery: Nursery, fresh: Fresh, command: str) -> None:
    storage = fresh()
    assert nursery.run(*arguments(storage)).code == 0
    ended = nursery.run(*command.split(), f"--storage={storage}")
    assert ended.code == 2, ended.out
    assert "Traceback" not in ended.out
    (error,) = [line for line in ended.out.splitlines() if line.startswith("error: ")]
    assert error.startswith("error: /proc/")


def test_a_storage_that_becomes_unwritable_is_said_in_one_line(nursery: Nursery, fresh: Fresh, twin: Twin, record: Record) -> None:
    storage = fresh()
    assert nursery.run(*arguments(storage), faults=[*QUICK, "die_after=Trained@30"]).code == 137
    ended = nursery.run(*arguments(storage), faults=[*QUICK, f"read_only={storage}"])
    assert ended.code == 2
    assert "Traceback" not in ended.out
    assert nursery.run(*arguments(storage), faults=QUICK).code == 0
    assert check(storage, twin, tracking=None) == []
    record("storage becomes read-only between two runs")


@pytest.mark.parametrize("number", [1, pytest.param(20, marks=pytest.mark.slow_faults), 60])
def test_a_full_disk_is_said_in_one_line(nursery: Nursery, fresh: Fresh, twin: Twin, number: int) -> None:
    storage = fresh()
    ended = nursery.run(*arguments(storage), faults=[*QUICK, f"full_from={number}"])
    assert ended.code in (1, 2)
    assert "Traceback" not in ended.out
    assert "No space left on device" in ended.out


@pytest.mark.parametrize("number", [1, 60])
def test_an_exhausted_quota_is_said_in_one_line(nursery: Nursery, fresh: Fresh, twin: Twin, number: int, record: Record) -> None:
    storage = fresh()
    ended = nursery.run(*arguments(storage), faults=[*QUICK, f"full_from={number}:EDQUOT"])
    assert ended.code in (1, 2)
    assert "Traceback" not in ended.out
    assert "Disk quota exceeded" in ended.out
    assert nursery.run(*arguments(storage), faults=QUICK).code == 0
    assert check(storage, twin, tracking=None) == []
    record(f"quota exhausted from write {number} on, then raised")


ENCODINGS = {
    "ascii": {"PYTHONIOENCODING": "ascii"},
    "latin-1": {"PYTHONIOENCODING": "latin-1"},
    "C": {"LC_ALL": "C"},
    "utf-8": {"PYTHONIOENCODING": "utf-8"},
}


@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize("protected", [True, False])
def test_no_encoding_of_stdout_stops_a_command(nursery: Nursery, fresh: Fresh, record: Record, encoding: str, protected: bool) -> None:
    """Names that ASCII or Latin-1 lack are printed as escapes; here that of the storage, into a pipe."""
    if not protected and encoding not in ("ascii", "latin-1"):
        pytest.skip("these print it with or without")
    storage = fresh() / "caf\u00e9-\u2603"
    assert nursery.run(*arguments(storage), faults=[*QUICK, "die_after=Trained@30"]).code == 137
    program = "import sys, service.__main__ as service\n"
    program += "" if protected else "service.print_any_text = lambda: None\n"
    program += f"sys.exit(service.main(['status', 'smoke', {'--storage=' + str(storage)!a}]))"
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("LC_", "PYTHON"))} | ENCODINGS[encoding]
    ended = subprocess.run([sys.executable, "-c", program], cwd=ROOT, env=environment, capture_output=True, check=False)
    if protected:
        assert ended.returncode == 0, ended.stderr
        assert b"2 interrupted; nobody runs it now" in ended.stdout
        assert b"\\u2603" in ended.stdout or "\u2603".encode() in ended.stdout
        record(f"stdout in {encoding}: names that it lacks are escaped", kills="")
    else:
        assert b"UnicodeEncodeError" in ended.stderr
