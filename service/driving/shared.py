"""A sweep's share of a cluster that others use, too: said on the screen, written down for `status`; and which stacks have left for it."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from service.planning.options import TrainingOptions
from service.scheduling.shares import Share
from service.storage import paths, shared_files
from service.terminal.display import Notes
from trainables.trial import Stack

WRITE_EVERY = 2.0  # seconds between two writes at least


class Shared:
    """Of one run."""

    def __init__(self, storage: Path, sweep: str, screen: Notes, options: TrainingOptions) -> None:
        self._file, self._screen, self._options = paths.share(storage, sweep), screen, options
        self._others: tuple[str, ...] = ()
        self._known: dict[str, Any] = {}
        self._written = 0.0
        self._leaving: set[str] = set()  # by the first trial's key

    def forget(self) -> None:
        """Remove what a driver that was killed has left."""
        self._write({})

    def is_now(self, share: Share) -> None:
        """Say it where others come or go, and write it where it changes."""
        about: dict[str, Any] = {}
        if share.others:
            about = {"places": dict(share.places), "whole": dict(share.whole), "others": list(share.others)}
            about |= {"weight": self._options.weight, "priority": self._options.priority}
            about["text"] = f"{share}; weight {self._options.weight:g}, priority {self._options.priority}"
        if share.others != self._others:
            self._others = share.others
            self._screen.note(about.get("text", "no other sweep shares the cluster any more"))
        if about != self._known and time.monotonic() - self._written > WRITE_EVERY:
            self._write(about)

    def leaves(self, stack: Stack) -> None:
        """A stack is asked to leave its place."""
        self._leaving.add(stack.lead.key)

    def why_left(self, stack: Stack) -> dict[str, str] | None:
        """What the journal says of a stack that has left its place; None of any other."""
        left = stack.lead.key in self._leaving
        return {"reason": "gives way", "message": "its place is another sweep's now"} if left else None

    def ended(self, stack: Stack) -> None:
        self._leaving.discard(stack.lead.key)

    def _write(self, about: dict[str, Any]) -> None:
        """For `status`, on whatever host."""
        self._known, self._written = about, time.monotonic()
        shared_files.tell(self._file, about)
