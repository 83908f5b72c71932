"""The trials that wait for places of one kind, in stacks. Where there are several kinds, pool.py does the same."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection, Mapping
from typing import Any, Protocol

from service.planning.options import TrainingOptions
from service.planning.packing import pack
from trainables.trial import Stack, Trial, shape_of


class Waiting(Protocol):
    """What a driver asks of either; the clock is handed in."""

    def __len__(self) -> int:
        """Not 0 where something waits for a place that is there."""
        ...

    def waiting(self, kind: str) -> int:
        """How many stacks, at most, could go to more places of a kind now."""
        ...

    def gone(self) -> Collection[str]:
        """The kinds of place that have gone since this was last asked."""
        ...

    def add(self, trials: Collection[Trial], progress: Mapping[str, int], limits: Mapping[str, int], began: Mapping[str, str]) -> None:
        """More trials are to be trained, or again, from their `progress`, in stacks of at most their `limits`. `began`: the kinds of places
        on which they continue."""
        ...

    def take(self, kind: str, now: float) -> Stack | None:
        """The stack for a free place of a kind."""
        ...

    def place_of(self, stack: Stack) -> dict[str, Any]:
        """What the journal says of a stack's place: its kind (`on`) where that is known, and its `share` of a GPU."""
        ...

    def device_of(self, stack: Stack) -> str: ...
    def started(self, stack: Stack, begins_at: int, now: float) -> None: ...
    def reached(self, stack: Stack, update: int, now: float) -> None: ...
    def ended(self, stack: Stack, done: bool, now: float) -> None: ...


class Queue:
    """First come, first served."""

    def __init__(
        self,
        device: str,
        options: TrainingOptions,
        size: int,
        fit: Callable[[Trial], int] | None = None,
        place: Mapping[str, Any] | None = None,
    ) -> None:
        """Stacks of `size`, or of as many trials as `fit` says are best. `place`: what the journal says of each stack's."""
        self._device, self._options, self.size, self._fit, self._place = device, options, size, fit, dict(place or {})
        self.stacks: deque[Stack] = deque()

    def __len__(self) -> int:
        return len(self.stacks)

    def waiting(self, kind: str) -> int:
        return len(self.stacks)

    def gone(self) -> Collection[str]:
        return ()

    def add(self, trials: Collection[Trial], progress: Mapping[str, int], limits: Mapping[str, int], began: Mapping[str, str]) -> None:
        size, held = self.size, limits
        if self._fit and not self._options.stack_size:
            room = {shape: self._fit(trial) for shape, trial in {shape_of(trial): trial for trial in trials}.items()}
            size = max(room.values(), default=size)
            held = {trial.key: min(room[shape_of(trial)], limits.get(trial.key, size)) for trial in trials}
        self.stacks += pack(list(trials), size, progress, held, (self._device, self._options.execution))

    def rotate(self, share: float) -> None:
        """Begin a share of the way through what waits."""
        self.stacks.rotate(-int(len(self.stacks) * share))

    def take(self, kind: str, now: float) -> Stack | None:
        return self.stacks.popleft() if self.stacks else None

    def place_of(self, stack: Stack) -> dict[str, Any]:
        return self._place

    def device_of(self, stack: Stack) -> str:
        return self._device

    def started(self, stack: Stack, begins_at: int, now: float) -> None: ...
    def reached(self, stack: Stack, update: int, now: float) -> None: ...
    def ended(self, stack: Stack, done: bool, now: float) -> None: ...
