"""Runs the updates of a stack. An update is recorded once and repeated, where that is faster than running it anew each time.

A 256-wide network leaves a GPU waiting for Python; a graph of the update's some hundred kernels is one launch. On a CPU half the time
of a small sparse network's update is Python's and autograd's, and a quarter of a dense one's, which a tape (trainables/tensors/tape.py)
leaves out. Either repeats the same operations on the same memory. What changes from update to update must not come from Python: on a GPU
the number of the update, the draws and the optimizers' counts lie in tensors (`agent.recorded`), on a CPU they are calls of the tape.
What an algorithm does differently every few updates it asks `agent.every`, and each pattern of answers has a recording of its own. On a CPU
updates whose tapes are trusted are made in a row, without Python between where they are the project's C alone (cycle.py).

In the execution `onchip` an update is a program, and many of them are one launch (onchip.py).

A tape is compared with the update run anew before it is trusted, and from time to time after that. An algorithm that a tape cannot
follow, or that changes Python state of its own (a counter), is run anew each time.
"""

from __future__ import annotations

import math
import warnings
from collections import Counter
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from trainables.agent import Agent
from trainables.datasets.minibatches import Minibatches
from trainables.errors import UserError
from trainables.plugins import contract
from trainables.tensors import native_ops
from trainables.tensors.tape import Tape
from trainables.training.cycle import LONGEST, Cycle, Losses
from trainables.training.leave import Leave
from trainables.training.onchip import AT_ONCE, Launches
from trainables.training.program import RefusedError
from trainables.training.python_state import python_state

WARM_UP = 3  # updates of a pattern that run unrecorded first: libraries choose their kernels in them
COMPARE_EVERY = 400  # updates at least between two comparisons of a tape, each of which costs the time of up to five

Pattern = tuple[bool, ...]
Work = Callable[[], Losses]
Repeat = Callable[[], None]
Record = Callable[[Work], tuple[Repeat | None, Losses]]


class Updates:
    """The updates of an agent in training. `record` runs an update and returns the function that repeats it (None if it cannot be
    repeated), and the update's losses. Once `leave` is asked for, `run` ends early, after update `reached`."""

    def __init__(self, agent: Agent, data: Minibatches, record: Record | None = None, leave: Leave | None = None) -> None:
        self.agent, self.data, self.asked, self.leave = agent, data, record, leave or Leave()
        self.since = 0  # updates since tapes were compared
        self.reached = 0
        self.launches: Launches | None = None
        self.cycle: Cycle | None = None
        self._forget()

    def run(self, first: int, stop: int, least: int = 0) -> Losses:
        """The updates from `first` until before `stop`, or at least `least` of them; the newest losses [K] by name.

        The last ones are compared with their tapes where that is due, so that nothing wrong is reported: raises UserError for an
        algorithm that does something else by now."""
        if self.builds != self.agent.builds:
            self._forget()
        if self.launches:
            return self._launched(self.launches, first, stop, least)
        logged: Losses = {}
        before = self.since
        self.since += stop - first
        period = max(self.agent.periods, default=1)
        compare_from = max(first, stop - period) if self.since >= COMPARE_EVERY else stop
        update, leaving = first, False
        self.cycle = None  # of this run's first update on
        while update < stop:
            if self.leave.asked and not leaving and update >= first + least:
                leaving, compare_from = True, update
                # What tapes have computed since they were compared is not committed before they are.
                stop = min(stop, update + (period if self.record is taped and (before or update > first) else 0))
                continue
            if update == compare_from:
                self.since = 0
                self.trusted.clear()
                self.cycle = None
            if cycle := self._cycle(update):
                update, losses = cycle.run(update, compare_from if update < compare_from else stop)
                logged |= losses
                continue
            self.agent.at(update)
            logged |= self._repeated(self.record) if self.record else self._made()
            update += 1
        self.reached = update
        return logged

    def _launched(self, launches: Launches, first: int, stop: int, least: int) -> Losses:
        """The same in launches, or one by one from where they are refused."""
        logged: Losses = {}
        update = first
        while update < stop and not (self.leave.asked and update >= first + least):
            end = min(update + (least if self.leave.asked else AT_ONCE), stop)
            try:
                logged |= launches.run(update, end)
            except RefusedError as error:
                self._refused(error)
                return logged | self.run(update, stop, max(0, first + least - update))
            update = end
        self.reached = update
        return logged

    def _refused(self, error: RefusedError) -> None:
        name = contract.short(self.agent.algorithm)
        warnings.warn(f"slow updates: execution 'onchip' makes those of {name!r} one by one, because it cannot do {error}", stacklevel=2)
        self.launches = None

    def _forget(self) -> None:
        """What was recorded is of other networks, on other memory."""
        self.builds = self.agent.builds
        self.record = self.asked or recorder(self.agent)
        self.launches = None
        if self.asked is None and self.agent.execution == "onchip":
            try:
                self.launches = Launches(self.agent, self.data)
            except RefusedError as error:
                self._refused(error)
        self.recordings: dict[Pattern, tuple[Repeat | None, Losses]] = {}
        self.seen: Counter[Pattern] = Counter()
        self.since = 0
        self.trusted: set[Pattern] = set()  # patterns whose tape needs no comparison for now

    def _made(self) -> Losses:
        agent = self.agent
        losses: Losses = agent.algorithm.update(agent, self.data.draw(agent.streams, agent.hyper.batch_size))
        contract.losses(agent.algorithm, losses, agent.size)
        # Without the graph they came from: its nodes would remember the stream on which they were made, and a CUDA graph be refused.
        return {name: loss.detach() for name, loss in losses.items()}

    def _repeated(self, record: Record) -> Losses:
        pattern = self.agent.pattern()
        if pattern not in self.recordings:
            self.seen[pattern] += 1
            if self.seen[pattern] <= WARM_UP:
                return self._made()
            return self._recorded(pattern, record)
        repeat, losses = self.recordings[pattern]
        if repeat is None:
            return self._made()
        if record is taped and pattern not in self.trusted:
            self.trusted.add(pattern)
            return self._compared(pattern, repeat)
        repeat()
        return losses

    def _cycle(self, update: int) -> Cycle | None:
        """The tapes of all patterns, from `update` on; None where one of them is missing or not to be trusted."""
        if self.record is taped and self.cycle is None and self.trusted and math.lcm(*self.agent.periods) <= LONGEST:
            tapes = []
            for pattern in self.agent.patterns():
                repeat, losses = self.recordings.get(pattern, (None, {}))
                if pattern not in self.trusted or not isinstance(repeat, Tape):
                    return None
                tapes.append((repeat, losses))
            self.cycle = Cycle(self.agent, tapes, self.leave, held=update)
        return self.cycle

    def _recorded(self, pattern: Pattern, record: Record) -> Losses:
        before = python_state(self.agent)
        repeat, losses = record(self._made)
        self.recordings[pattern] = repeat if python_state(self.agent) == before else None, losses
        return losses

    def _compared(self, pattern: Pattern, repeat: Repeat) -> Losses:
        """The update made anew. If its repetition gives anything else, the tape is not used; if it has been, UserError."""
        agent, state = self.agent, self.agent.tensors()
        before, counts = [tensor.clone() for tensor in state], agent.counts()
        repeat()
        repeated = [tensor.clone() for tensor in state]
        with torch.no_grad():
            for tensor, value in zip(state, before, strict=True):
                tensor.copy_(value)
        for name, count in counts.items():
            agent.optimizers[name].count = count
        losses = self._made()
        if not all(map(same, state, repeated)):
            if self.seen[pattern] > WARM_UP + 1:
                raise UserError(
                    f"algorithm {contract.short(agent.algorithm)!r} does something else in update {agent.update} than when "
                    "it was recorded, because Python state has changed; ask agent.every(n) or agent.update for what should change"
                )
            self.recordings[pattern] = None, losses
        self.seen[pattern] += 1
        return losses


def same(one: Tensor, other: Tensor) -> bool:
    """Bit by bit; a member that has diverged is NaN in both."""
    bits = torch.equal(one.view(torch.int32), other.view(torch.int32))
    return bits or torch.allclose(one, other, rtol=0, atol=0, equal_nan=True)


def recorder(agent: Agent) -> Record | None:
    """A graph on a GPU, a tape on a CPU where the project's C runs."""
    if agent.recorded:
        # Each call of a network on the chip uploads its program, which a graph must not; it has launches instead, where it can.
        return None if agent.execution == "onchip" else cuda_graph
    return taped if native_ops.serves(agent.ones) else None


def cuda_graph(work: Work) -> tuple[Repeat, Losses]:
    """`work` as a CUDA graph."""
    graph: Any = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):  # records, does not compute
        losses = work()
    graph.replay()
    return graph.replay, losses


def taped(work: Work) -> tuple[Repeat | None, Losses]:
    """`work` as a tape; no function where something in it would be frozen."""
    tape = Tape()
    with tape:
        losses = {name: loss.detach() for name, loss in work().items()}
    return None if tape.frozen else tape, losses
