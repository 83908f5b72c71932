"""Errors of the ledger. All but GoneError mean a fault of the service, not of its user."""

from __future__ import annotations

from trainables.errors import SupersededError


class IllegalTransitionError(RuntimeError):
    """A state that may not follow the current one; the message lists every event of the trial."""


class GoneError(SupersededError):
    """The storage was removed under a run, or removed and started over: nothing of the run may be written there.

    A worker also raises it where its host does not see the driver's storage. Only the driver can tell: service/driving/endings.py."""

    kind = "gone"


class StaleEpochError(RuntimeError):
    """An event written by a driver whose lease another driver has taken over."""
