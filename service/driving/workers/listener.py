"""What takes a worker's reports: the spools of its stack, behind a fence that keeps a superseded worker from writing."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path

from service.ledger import stop_requests
from service.ledger.claims import Permit
from service.spool.writer import StackSpool
from service.storage import sharing
from trainables.errors import StoppedError
from trainables.reports import Checkpointed, Diverged, Finished, Report
from trainables.trial import Stack

COMMITS = (Checkpointed, Diverged, Finished)


class Fenced(StackSpool):
    """A stack's spool that checks, before it writes, that this attempt may still write, and after a checkpoint whether to stop."""

    def __init__(
        self, stack: Stack, storage: Path, *, permit: Permit, origin: Mapping[str, Mapping[str, str]], checkpoint_every: int
    ) -> None:
        sharing.follow(storage)
        keys = [trial.key for trial in stack.trials]
        self._claim = permit.claim(keys)
        self._asked_to_stop = partial(stop_requests.requested, storage, permit.name, keys)
        super().__init__(stack, self._claim.storage, origin, checkpoint_every)

    def check(self) -> None:
        """Raise SupersededError where another driver or another attempt has taken over."""
        self._claim.check()

    def __call__(self, report: Report) -> None:
        self.check()
        super().__call__(report)
        if isinstance(report, COMMITS):
            self._claim.commit()
        if isinstance(report, Checkpointed) and report.update < self._last and (leaving := self._asked_to_stop()):
            raise StoppedError(", ".join(leaving))

    def close(self) -> None:
        super().close()
        self._claim.close()
