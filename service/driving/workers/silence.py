"""Stalled workers: named on the screen, written down for `status`, and ended where the user has set a limit."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from service.driving.workers.pace import Pace
from service.storage import paths, shared_files
from service.terminal.display import Notes
from service.terminal.words import duration
from trainables.trial import Stack

WRITE_EVERY = 10.0  # seconds between two writes of which workers are silent


class Silence:
    """Which of the stacks in training are silent, by the key of their first trial; `limit` is in seconds, None for no limit."""

    def __init__(
        self, storage: Path, sweep: str, screen: Notes, limit: float | None, tell: Callable[[str, str], None] = lambda event, text: None
    ) -> None:
        """`tell` takes the news of a stalled worker: service/driving/news.py."""
        self._file, self._screen, self._limit, self._tell = paths.silent(storage, sweep), screen, limit, tell
        self._pace = Pace()
        self._running: dict[str, Stack] = {}
        self._silent: dict[str, float] = {}  # seconds
        self._written = 0.0
        self._ended: dict[str, float] = {}  # seconds of silence for which we have ended a worker

    def forget(self) -> None:
        """Remove what a driver that was killed has left."""
        self._write({}, 0.0)

    def started(self, stack: Stack, now: float) -> None:
        self._running[stack.lead.key] = stack
        self._pace.start(stack.lead.key, now)

    def news(self, stack: Stack, now: float) -> None:
        self._pace.news(stack.lead.key, now)

    def ended(self, stack: Stack) -> Mapping[str, Any] | None:
        """The failure of a stack whose worker was ended for its silence; None for any other."""
        self._running.pop(stack.lead.key, None)
        self._pace.end(stack.lead.key)
        if silence := self._ended.pop(stack.lead.key, 0.0):
            return {"reason": "infrastructure", "message": f"its worker had been silent for {duration(silence)} and was ended"}
        return None

    def look(self) -> list[float]:
        """The seconds of those that are silent now; new ones are named."""
        now = time.monotonic()
        silent = self._pace.silent(now)
        for key in (key for key in silent if key not in self._silent):
            said = f"{self._running[key].lead.name}: its worker has been silent for {duration(silent[key])}, longer than usual"
            self._screen.note(said)
            self._tell("stalled", said)
        if silent.keys() != self._silent.keys() or (silent and now - self._written > WRITE_EVERY):
            self._write(silent, now)
        self._silent = silent
        return list(silent.values())

    def silent(self) -> list[Stack]:
        """Those that were silent at the last look."""
        return [stack for key, stack in self._running.items() if key in self._silent]

    def over_limit(self) -> list[Stack]:
        """The stacks whose workers are to be ended now, as they have been silent for longer than the limit; each is named once."""
        if self._limit is None:
            return []
        silent = self._pace.silent(time.monotonic(), self._limit)
        new = [key for key in silent if key not in self._ended]
        self._ended |= {key: silent[key] for key in new}
        return [self._running[key] for key in new]

    def _write(self, silent: Mapping[str, float], now: float) -> None:
        """For `status`, on whatever host: only this process knows how long it has heard nothing."""
        self._written = now
        about = {trial.key: round(silent[key], 1) for key in silent for trial in self._running[key].trials}
        shared_files.tell(self._file, about)
