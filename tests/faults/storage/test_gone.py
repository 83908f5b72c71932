"""A storage that is removed, or removed and begun anew, under a run: the run leaves within a heartbeat, and writes nothing there."""

from __future__ import annotations

import shutil
import time
from pathlib import Path

import pytest

from service.ledger import lease
from service.ledger.claims import Permit
from service.ledger.errors import GoneError
from service.ledger.heartbeat import Heartbeat
from service.ledger.lease import Lease
from service.ledger.manifest import Manifest, read
from service.storage import paths
from tests.s3 import Server
from trainables.trial import Trial

from ..conftest import QUICK, Fresh, Record, arguments
from ..support.harness import descendants, driver, title, wait_for, workers
from ..support.nursery import Nursery

TRIAL = Trial(dataset="test/hopper/random-v0", algorithm="bc")


@pytest.fixture
def begun(nursery: Nursery, fresh: Fresh) -> Path:
    """A storage in which a driver was killed."""
    storage = fresh()
    assert nursery.run(*arguments(storage), faults=[*QUICK, "die_after=Trained@30"]).code == 137
    return storage


def content(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("moment", ["Trained@20", "Trained@50", "Finished@50"])
def test_a_storage_that_is_removed_ends_the_run(nursery: Nursery, fresh: Fresh, moment: str, record: Record) -> None:
    """With MLflow, whose shipper must not make it again either."""
    storage = fresh()
    ended = nursery.run(*arguments(storage), faults=[f"remove_after={moment}:{storage}", "ships_every=0.1", "slow=10"])
    assert ended.code == 1, ended.out
    (line,) = [line for line in ended.out.splitlines() if "is gone: the storage was removed under this run" in line]
    assert line.startswith(("this driver of sweep 'smoke' has left: ", "left at once ("))  # where the machine is too busy for the former
    assert "Traceback" not in ended.out
    assert "score:" not in ended.out
    assert not storage.exists()
    record(f"storage removed under a run after {moment}: it leaves with one line", kills="")


def test_without_that_it_is_made_again(nursery: Nursery, fresh: Fresh) -> None:
    storage = fresh()
    ended = nursery.run(*arguments(storage), faults=[*QUICK, f"remove_after=Finished@50:{storage}", "no_lease_token"])
    assert ended.code != 1 or storage.exists(), ended.out


def test_a_storage_begun_anew_is_left_to_its_new_driver(nursery: Nursery, fresh: Fresh, begun: Path, record: Record) -> None:
    """The new driver's epoch has the same number."""
    storage, before = fresh(), content(begun)
    ended = nursery.run(*arguments(storage), faults=[*QUICK, f"replace_after=Trained@30:{storage}:{begun}"])
    assert ended.code == 1, ended.out
    (line,) = [line for line in ended.out.splitlines() if "is another run's: the storage was removed and begun anew" in line]
    assert line.startswith(("this driver of sweep 'smoke' has left: ", "left at once ("))
    assert content(storage) == before
    record("storage begun anew under a run: the old driver leaves it alone", kills="")


def test_without_that_the_old_driver_fences_the_new_one(nursery: Nursery, fresh: Fresh, begun: Path) -> None:
    storage, before = fresh(), content(begun)
    nursery.run(*arguments(storage), faults=[*QUICK, f"replace_after=Trained@30:{storage}:{begun}", "no_lease_token"])
    after = content(storage)
    assert "sweeps/smoke/lease/000002.json" in after.keys() - before.keys()


def test_two_drivers_of_one_path_are_two(tmp_path: Path) -> None:
    storage = tmp_path / "storage"
    old = Manifest(storage, "smoke")
    old.plan([TRIAL])
    claim = Permit(storage, "smoke", old.lease.epoch, old.lease.token).claim([TRIAL.key])
    shutil.rmtree(storage)
    new = Manifest(storage, "smoke")
    new.plan([TRIAL])
    before = content(storage)
    for write in (lambda: old.record("leased", {TRIAL.key: {}}), claim.check, old.lease.check):
        with pytest.raises(GoneError, match="the storage was removed and begun anew under this run"):
            write()
    old.close()
    assert content(storage) == before
    new.record("leased", {TRIAL.key: {}})
    new.close()
    assert read(storage, "smoke").state(TRIAL.key) == "leased"


def test_a_journal_that_was_replaced_takes_no_event(tmp_path: Path) -> None:
    """A backup of the storage was put back: its lease is the run's, its journal is another file."""
    storage = tmp_path / "storage"
    held = Manifest(storage, "smoke")
    shutil.copytree(storage, tmp_path / "backup")
    shutil.rmtree(storage)
    (tmp_path / "backup").rename(storage)
    with pytest.raises(GoneError, match="is not the file that this run has opened"):
        held.plan([TRIAL])
    assert held.ledger.entries == {}
    held.close()


@pytest.mark.parametrize("anew", [False, True])
def test_a_heart_notices_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, anew: bool) -> None:
    monkeypatch.setattr(lease, "BEAT", 0.02)
    storage, told = tmp_path / "storage", list[tuple[object, ...]]()
    held = Lease(storage, "smoke")
    with Heartbeat(held, paths.stop_request(storage, "smoke"), lambda *why: told.append(why)):
        shutil.rmtree(storage)
        other = Lease(storage, "smoke") if anew else None
        until = time.monotonic() + 30
        while not told and time.monotonic() < until:
            time.sleep(0.01)
    ((why, code),) = told
    assert code == 1
    assert ("begun anew" if anew else "was removed") in str(why)
    held.release()
    assert not other or (other.check() is None and len([*paths.leases(storage, "smoke").iterdir()]) == 1)
    assert anew or not storage.exists()


def test_on_s3_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    server = Server(tmp_path / "log")
    try:
        for name, value in (server.environment | {"WINNOW_CACHE": str(tmp_path / "a")}).items():
            monkeypatch.setenv(name, value)
        url, client = server.bucket("anew") + "/below", server.client()
        old = Manifest(paths.root(url), "smoke")
        old.plan([TRIAL])
        claim = Permit(paths.root(url), "smoke", old.lease.epoch, old.lease.token).claim([TRIAL.key])

        def objects() -> dict[str, str]:
            return {item["Key"]: item["ETag"] for item in client.list_objects_v2(Bucket="anew").get("Contents", [])}

        for key in objects():
            client.delete_object(Bucket="anew", Key=key)
        for write in (lambda: old.record("leased", {TRIAL.key: {}}), claim.commit, old.lease.check):
            with pytest.raises(GoneError, match=r"s3://anew/below/sweeps/smoke/lease/000001.json is gone"):
                write()
        assert objects() == {}
        monkeypatch.setenv("WINNOW_CACHE", str(tmp_path / "b"))
        new = Manifest(paths.root(url), "smoke")
        before = objects()
        for write in (lambda: old.record("leased", {TRIAL.key: {}}), claim.commit, old.lease.check):
            with pytest.raises(GoneError, match="begun anew"):
                write()
        old.close()
        claim.close()
        assert objects() == before
        new.close()
    finally:
        server.end()


@pytest.mark.slow_faults
def test_with_ray_it_ends_within_a_heartbeat(environment: dict[str, str], tmp_path: Path, record: Record) -> None:
    storage = tmp_path / "storage"
    run = driver(arguments(storage, updates="100000"), environment | {"FAULTS": "no_table slow=20"}, tmp_path / "log")
    try:
        wait_for(lambda: [*storage.glob("trials/*/spool.jsonl")] and workers(run.pid), run)
        below = descendants(run.pid)
        begun = time.monotonic()
        storage.rename(tmp_path / "elsewhere")
        assert run.wait() == 1, run.out
        assert time.monotonic() - begun < 120, "a busy machine"
    finally:
        run.end()
    assert "is gone: the storage was removed under this run" in run.out
    assert "Traceback" not in run.out
    assert [*storage.rglob("*")] == []
    assert not storage.exists()
    wait_for(lambda: not any(title(pid) for pid in below))
    record("storage moved away under a run with Ray: it leaves with one line, and so do its workers", kills="")
