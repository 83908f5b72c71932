"""The reports of a training whose evaluations run beside it, in the order of the updates they are about."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator

from trainables.evaluation.futures import Done, Future
from trainables.reports import Report

BEHIND = 2  # evaluations that training may run ahead of: each holds back checkpoints, and so makes a crash cost more


class ReportQueue:
    """Reports in order, with the work to do between them, while an evaluation that some wait for is still running."""

    def __init__(self) -> None:
        self.queue: deque[tuple[Iterable[Report], Future]] = deque()

    def later(self, reports: Iterable[Report], future: Future | None = None) -> None:
        """Add `reports`; they are iterated once all before them were taken and `future` is done."""
        self.queue.append((reports, future or Done()))

    def ready(self, wait: bool = False) -> Iterator[Report]:
        """The reports that are due; all of them with `wait`. Waits too where more than BEHIND evaluations are unfinished."""
        while self.queue:
            reports, future = self.queue[0]
            if not (wait or future.done() or sum(not other.done() for _, other in self.queue) > BEHIND):
                return
            self.queue.popleft()
            yield from reports
