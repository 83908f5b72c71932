"""What the ledger refuses."""

from __future__ import annotations


class IllegalTransitionError(RuntimeError):
    """A state that cannot follow; the message tells all that happened to the trial."""


class StaleEpochError(RuntimeError):
    """An event of a driver whose lease another has taken over."""
