"""What a run may use, and what it has used: hours, core-hours and GPU-hours, and the time of day at which it ends."""

from __future__ import annotations

import time
from dataclasses import dataclass

from service.planning.options import HOURS, TrainingOptions, flag
from service.terminal import clock
from trainables.trial import Stack

PER_HOUR = 3600.0


@dataclass
class LimitReachedError(Exception):
    """A run has used what it may; `limit` is the one, as it was typed: `--max-hours=2`."""

    limit: str


class Limits:
    """Counts from construction on. A stack counts with the seconds that it reports at its end, and until then by this process's clock."""

    def __init__(self, options: TrainingOptions) -> None:
        self._options, self._begun = options, time.monotonic()
        self._deadline = clock.deadline(options.until).timestamp() if options.until else None
        self._seconds = dict.fromkeys(("cpu", "cuda"), 0.0)  # of stacks that have ended, by device
        self._running: dict[str, tuple[str, float]] = {}  # by the first trial's key: on what device, since when

    def started(self, stack: Stack, device: str) -> None:
        self._running[stack.lead.key] = device, time.monotonic()

    def ended(self, stack: Stack, seconds: float | None) -> None:
        """`seconds`: for how long the stack says that it has trained in this run; None where it did not come to say so."""
        if known := self._running.pop(stack.lead.key, None):
            device, begun = known
            self._seconds[device] += time.monotonic() - begun if seconds is None else seconds

    def reached(self) -> str:
        """The limit that this run has reached, as it is typed; empty where there is none."""
        now = time.monotonic()
        used = dict(self._seconds)
        for device, since in self._running.values():
            used[device] += now - since
        shares = {"max_hours": (now - self._begun) / PER_HOUR, "max_core_hours": sum(used.values()) / PER_HOUR}
        shares["max_gpu_hours"] = used["cuda"] * self._options.gpu_fraction / PER_HOUR
        for name in HOURS:
            if (limit := getattr(self._options, name)) is not None and shares[name] >= limit:
                return f"{flag(name)}={limit:g}"
        if self._deadline is not None and time.time() >= self._deadline:  # the time of day that people see, whatever moves it
            return f"--until={self._options.until}"
        return ""
