"""Who may write: leases across kernels (another host is another kernel and sees no flock), heartbeats, workers' claims."""

from __future__ import annotations

import errno
import itertools
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from operator import attrgetter
from pathlib import Path

import pytest
from botocore.parsers import ResponseParserError

from service.ledger import lease
from service.ledger.claims import Permit
from service.ledger.heartbeat import Heartbeat
from service.ledger.lease import Lease
from service.ledger.manifest import Manifest, read
from service.storage import paths
from tests.faults.support.harness import wait_for
from trainables.errors import SupersededError, UserError
from trainables.trial import Trial

TRIAL = Trial(dataset="test/hopper/random-v0", algorithm="bc")
KERNELS = itertools.count()


@pytest.fixture
def another_host(monkeypatch: pytest.MonkeyPatch):
    """From now on this process is a driver on another host: another kernel, where no flock of the ones before is seen."""

    def move() -> None:
        number = next(KERNELS)
        monkeypatch.setattr(lease, "kernel", lambda: f"kernel {number}")
        monkeypatch.setattr(lease, "owner", lambda: f"host{number}:1")
        flock = lease.flock.__wrapped__ if hasattr(lease.flock, "__wrapped__") else lease.flock

        def elsewhere(path: Path) -> int | None:
            return flock(path.with_name(f"lock-of-{number}"))

        elsewhere.__wrapped__ = flock  # type: ignore[attr-defined]
        monkeypatch.setattr(lease, "flock", elsewhere)

    return move


@pytest.fixture
def beating() -> Iterator:
    """`beating(lease)`: a heart that beats fast until the test ends."""
    over = threading.Event()
    threads = []

    def start(held: Lease) -> None:
        def beat() -> None:
            while not over.wait(0.02):
                held.beat()

        threads.append(threading.Thread(target=beat))
        threads[-1].start()

    yield start
    over.set()
    for thread in threads:
        thread.join()


def test_a_full_disk_leaves_no_empty_lease_that_the_next_driver_would_watch(tmp_path: Path, another_host, monkeypatch) -> None:
    another_host()
    with monkeypatch.context() as patch:
        patch.setattr(os, "write", lambda file, content: (_ for _ in ()).throw(OSError(errno.ENOSPC, "No space left on device")))
        with pytest.raises(OSError, match="No space left"):
            Lease(tmp_path, "smoke")
    another_host()
    assert Lease(tmp_path, "smoke").epoch == 1


def test_a_driver_of_another_host_that_shows_life_keeps_the_lease(tmp_path: Path, another_host, beating) -> None:
    another_host()
    held = Lease(tmp_path, "smoke")
    beating(held)
    first = lease.holder(tmp_path, "smoke")
    another_host()
    with pytest.raises(UserError, match=rf"'smoke' is being run by {first['owner']} since {first['since']}; wait for it, or .* stop smoke"):
        Lease(tmp_path, "smoke", bound=60)
    held.check()
    assert lease.alive(tmp_path, "smoke", patience=60)


def test_a_silent_driver_of_another_host_is_taken_over_and_can_write_nothing_more(tmp_path: Path, another_host) -> None:
    another_host()
    stale = Manifest(tmp_path, "smoke")
    stale.plan([TRIAL])
    permit = Permit(tmp_path, "smoke", stale.lease.epoch)
    claim = permit.claim([TRIAL.key])
    claim.check()
    another_host()
    taken = Lease(tmp_path, "smoke", bound=0.1)
    assert taken.epoch == stale.lease.epoch + 1
    before = paths.manifest(tmp_path, "smoke").read_bytes()
    with pytest.raises(SupersededError, match="epoch 1 is over: held by host"):
        stale.record("leased", {TRIAL.key: {}})
    assert paths.manifest(tmp_path, "smoke").read_bytes() == before
    for write in (claim.check, lambda: permit.claim([TRIAL.key])):
        with pytest.raises(SupersededError, match="epoch 1 is over"):
            write()
    taken.check()
    stale.close()  # and its release takes nothing from the new one
    taken.check()
    assert not stale.lease.ended
    taken.release()
    assert taken.ended


def test_clocks_do_not_matter(tmp_path: Path, another_host, beating, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither a clock that jumps nor hosts that disagree by days make a live driver dead, or a dead one live."""
    another_host()
    live = Lease(tmp_path, "smoke")
    beating(live)
    clock = time.time
    for jump in (-1e6, 1e6):
        another_host()
        monkeypatch.setattr(time, "time", lambda jump=jump: clock() + jump)
        with pytest.raises(UserError, match="is being run by"):
            Lease(tmp_path, "smoke", bound=60)
    Lease(tmp_path, "quickstart")  # never beats
    another_host()
    monkeypatch.setattr(time, "time", lambda: clock() - 1e6)
    Lease(tmp_path, "quickstart", bound=0.1)


def test_what_a_superseded_driver_still_got_into_the_journal_is_no_event(tmp_path: Path) -> None:
    """Between its check and its write a driver can be stopped for any time; whoever reads then knows by the epoch."""
    manifest = Manifest(tmp_path, "smoke")
    manifest.plan([TRIAL])
    manifest.close()
    late = paths.manifest(tmp_path, "smoke").read_text().splitlines()[-1].replace('"planned"', '"leased"')
    Manifest(tmp_path, "smoke").close()
    with paths.manifest(tmp_path, "smoke").open("a") as file:
        file.write(late + "\n")
    assert read(tmp_path, "smoke").state(TRIAL.key) == "planned"
    manifest = Manifest(tmp_path, "smoke")
    manifest.record("leased", {TRIAL.key: {}})
    manifest.close()


def test_a_killed_driver_of_this_host_leaves_nothing_to_wait_for(tmp_path: Path) -> None:
    program = (
        "import os, sys; from pathlib import Path; from service.ledger.lease import Lease; Lease(Path(sys.argv[1]), 'smoke'); os._exit(9)"
    )
    subprocess.run([sys.executable, "-c", program, str(tmp_path)], check=False)
    assert not lease.alive(tmp_path, "smoke")
    assert Lease(tmp_path, "smoke", bound=1e9).epoch == 2


def test_a_driver_of_this_host_is_alive_by_its_lock_without_a_heartbeat(tmp_path: Path) -> None:
    """One that is stopped, or that waits for a disk, is not dead; and nobody waits to know it."""
    held = Lease(tmp_path, "smoke")
    assert lease.alive(tmp_path, "smoke", patience=0)
    held.release()
    assert not lease.alive(tmp_path, "smoke", patience=0)


def test_a_release_fences_off_the_workers_and_lets_the_next_driver_in_at_once(tmp_path: Path, another_host) -> None:
    another_host()
    held = Lease(tmp_path, "smoke")
    claim = Permit(tmp_path, "smoke", held.epoch).claim([TRIAL.key])
    held.release()
    with pytest.raises(SupersededError, match="epoch 1 is over: released by host"):
        claim.check()
    assert not lease.alive(tmp_path, "smoke", patience=0)
    another_host()
    assert Lease(tmp_path, "smoke", bound=1e9).epoch == 3


def test_of_two_attempts_at_a_trial_the_older_may_write_no_more(tmp_path: Path) -> None:
    permit = Permit(tmp_path, "smoke", Lease(tmp_path, "smoke").epoch)
    other = Trial(dataset=TRIAL.dataset, algorithm="bc", seed=1)
    older = permit.claim([TRIAL.key, other.key])
    older.check()
    newer = permit.claim([other.key])
    with pytest.raises(SupersededError, match=rf"{other.key} is trained by smoke 1 {lease.owner()}$"):
        older.check()
    newer.check()
    paths.attempt(tmp_path, other.key).unlink()  # as `forget` does
    with pytest.raises(SupersededError, match=f"{other.key} is trained by nobody"):
        newer.check()


def test_two_drivers_that_take_over_at_once_get_different_epochs(tmp_path: Path) -> None:
    folder = paths.leases(tmp_path, "smoke")
    folder.mkdir(parents=True)
    lease._create(folder, 1, {"state": "held", "owner": "a:1"})
    with pytest.raises(FileExistsError):
        lease._create(folder, 1, {"state": "held", "owner": "b:1"})
    assert lease.holder(tmp_path, "smoke")["owner"] == "a:1"


def test_a_driver_that_another_host_was_faster_than_takes_the_next_epoch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    create, lost = lease._create, list[int]()

    def faster(folder: Path, epoch: int, about: dict[str, str]) -> None:
        if not lost:
            lost.append(epoch)
            create(folder, epoch, {"state": "held", "owner": "b:1", "kernel": "another", "since": "now"})
        create(folder, epoch, about)

    monkeypatch.setattr(lease, "_create", faster)
    taken = Lease(tmp_path, "smoke", bound=0.1)
    assert (lost, taken.epoch) == ([1], 2)
    assert lease.holder(tmp_path, "smoke")["owner"] == taken.owner
    taken.check()
    taken.release()


def test_a_request_to_stop_the_run_before_does_not_stop_the_next_one(tmp_path: Path) -> None:
    """Its driver may have died before it read the request."""
    request = paths.stop_request(tmp_path, "smoke")
    request.parent.mkdir(parents=True)
    request.touch()
    held = Lease(tmp_path, "smoke")
    assert not request.exists()
    held.release()


@pytest.mark.parametrize(
    "error", [OSError(28, "No space left on device"), UserError("the credentials have expired"), ResponseParserError("<html>")]
)
def test_a_heart_beats_on_after_what_may_pass(error: Exception, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lease, "BEAT", 0.01)
    held, told, check = Lease(tmp_path, "smoke"), list[str](), Lease.check
    errors = [error] * 3

    def sometimes(self: Lease) -> None:
        if errors:
            raise errors.pop()
        check(self)

    monkeypatch.setattr(Lease, "check", sometimes)
    _, before = lease.newest(tmp_path, "smoke")
    with Heartbeat(held, paths.stop_request(tmp_path, "smoke"), told.append):
        until = time.monotonic() + 30
        while lease.newest(tmp_path, "smoke")[1] == before and time.monotonic() < until:
            time.sleep(0.01)
        assert lease.newest(tmp_path, "smoke")[1] != before
        assert told == []
        paths.stop_request(tmp_path, "smoke").touch()
        while not told and time.monotonic() < until:
            time.sleep(0.01)
    assert told == ["asked to stop"]
    held.release()


def test_a_heart_does_not_take_its_own_release_for_another_driver(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lease, "BEAT", 0.01)
    held, told, looks, check = Lease(tmp_path, "smoke"), [], [], Lease.check

    def counted(self: Lease) -> None:
        looks.append(self.held)
        check(self)

    monkeypatch.setattr(Lease, "check", counted)
    with Heartbeat(held, paths.stop_request(tmp_path, "smoke"), told.append):
        held.release()
        wait_for(lambda: False in looks)
    assert told == []


def test_no_beat_comes_after_the_heartbeat_has_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On S3 it would make the file of a removed lease again."""
    monkeypatch.setattr(lease, "BEAT", 0.01)
    held, under_way, ended = Lease(tmp_path, "smoke"), threading.Event(), list[bool]()

    def slow(self: Lease) -> None:
        under_way.set()
        time.sleep(0.2)
        ended.append(True)

    monkeypatch.setattr(Lease, "beat", slow)
    with Heartbeat(held, paths.stop_request(tmp_path, "smoke"), lambda why: None):
        under_way.wait()
    assert ended, "a beat was under way, and was waited for"
    assert not any(thread.name == "heartbeat" for thread in threading.enumerate())
    held.release()


@pytest.mark.parametrize("fails", ["_read", "shared_files.remove"])
def test_what_fails_after_the_lease_was_taken_does_not_keep_it(fails: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same process, a notebook's or a script's, may try again."""
    works, left = attrgetter(fails)(lease), [OSError(errno.ENOSPC, "No space left on device")]

    def sometimes(*arguments: object) -> object:
        if left:
            raise left.pop()
        return works(*arguments)

    monkeypatch.setattr(f"service.ledger.lease.{fails}", sometimes)
    with pytest.raises(OSError, match="No space left"):
        Lease(tmp_path, "smoke")
    Lease(tmp_path, "smoke").release()
