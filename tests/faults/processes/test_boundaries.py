"""Killed, or refused by a full disk, at any moment at which something is made to last, a sweep goes on as if nothing had been."""

from __future__ import annotations

from collections.abc import Iterable

import pytest

from trainables.storage import files

from ..conftest import EVERY, QUICK, Fresh, Record, arguments, whole
from ..support.invariants import Twin, redone
from ..support.nursery import Nursery

STRIDE = 12  # of the quick tests; the slow ones take every boundary


@pytest.fixture(scope="module")
def boundaries(nursery: Nursery, fresh: Fresh) -> int:
    """How many fsyncs and renames driver and trainer make; the shipper's turn is in test_tracking.py."""
    most = nursery.run(*arguments(fresh()), faults=[*QUICK, "count"]).boundaries
    assert most > 60
    return most


def kill_at(
    numbers: Iterable[int], nursery: Nursery, fresh: Fresh, twin: Twin, *switches: str, first: bool = False
) -> tuple[dict[int, list[str]], int, int]:
    """What is wrong after a kill at each boundary (`first`: up to the first such) and one more run, the most updates done again, and
    how many were killed."""
    problems, most, kills = {}, 0, 0
    for number in numbers:
        storage = fresh()
        faults = [*QUICK, *switches, f"work={storage / 'work'}"]
        killed = nursery.run(*arguments(storage), faults=[*faults, f"die_at={number}"])
        assert killed.code in (137, 0), killed.out  # 0: the driver's heart beat less often than when they were counted
        kills += killed.code == 137
        again = nursery.run(*arguments(storage), faults=faults)
        found = whole(nursery, storage, twin) + ([again.out[-500:]] if again.code else [])
        most = max(most, redone(storage / "work"))
        if found:
            problems[number] = found
        if first and (found or most > EVERY):
            break
    return problems, most, kills


def fill_at(numbers: Iterable[int], nursery: Nursery, fresh: Fresh, twin: Twin, *switches: str) -> dict[int, list[str]]:
    """The same for a disk that is full from each boundary on, and has room again for the next run."""
    problems = {}
    for number in numbers:
        storage = fresh()
        full = nursery.run(*arguments(storage), faults=[*QUICK, *switches, f"full_from={number}"])
        again = nursery.run(*arguments(storage), "--retry-failed", faults=[*QUICK, *switches])
        found = whole(nursery, storage, twin) + ([again.out[-500:]] if again.code else [])
        if found or (full.code == 0 and full.boundaries >= number):
            problems[number] = found
    return problems


def test_a_kill_at_some_fsyncs_and_renames(nursery: Nursery, fresh: Fresh, twin: Twin, boundaries: int, record: Record) -> None:
    numbers = range(3, boundaries, STRIDE)
    problems, most, kills = kill_at(numbers, nursery, fresh, twin)
    assert problems == {}
    assert most <= EVERY
    assert kills >= len(numbers) - 2
    record(f"kill at every {STRIDE}th of {boundaries} fsyncs and renames", kills=kills, redone=most)


@pytest.mark.slow_faults
def test_a_kill_at_every_fsync_and_rename(nursery: Nursery, fresh: Fresh, twin: Twin, boundaries: int, record: Record) -> None:
    problems, most, kills = kill_at(range(1, boundaries + 1), nursery, fresh, twin)
    assert problems == {}
    assert most <= EVERY
    assert kills >= 0.9 * boundaries
    record(f"kill at every fsync and rename ({boundaries})", kills=kills, redone=most)


def test_a_disk_full_from_some_boundaries_on(nursery: Nursery, fresh: Fresh, twin: Twin, boundaries: int, record: Record) -> None:
    numbers = range(25, boundaries - 4, 60)
    assert fill_at(numbers, nursery, fresh, twin) == {}
    record("disk full, from some fsyncs and renames on", kills=len(numbers))


@pytest.mark.slow_faults
def test_a_disk_full_from_every_third_boundary_on(nursery: Nursery, fresh: Fresh, twin: Twin, boundaries: int, record: Record) -> None:
    numbers = range(1, boundaries - 4, 3)
    assert fill_at(numbers, nursery, fresh, twin) == {}
    record("disk full, from every third fsync or rename on", kills=len(numbers))


@pytest.mark.slow_faults
@pytest.mark.parametrize(
    ("switch", "says"), [("no_rename no_checkpoint_hash", ""), ("no_tidy", "left behind: "), ("no_work_kept", "redone")]
)
def test_without_the_protection_it_shows(nursery: Nursery, fresh: Fresh, twin: Twin, boundaries: int, switch: str, says: str) -> None:
    problems, most, _ = kill_at(range(3, boundaries), nursery, fresh, twin, *switch.split(), first=True)
    told = [text for found in problems.values() for text in found] + (["redone"] if most > EVERY else [])
    assert any(says in text for text in told), told


def test_what_a_full_disk_cuts_short_is_taken_back(tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:
    import errno
    import os

    write, calls = os.write, []

    def full(file: int, content: bytes) -> int:
        calls.append(file)
        if len(calls) > 1:
            raise OSError(errno.ENOSPC, "No space left on device")
        return write(file, content[:3])

    path = tmp_path / "journal"
    path.write_bytes(b"first\n")
    file = os.open(path, os.O_WRONLY | os.O_APPEND)
    monkeypatch.setattr(os, "write", full)
    with pytest.raises(OSError, match="No space"):
        files.append(file, b"second\n")
    monkeypatch.undo()
    files.append(file, b"third\n")
    os.close(file)
    assert path.read_bytes() == b"first\nthird\n"
