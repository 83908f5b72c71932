"""What the disk refuses is said in one line, and the next run goes on."""

from __future__ import annotations

import pytest

from .conftest import QUICK, Fresh, Record, arguments
from .invariants import Twin, check
from .nursery import Nursery


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
