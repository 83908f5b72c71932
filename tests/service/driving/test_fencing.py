"""A worker whose epoch is over, or whose trial another attempt has, trains on into nothing: no line, no checkpoint, no policy."""

from __future__ import annotations

from pathlib import Path

import pytest

from service.driving.workers.listener import Fenced
from service.ledger.claims import Permit
from service.ledger.lease import Lease
from service.spool.writer import StackSpool
from service.storage import paths
from trainables.errors import SupersededError
from trainables.reports import Evaluated, Report, Trained
from trainables.run import run_stack
from trainables.trial import Stack, Trial


def written(storage: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in paths.trials(storage).rglob("*") if path.is_file()}


def supersede(how: str, lease: Lease, permit: Permit, stack: Stack) -> None:
    if how == "epoch":
        lease.release()
    else:
        permit.claim(trial.key for trial in stack.trials)


@pytest.mark.parametrize("how", ["epoch", "attempt"])
@pytest.mark.parametrize("last", [Trained, Evaluated])
def test_a_superseded_worker_writes_nothing_more(how: str, last: type[Report], tmp_path: Path, hopper: str) -> None:
    """`last` is the report that it has passed on before: in the middle of training, and just before the final checkpoint."""
    stack = Stack((Trial(dataset=hopper, algorithm="bc", updates=20, evaluations=1, episodes=1),))
    lease = Lease(tmp_path, "smoke")
    permit = Permit(tmp_path, "smoke", lease.epoch)
    listener = Fenced(stack, tmp_path, permit=permit, origin={hopper: {}}, checkpoint_every=10)
    reports = run_stack(stack, tmp_path, checkpoint_every=10, before_write=listener.check)
    for report in reports:
        listener(report)
        if isinstance(report, last):
            break
    supersede(how, lease, permit, stack)
    before = written(tmp_path)
    assert before
    with pytest.raises(SupersededError):
        list(map(listener, reports))
    listener.close()
    assert written(tmp_path) == before


@pytest.mark.parametrize("write", ["masks", "checkpoint", "policy"])
def test_a_storage_that_is_removed_just_before_a_write_is_not_made_again(write: str, tmp_path: Path, hopper: str) -> None:
    """Between the question whether a worker may write and what it writes."""
    stack = Stack((Trial(dataset=hopper, algorithm="bc", updates=20, evaluations=1, episodes=1),))
    asked: list[bool] = []

    def train(storage: Path, removed_at: int) -> None:
        def before_write() -> None:
            asked.append(True)
            if len(asked) == removed_at:
                storage.rename(tmp_path / "elsewhere")

        storage.mkdir()
        list(run_stack(stack, storage, checkpoint_every=10, before_write=before_write))

    train(tmp_path / "whole", 0)
    at = {"masks": 1, "checkpoint": 2, "policy": len(asked)}[write]
    assert (tmp_path / "whole" / "trials").is_dir()
    asked.clear()
    with pytest.raises(FileNotFoundError):
        train(tmp_path / "storage", at)
    assert not (tmp_path / "storage").exists()


def test_nor_by_a_spool_that_is_opened_then(tmp_path: Path, hopper: str) -> None:
    storage, stack = tmp_path / "storage", Stack((Trial(dataset=hopper, algorithm="bc"),))
    spool = StackSpool(stack, storage, {hopper: {}}, 10)
    with pytest.raises(FileNotFoundError):
        spool(Trained(1, [{}], 1.0))
    storage.mkdir()
    spool(Trained(1, [{}], 1.0))
    spool.close()
    assert paths.spool(storage, stack.lead.key).exists()
