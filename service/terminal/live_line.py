"""The live line: trials done, running and failed, updates per second, time left, scores so far."""

from __future__ import annotations

import bisect
from collections import Counter, deque
from collections.abc import Collection, Mapping, Sequence

from service.terminal.words import duration

WINDOW = 60.0  # seconds over which the speed is taken
SHOWN = 12  # cells whose scores fit on a line


class Progress:
    """The progress of a run's trials, `goal[key]` updates each. Pure: the clock is handed in.

    Each trial has its cost per update, relative to the others: the dense ones, which come first, are no measure of the pruned ones' speed.
    """

    def __init__(self, goal: Mapping[str, int]) -> None:
        self._goal = dict(goal)
        self._at = dict.fromkeys(goal, 0)
        self._ended: dict[str, str] = {}
        self._ends: Counter[str] = Counter()
        self._running: set[str] = set()
        self._trained = 0
        self._cost: dict[str, float] = {}
        self._worked = 0.0
        self._history: deque[tuple[float, int, float]] = deque()
        self._scores: dict[str, tuple[str, float]] = {}
        self._means: dict[str, tuple[float, int]] = {}  # of each cell: the sum of its scores and their number
        self._cells: list[str] = []  # sorted
        self._later, self._later_updates = 0, 0
        self._left: float | None = None  # what is left to do of the trials that are known; None where it has to be counted anew

    def expect(self, goal: Mapping[str, int], later: int = 0, updates: int = 0, costs: Mapping[str, float] | None = None) -> None:
        """More trials have become known, and `later` more of `updates` each are not known yet; `costs` of an update by key."""
        self._goal |= goal
        self._cost |= costs or {}
        self._at = dict.fromkeys(goal, 0) | self._at
        self._later, self._later_updates, self._left = later, updates, None

    def start(self, key: str, update: int, now: float) -> None:
        """The trial begins, or continues from `update`: what it had before is not counted as speed."""
        before = self._work_left(key)
        self._running.add(key)
        if state := self._ended.pop(key, ""):
            self._ends[state] -= 1
        self._at[key] = update
        self._changed(key, before)
        self._note(now)

    def at(self, key: str, update: int, now: float) -> None:
        """The trial has reached `update`."""
        before = self._work_left(key)
        gone = max(0, update - self._at[key])
        self._trained += gone
        self._worked += gone * self._cost.get(key, 1.0)
        self._at[key] = max(update, self._at[key])
        self._changed(key, before)
        self._note(now)

    def reached(self, key: str) -> int:
        """The newest update of a trial that is known."""
        return self._at.get(key, 0)

    def score(self, key: str, cell: str, value: float) -> None:
        """The newest mean normalized score of a trial that belongs to the table's cell `cell`, e.g. `snip@95`."""
        _, before = self._scores.get(key, ("", 0.0))
        total, count = self._means.get(cell, (0.0, 0))
        if cell not in self._means:
            bisect.insort(self._cells, cell)
        self._means[cell] = total + value - before, count + (key not in self._scores)
        self._scores[key] = cell, value

    def end(self, key: str, state: str) -> None:
        before = self._work_left(key)
        self._running.discard(key)
        if known := self._ended.pop(key, ""):
            self._ends[known] -= 1
        self._ended[key] = state
        self._ends[state] += 1
        self._changed(key, before)

    def speed(self) -> float:
        """Updates per second of all trials together, evaluations and start-ups of the last minute included."""
        return self._recent()[0]

    def seconds_left(self) -> float | None:
        if self._left is None:
            self._left = sum(map(self._work_left, self._goal))
        left = max(0.0, self._left)  # sums of what comes and goes are rounded
        if self._later:
            left += self._later * self._later_updates * (sum(self._cost.values()) / len(self._cost) if self._cost else 1.0)
        pace = self._recent()[1]
        return left / pace if pace > 0 else None

    def _work_left(self, key: str) -> float:
        return 0.0 if key in self._ended or key not in self._goal else (self._goal[key] - self._at[key]) * self._cost.get(key, 1.0)

    def _changed(self, key: str, before: float) -> None:
        """A trial's work left was `before`: the sum follows, which nobody has to make again for each line of ten thousand trials."""
        if self._left is not None:
            self._left += self._work_left(key) - before

    def _recent(self) -> tuple[float, float]:
        """Updates, and what they cost, per second of the last minute."""
        (t0, *then), (t1, *now) = (self._history[0], self._history[-1]) if self._history else ((0.0, 0, 0.0), (0.0, 0, 0.0))
        updates, work = ((b - a) / (t1 - t0) if t1 > t0 else 0.0 for a, b in zip(then, now, strict=True))
        return updates, work

    def line(self, silent: Sequence[float] = (), elsewhere: Collection[str] = ()) -> str:
        """`silent`: for how many seconds each stalled worker has been silent; when those will be done, nobody knows. `elsewhere`:
        for each trial that is waited for, the sweep that trains it."""
        ended, total = self._ends, len(self._goal) + self._later
        stopped = [f"{ended['stopped']} stopped"] if ended["stopped"] else []
        left = None if silent else self.seconds_left()
        parts = [
            f"{ended['done']}/{total} done",
            f"{len(self._running)} running",
            *(f"{count} trained by {name}" for name, count in Counter(elsewhere).items()),
            f"{ended['failed'] + ended['diverged']} failed",
            *stopped,
        ]
        parts.append(f"{self.speed():,.0f} updates/s")
        if silent:
            parts.append(f"{len(silent)} worker{'s' if len(silent) > 1 else ''} silent for {duration(max(silent))}")
        else:
            parts.append(f"{duration(left)} left" if left is not None else "starting")
        means = {cell: self._means[cell] for cell in self._cells[:SHOWN]}
        scores = "  ".join(f"{cell} {total / count:.0f}" for cell, (total, count) in means.items())
        more = f"  and {more} more cells" if (more := len(self._cells) - SHOWN) > 0 else ""
        return " | ".join(parts) + (f" | scores so far: {scores}{more}" if scores else "")

    def _note(self, now: float) -> None:
        self._history.append((now, self._trained, self._worked))
        while len(self._history) > 2 and now - self._history[0][0] > WINDOW:
            self._history.popleft()
