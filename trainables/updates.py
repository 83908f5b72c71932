"""Makes the updates of a stack: recorded once and repeated, where that is faster than making each anew.

A 256-wide network leaves a GPU waiting for Python; a graph of the update's some hundred kernels is one launch. On a CPU half the time
of a small sparse network's update is Python's and autograd's, which a tape (trainables/tape.py) leaves out. Either repeats the same
operations on the same memory. What changes from update to update must not come from Python: on a GPU the number of the update, the
draws and the optimizers' counts lie in tensors (`agent.recorded`), on a CPU they are calls of the tape. What an algorithm does
differently every few updates it asks by `agent.every`, and each pattern of answers is recorded by itself.

A tape is compared with the update made anew before it is trusted. An algorithm that a tape cannot follow is made anew each time.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from trainables.agent import Agent
from trainables.minibatches import Minibatches
from trainables.tape import Tape

WARM_UP = 3  # updates of a pattern made in the usual way before it is recorded: libraries choose their kernels in them

Losses = dict[str, Tensor]
Work = Callable[[], Losses]
Repeat = Callable[[], None]
Record = Callable[[Work], tuple[Repeat | None, Losses]]


class Updates:
    """The updates of an agent in training. `record` makes the work of an update and gives the function that repeats it (None: it cannot
    be repeated), and what the work returned."""

    def __init__(self, agent: Agent, data: Minibatches, record: Record | None = None) -> None:
        self.agent, self.data, self.asked = agent, data, record
        self._forget()

    def run(self, first: int, stop: int) -> Losses:
        """The updates from `first` until before `stop`; the newest losses [K] by name."""
        logged: Losses = {}
        for update in range(first, stop):
            self.agent.at(update)
            if self.builds != self.agent.builds:  # other networks, other memory
                self._forget()
            logged |= self._repeated(self.record) if self.record else self._made()
        return logged

    def _forget(self) -> None:
        self.builds = self.agent.builds
        self.record = self.asked or recorder(self.agent)
        self.recordings: dict[tuple[bool, ...], tuple[Repeat | None, Losses]] = {}
        self.seen: Counter[tuple[bool, ...]] = Counter()

    def _made(self) -> Losses:
        agent = self.agent
        losses: Losses = agent.algorithm.update(agent, self.data.draw(agent.streams, agent.hyper.batch_size))
        return losses

    def _repeated(self, record: Record) -> Losses:
        pattern = self.agent.pattern()
        if pattern not in self.recordings:
            self.seen[pattern] += 1
            if self.seen[pattern] <= WARM_UP:
                return self._made()
            self.recordings[pattern] = record(self._made)
            return self.recordings[pattern][1]
        repeat, losses = self.recordings[pattern]
        if repeat is None:
            return self._made()
        if record is taped and self.seen[pattern] == WARM_UP + 1:
            self.seen[pattern] += 1
            return self._compared(pattern, repeat)
        repeat()
        return losses

    def _compared(self, pattern: tuple[bool, ...], repeat: Repeat) -> Losses:
        """The update made anew; if its repetition gives anything else, that is not used again."""
        agent = self.agent
        before = agent.rows(), agent.counts()
        repeat()
        repeated = agent.rows()
        agent.load_rows(*before)
        losses = self._made()
        # Bit by bit: a member that has diverged is NaN in both.
        if not all(torch.equal(row.view(torch.int32), repeated[name].view(torch.int32)) for name, row in agent.rows().items()):
            self.recordings[pattern] = None, losses
        return losses


def recorder(agent: Agent) -> Record | None:
    """A graph on a GPU; on a CPU a tape where all networks are sparse: dense products take so long that memory in cache is worth more."""
    if agent.recorded:
        return cuda_graph
    return taped if agent.execution == "sparse" else None


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
    return None if tape.frozen else tape.repeat, losses
