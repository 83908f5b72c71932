"""A run that ends at a limit is one that was asked to leave: run again, it ends as if it had never been limited."""

from __future__ import annotations

import re
import signal
import sqlite3
from pathlib import Path

import pytest

from service.ledger import manifest
from service.storage import paths

from ..conftest import QUICK, Fresh, Record, arguments
from ..support.harness import Process, driver, wait_for
from ..support.invariants import SWEEP, Twin, attempts, check, redone, twin_of
from ..support.nursery import Nursery

AT_ONCE = "--max-core-hours=1e-9"  # reached with the first report
SAYS = r"^limit reached \(--max-core-hours=1e-09\); kept ([\d,]+) of \1 updates; `winnow run .*` continues from the checkpoints$"


def test_a_sweep_that_ends_at_its_limit_again_and_again_is_the_same_in_the_end(
    nursery: Nursery, fresh: Fresh, twin: Twin, record: Record
) -> None:
    storage = fresh()
    faults = [*QUICK, "news_at_once", f"work={storage / 'work'}"]
    for _ in range(4):
        ended = nursery.run(*arguments(storage, size=1), AT_ONCE, faults=faults)
        assert ended.code == 130, ended.out
        assert re.search(SAYS, ended.out, re.M), ended.out
        assert manifest.read(storage, SWEEP).limit == "--max-core-hours=1e-09"
    ended = nursery.run(*arguments(storage, size=1), faults=faults)
    assert (ended.code, manifest.read(storage, SWEEP).limit) == (0, ""), ended.out
    assert nursery.run("sync", SWEEP, f"--storage={storage}", faults=["no_table"]).code == 0
    assert check(storage, twin) == []
    assert redone(storage / "work") == 0
    record("limit reached at the first report, four times", kills=4, redone=0)


def test_mlflow_and_the_report_say_so(nursery: Nursery, fresh: Fresh) -> None:
    storage = fresh()
    ended = nursery.run(*arguments(storage, size=1), AT_ONCE, faults=["no_table", "news_at_once"])
    assert ended.code == 130, ended.out
    with sqlite3.connect(paths.mlflow_db(storage)) as database:
        tags = "SELECT t.value FROM runs r JOIN tags t ON t.run_uuid = r.run_uuid WHERE r.status = 'KILLED' AND t.key = 'winnow.reason'"
        assert database.execute(tags).fetchall() == [("limit",), ("limit",)], "the sweep's run, and that of the trial in training"
    nursery.run("report", SWEEP, f"--storage={storage}")
    page = (paths.report(storage, SWEEP) / "page.html").read_text()
    assert "limit reached (--max-core-hours=1e-09)" in page
    results = nursery.run("results", SWEEP, f"--storage={storage}", *arguments(storage)[6:])
    assert "limit reached" in results.out


def test_a_batch_system_s_warning_lets_real_workers_commit(
    environment: dict[str, str], fresh: Fresh, twin: Twin, started: list[Process], record: Record, tmp_path: Path
) -> None:
    """SIGUSR1, which Tune would take for itself: it would end the run as if it were done, and without a commit."""
    storage, until = fresh(), tmp_path / "wait"
    until.touch()
    switches = " ".join((*QUICK, f"slow_while={until}", f"work={storage / 'work'}"))
    run = driver(arguments(storage), environment, storage / "log", FAULTS=switches)
    started.append(run)
    wait_for(lambda: any(each.last - each.first >= 5 for each in attempts(storage / "work") if each.first >= 0), run)
    run.signal(signal.SIGUSR1)
    assert run.wait() == 130, run.out
    assert "limit reached (SIGUSR1: the job's time is nearly up); kept " in run.out
    until.unlink()
    again = driver(arguments(storage), environment, storage / "log", FAULTS=switches)
    started.append(again)
    assert again.wait() == 0, again.out
    assert check(storage, twin, tracking=None) == []
    assert redone(storage / "work") == 0
    record("SIGUSR1, real Ray: workers commit, then the run goes on", kills=1, redone=0)


@pytest.mark.slow_faults
def test_real_workers_commit_what_they_have(
    nursery: Nursery, environment: dict[str, str], fresh: Fresh, started: list[Process], record: Record
) -> None:
    alone, storage, longer = fresh(), fresh(), {"updates": "6000"}
    assert nursery.run(*arguments(alone, size=1, **longer), faults=["no_table"]).code == 0
    # At once, then after so many seconds of two workers, their start included, that they are in training or done; then without one.
    for hours, codes in ((1e-9, (130,)), (12 / 3600, (130, 0)), (1000, (0,))):
        run = driver([*arguments(storage, size=1, **longer), f"--max-core-hours={hours}"], environment, storage / "log", FAULTS="no_table")
        started.append(run)
        assert run.wait() in codes, run.out
        assert ("limit reached (--max-core-hours=" in run.out) == (run.wait() == 130), run.out
        assert "Traceback" not in run.out
    assert check(storage, twin_of(alone)) == []
    record("limit reached twice, real Ray: workers commit, then the run goes on", kills=2)
