"""A worker whose epoch is over, or whose trial another attempt has, trains on into nothing: no line, no checkpoint, no policy."""

from __future__ import annotations

from pathlib import Path

import pytest

from service.driving.listener import Fenced
from service.ledger.claims import Permit
from service.ledger.lease import Lease
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
