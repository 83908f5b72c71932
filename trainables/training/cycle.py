"""Trusted tapes one after the other. Where all is the project's C, many updates are one call, and Python is left out."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from trainables.agent import Agent
from trainables.tensors import calls
from trainables.tensors.tape import Tape
from trainables.training.leave import Leave

LONGEST = 16  # updates until the patterns come again

Losses = dict[str, Tensor]


class Cycle:
    """The tapes of updates by their number modulo how many there are, with the losses of each. `held`: draws are there for the updates
    before this one."""

    def __init__(self, agent: Agent, tapes: Sequence[tuple[Tape, Losses]], leave: Leave, held: int) -> None:
        self.agent, self.held = agent, held
        self.tapes, self.losses = [tape for tape, _ in tapes], [losses for _, losses in tapes]
        in_c = [found for tape in self.tapes if (found := tape.in_c) is not None]
        self.in_a_row = calls.in_a_row(in_c, agent.streams.number, leave.flag) if len(in_c) == len(tapes) else None

    def run(self, update: int, stop: int) -> tuple[int, Losses]:
        """At least one of the updates from `update` on until before `stop`; the one that is reached, and the newest losses."""
        self.agent.at(update)
        if update >= self.held:
            self.held = update + min(tape.hold() for tape in self.tapes)
        if self.in_a_row:
            self.in_a_row(min(stop, self.held))
            reached = self.agent.streams.update
            self.agent.at(reached - 1)
        else:
            self.tapes[update % len(self.tapes)].compute()
            reached = update + 1
        losses: Losses = {}
        for made in range(max(update, reached - len(self.tapes)), reached):
            losses |= self.losses[made % len(self.tapes)]
        return reached, losses
