"""Makes the updates of a stack: one after the other on a CPU, as recorded graphs on a GPU, which launch a whole update at once.

A 256-wide network leaves a GPU waiting for Python; a graph of the update's some hundred kernels is one launch. A recording repeats the
same kernels on the same memory, so in an agent that is recorded (`agent.recorded`) all that changes from update to update lies in
tensors: the number of the update, the blocks of draws, the optimizers' counts. What an algorithm does differently every few updates
it asks by `agent.every`, and each pattern of answers has a graph of its own.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from trainables.agent import Agent
from trainables.minibatches import Minibatches

WARM_UP = 3  # updates of a pattern made in the usual way before it is recorded: libraries choose their kernels in them

Work = Callable[[], dict[str, Tensor]]
Record = Callable[[Work], tuple[Callable[[], None], dict[str, Tensor]]]


class Updates:
    """The updates of an agent in training; `record` takes the work of an update and gives the function that repeats it, and what the
    work returned."""

    def __init__(self, agent: Agent, data: Minibatches, record: Record | None = None) -> None:
        self.agent, self.data = agent, data
        self.record = record or (cuda_graph if agent.recorded else None)
        self._forget()

    def run(self, first: int, stop: int) -> dict[str, Tensor]:
        """The updates from `first` until before `stop`; the newest losses [K] by name."""
        logged: dict[str, Tensor] = {}
        for update in range(first, stop):
            self.agent.at(update)
            logged |= self._replayed() if self.record else self._made()
        return logged

    def _made(self) -> dict[str, Tensor]:
        agent = self.agent
        losses: dict[str, Tensor] = agent.algorithm.update(agent, self.data.draw(agent.streams, agent.hyper.batch_size))
        return losses

    def _replayed(self) -> dict[str, Tensor]:
        assert self.record is not None
        if self.builds != self.agent.builds:  # other networks, other memory
            self._forget()
        pattern = self.agent.pattern()
        if pattern not in self.graphs:
            self.seen[pattern] += 1
            if self.seen[pattern] <= WARM_UP:
                return self._made()
            self.graphs[pattern] = self.record(self._made)  # records, does not compute
        repeat, losses = self.graphs[pattern]
        repeat()
        return losses

    def _forget(self) -> None:
        self.builds = self.agent.builds
        self.graphs: dict[tuple[bool, ...], tuple[Callable[[], None], dict[str, Tensor]]] = {}
        self.seen: Counter[tuple[bool, ...]] = Counter()


def cuda_graph(work: Work) -> tuple[Callable[[], None], dict[str, Tensor]]:
    """`work` as a CUDA graph."""
    graph: Any = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        losses = work()
    return graph.replay, losses
