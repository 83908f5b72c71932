"""What a run may use, and what it has used: hours, core-hours and GPU-hours, and when it ends: at a time of day, or when SIGUSR1 comes."""

from __future__ import annotations

import time
from dataclasses import dataclass

from service.planning.options import HOURS, TrainingOptions, flag
from service.terminal import clock, signals
from trainables.trial import Stack

PER_HOUR = 3600.0
WARNED = "SIGUSR1: the job's time is nearly up"


@dataclass
class LimitReachedError(Exception):
    """A run has used what it may; `limit` is the one, as it was typed: `--max-hours=2`, or WARNED."""

    limit: str


class Limits:
    """Counts from construction on. A stack counts with the seconds that it reports at its end, and until then by this process's clock."""

    def __init__(self, options: TrainingOptions) -> None:
        self._options, self._begun = options, time.monotonic()
        self._deadline = clock.deadline(options.until).timestamp() if options.until else None
        self._cores = self._gpus = 0.0  # seconds of stacks that have ended
        self._running: dict[str, tuple[float, float]] = {}  # by the first trial's key: its share of a GPU, since when

    def started(self, stack: Stack, share: float) -> None:
        """`share`: of a GPU, 0 on a core alone."""
        self._running[stack.lead.key] = share, time.monotonic()

    def ended(self, stack: Stack, seconds: float | None) -> None:
        """`seconds`: for how long the stack says that it has trained in this run; None where it did not come to say so."""
        if known := self._running.pop(stack.lead.key, None):
            share, begun = known
            took = time.monotonic() - begun if seconds is None else seconds
            self._cores, self._gpus = self._cores + took, self._gpus + share * took

    def reached(self) -> str:
        """The limit that this run has reached, as it is typed, or WARNED; empty where there is none."""
        if signals.warned():
            return WARNED
        now = time.monotonic()
        running = [(share, now - since) for share, since in self._running.values()]
        used = {
            "max_hours": now - self._begun,
            "max_core_hours": self._cores + sum(seconds for _, seconds in running),
            "max_gpu_hours": self._gpus + sum(share * seconds for share, seconds in running),
        }
        for name in HOURS:
            if (limit := getattr(self._options, name)) is not None and used[name] / PER_HOUR >= limit:
                return f"{flag(name)}={limit:g}"
        if self._deadline is not None and time.time() >= self._deadline:  # the time of day that people see, whatever moves it
            return f"--until={self._options.until}"
        return ""
