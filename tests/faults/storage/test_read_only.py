"""A storage that one may only read: every command that only reads works there, and changes nothing."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from service.storage import paths

from ..conftest import SETTINGS, Fresh, Record, arguments
from ..support.invariants import Twin
from ..support.nursery import Ended, Nursery

CHOSEN = [f"--set={name}={value}" for name, value in SETTINGS.items()]


def protect(storage: Path, *, writable: bool = False) -> None:
    """Take, or give, the permission to write everything below."""
    for path in [storage, *storage.rglob("*")]:
        path.chmod(path.stat().st_mode | 0o200 if writable else path.stat().st_mode & ~0o222)


def state(storage: Path) -> dict[str, tuple[bytes, int]]:
    return {str(path.relative_to(storage)): (path.read_bytes(), path.stat().st_mtime_ns) for path in storage.rglob("*") if path.is_file()}


@pytest.fixture(params=["there", "moved"])
def finished(nursery: Nursery, fresh: Fresh, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Path]:
    """A storage with the finished sweep that may only be read; where it was trained, and moved since."""
    storage = fresh()
    assert nursery.run(*arguments(storage), faults=["no_table"]).code == 0
    if request.param == "moved":
        storage = Path(shutil.move(storage, tmp_path / "moved"))
    protect(storage)
    yield storage
    protect(storage, writable=True)


def read(nursery: Nursery, storage: Path, key: str, to: Path) -> dict[str, Ended]:
    commands = {
        "status": ["smoke"], "plan": ["smoke", *CHOSEN], "results": ["smoke", *CHOSEN], "overlap": ["smoke"], "verify": ["smoke"],
        "logs": [key], "archive": ["smoke", f"--to={to / 'a.zip'}"], "export": [key, f"--to={to / 'policy'}"],
    }  # fmt: skip
    return {name: nursery.run(name, *more, f"--storage={storage}", faults=["no_rights"]) for name, more in commands.items()}


def test_what_only_reads_needs_no_permission_to_write(nursery: Nursery, finished: Path, twin: Twin, tmp_path: Path, record: Record) -> None:
    before = state(finished)
    told = read(nursery, finished, next(iter(twin.states)), tmp_path)
    assert {name: ended.out for name, ended in told.items() if ended.code or "Traceback" in ended.out} == {}
    assert "2 done; nobody runs it now" in told["status"].out
    assert "90 %" in told["results"].out
    assert f"{paths.figure(finished, 'smoke')} is not written: Permission denied" in told["results"].out
    assert "MLflow holds exactly what they wrote" in told["verify"].out
    assert state(finished) == before
    record(f"storage that may only be read ({finished.name}): status, plan, results, overlap, verify, logs, archive, export", kills="")


@pytest.mark.slow_faults
def test_so_does_a_report_to_elsewhere(nursery: Nursery, finished: Path, tmp_path: Path, record: Record) -> None:
    before = state(finished)
    ended = nursery.run("report", "smoke", f"--storage={finished}", f"--to={tmp_path / 'report'}", faults=["no_rights"])
    assert ended.code == 0, ended.out
    assert "not logged in MLflow, which may only be read here" in ended.out
    assert "missing" not in ended.out
    assert (tmp_path / "report" / "page.html").exists()
    assert state(finished) == before
    record("storage that may only be read: report --to", kills="")


def test_what_writes_is_refused_in_one_line(nursery: Nursery, finished: Path, tmp_path: Path) -> None:
    before = state(finished)
    ended = nursery.run(*arguments(finished, updates="60"), faults=["no_rights"])
    assert ended.code == 2
    assert "Traceback" not in ended.out
    assert "Permission denied" in ended.out
    assert state(finished) == before


def test_a_driver_is_seen_by_who_may_only_read(nursery: Nursery, fresh: Fresh) -> None:
    """Its lock is looked at without permission to write; a lock file is not made."""
    from service.ledger import lease
    from service.ledger.manifest import Manifest
    from trainables.trial import Trial

    storage = fresh()
    held = Manifest(storage, "smoke")
    held.plan([Trial(dataset="test/hopper/random-v0", algorithm="bc")])
    protect(storage)
    try:
        ended = nursery.run("status", "smoke", f"--storage={storage}", faults=["no_rights"])
    finally:
        protect(storage, writable=True)
    assert f"1 planned; run by {lease.owner()} since" in ended.out
    held.close()
