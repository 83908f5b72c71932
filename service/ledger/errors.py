"""Errors of the ledger. Both mean a fault of the service, not of its user."""

from __future__ import annotations


class IllegalTransitionError(RuntimeError):
    """A state that may not follow the current one; the message lists every event of the trial."""


class StaleEpochError(RuntimeError):
    """An event written by a driver whose lease another driver has taken over."""
