from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import Future

from trainables.evaluation.report_queue import BEHIND, ReportQueue
from trainables.reports import Checkpointed, Report


def test_reports_keep_their_order_while_an_evaluation_is_not_finished() -> None:
    queue, future = ReportQueue(), Future[None]()
    first, second, third = (Checkpointed(update) for update in (1, 2, 3))
    queue.later([first])
    queue.later([second], future)
    queue.later([third])
    assert list(queue.ready()) == [first]
    assert list(queue.ready()) == []
    future.set_result(None)
    assert list(queue.ready()) == [second, third]


def test_training_does_not_run_ahead_of_many_evaluations() -> None:
    queue, futures = ReportQueue(), [Future[None]() for _ in range(BEHIND + 2)]

    def waits(place: int) -> Iterator[Report]:
        futures[place].set_result(None)  # as if result() had waited for it
        yield Checkpointed(place)

    for place, future in enumerate(futures):
        queue.later(waits(place), future)
    assert list(queue.ready()) == [Checkpointed(0), Checkpointed(1)]
    assert list(queue.ready(wait=True)) == [Checkpointed(place) for place in range(2, BEHIND + 2)]
