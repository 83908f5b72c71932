"""Whole sweeps on real Ray: workers, drivers, raylets and heads die by SIGKILL."""

from __future__ import annotations

import pickle
import random
import signal
import time
from collections import Counter
from pathlib import Path

import pytest

from service.ledger import manifest
from service.spool import lines
from service.storage import paths

from ..conftest import Fresh, Record, arguments
from ..storage.test_security import Trap
from ..support.harness import Process, descendants, driver, kill, open_to_others, title, wait_for
from ..support.invariants import SWEEP, Twin, attempts, check, redone, twin_of
from ..support.nursery import Nursery

pytestmark = pytest.mark.slow_faults

EVERY = 100
SETTINGS = {"seeds": "0,1,2,3", "updates": "1500", "evaluations": "2"}
SLOW = "slow=2"


def given(storage: Path, size: int = 1) -> list[str]:
    return arguments(storage, EVERY, size, **SETTINGS)


@pytest.fixture(scope="module")
def big(nursery: Nursery, fresh: Fresh) -> Twin:
    """Eight trials of 1,500 updates, undisturbed."""
    storage = fresh()
    assert nursery.run(*given(storage, 2), faults=["no_table", "no_mlflow"]).code == 0
    return twin_of(storage)


@pytest.fixture
def place(fresh: Fresh) -> Path:
    return fresh()


def faults(storage: Path, *more: str) -> str:
    return " ".join(["no_table", SLOW, f"work={storage / 'work'}", *more])


def progress(storage: Path, keys: list[str]) -> int:
    """Committed updates of all trials together."""
    return sum(max(0, lines.committed_update(lines.read(paths.spool(storage, key)))) for key in keys)


def test_24_workers_killed_at_random_moments(
    environment: dict[str, str], place: Path, big: Twin, started: list[Process], record: Record
) -> None:
    """Three times per trial at most, which Ray's retries cover; what has gone to the end is asked for once more."""
    draw, wanted, killed = random.Random(0), 24, Counter[str]()
    moments: dict[int, float] = {}  # when each attempt, by its number, is to die
    code = -1
    for _ in range(4):
        run = driver([*given(place), "--retry-failed"], environment, place / "log", FAULTS=faults(place))
        started.append(run)
        while run.runs():
            newest = {attempt.pid: (number, attempt) for number, attempt in enumerate(attempts(place / "work"))}
            for pid, (number, attempt) in newest.items():
                moment = moments.setdefault(number, time.monotonic() + draw.uniform(0, 3))
                if time.monotonic() > moment and killed[attempt.keys[0]] < 3 and killed.total() < wanted and title(pid).startswith("ray::"):
                    kill(pid)
                    killed[attempt.keys[0]] += 1
                    moments[number] = float("inf")
            time.sleep(0.02)
        code = run.wait()
        if code == 0:
            break
    assert code == 0, run.out
    assert killed.total() >= 20
    tried = [event.detail for entry in manifest.read(place, SWEEP).entries.values() for event in entry.events if event.detail.get("retry")]
    assert sum("resumed" not in detail for detail in tried) > killed.total() / 2  # by the driver itself, not by being run again
    assert check(place, big) == []
    most = redone(place / "work")
    assert most <= EVERY
    record("worker SIGKILL at random moments", kills=killed.total(), redone=most)


def test_the_driver_killed_at_random_moments(
    environment: dict[str, str], place: Path, big: Twin, started: list[Process], record: Record, tmp_path: Path
) -> None:
    """With it goes its Ray. In between, a second driver is refused, and Tune's own state is replaced by rubbish and traps."""
    draw, keys, mark, slow = random.Random(1), list(big.states), tmp_path / "mark", tmp_path / "slow"
    slow.touch()
    for number in range(3):
        run = driver(given(place, 2), environment, place / "log", FAULTS=f"{faults(place)} slow_while={slow}")
        started.append(run)
        before = progress(place, keys)
        wait_for(lambda now=before: progress(place, keys) > now, run)
        if number == 0:
            everyone = [run.pid, *descendants(run.pid)]
            assert open_to_others(everyone) == set()
            second = driver(given(place, 2), environment, place / "second", FAULTS=faults(place))
            assert second.wait() == 2
            assert "sweep 'smoke' is being run by" in second.out
            assert str(run.pid) in second.out
            assert "Traceback" not in second.out
        time.sleep(draw.uniform(0, 2))
        below = descendants(run.pid)
        run.kill()
        wait_for(lambda below=below: not any("ray" in title(pid) for pid in below))
        assert check(place, big, tracking=None)  # it was not over
        damage_tune(place, mark, everything=number > 0)
    slow.unlink()
    last = driver(given(place, 2), environment, place / "log", FAULTS=faults(place))
    started.append(last)
    assert last.wait() == 0, last.out
    assert not mark.exists()
    assert check(place, big) == []
    most = redone(place / "work")
    assert most <= EVERY
    record("driver SIGKILL at random moments; Tune's state damaged in between; a second driver refused", kills=3, redone=most)


@pytest.mark.parametrize("everything", [False, True], ids=["pickles", "everything"])
def test_without_the_manifest_tune_s_state_would_be_believed(
    environment: dict[str, str], place: Path, big: Twin, started: list[Process], tmp_path: Path, everything: bool
) -> None:
    run = driver(given(place, 2), environment, place / "log", FAULTS=faults(place))
    started.append(run)
    wait_for(lambda: progress(place, list(big.states)) > 0, run)
    below = descendants(run.pid)
    run.kill()
    wait_for(lambda: not any("ray" in title(pid) for pid in below))
    damage_tune(place, tmp_path / "mark", everything)
    last = driver(given(place, 2), environment, place / "log", FAULTS=faults(place, "tune_restored"))
    started.append(last)
    assert last.wait() != 0
    assert (tmp_path / "mark").exists(), last.out


def damage_tune(place: Path, mark: Path, everything: bool) -> None:
    """A trap in place of each pickle of Tune's, or of every file; where not, the others are cut short."""
    left = [path for path in paths.ray_results(place).rglob("*") if path.is_file()]
    assert any(path.suffix == ".pkl" for path in left)
    for path in left:
        path.write_bytes(pickle.dumps(Trap(mark)) if path.suffix == ".pkl" or everything else path.read_bytes()[:100])


def test_the_driver_asked_to_leave_by_sigint_and_sigterm(
    environment: dict[str, str], place: Path, big: Twin, started: list[Process], record: Record
) -> None:
    """It gives back what it has not done, ends its Ray and leaves by itself; how fast depends on the machine and is told.
    Its workers commit what they have done before, and its last line says how much that is.

    The second time it is held up between the first and the second process that it kills."""
    told = []
    for number, more in ((signal.SIGINT, ()), (signal.SIGTERM, ("halts_in_killing=1",))):
        run = driver(given(place, 2), environment, place / "log", FAULTS=faults(place, *more))
        started.append(run)
        before = progress(place, list(big.states))
        wait_for(lambda now=before: progress(place, list(big.states)) > now, run)
        below = descendants(run.pid)
        asked = time.monotonic()
        run.signal(number)
        assert run.wait() == 130, run.out
        assert f"interrupted ({number.name})" in run.out or f"left at once ({number.name})" in run.out
        assert "Traceback" not in run.out
        ledger = manifest.read(place, SWEEP)
        assert not ledger.keys_in("leased")
        kept = ledger.kept(ledger.epoch)
        assert kept in run.out or "left at once" in run.out
        told.append(f"{number.name} (gone after {time.monotonic() - asked:.1f} s, {kept}{', held up for a second' if more else ''})")
        wait_for(lambda below=below: not any("ray" in title(pid) for pid in below))
        assert check(place, big, tracking=None)  # it was not over
    assert progress(place, list(big.states)) % EVERY, "not only what the checkpoints at intervals hold"
    last = driver(given(place, 2), environment, place / "log", FAULTS=faults(place))
    started.append(last)
    assert last.wait() == 0, last.out
    assert check(place, big) == []
    most = redone(place / "work")
    assert most <= EVERY
    record(f"driver gets {', then '.join(told)}", kills=2, redone=most)
