"""Updates in launches of many, for the execution `onchip`: each member of a stack by one block of threads (native/onchip.h).

A shadow of the agent, with one member on the CPU, records an update of each pattern on a tape, and trainables/training/program.py makes
a program of it. What depends on the number of the update (a schedule, Adam's corrections) the shadow's tape computes ahead of a launch.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from trainables.agent import Agent
from trainables.datasets.minibatches import Minibatches, minibatches_of
from trainables.execution.onchip import Network
from trainables.native import onchip
from trainables.native.build import AdamStruct
from trainables.tensors import native_ops
from trainables.tensors.mask import from_row
from trainables.tensors.streams import key_of
from trainables.tensors.tape import Tape
from trainables.training.program import Compiler, Fixed, Program, RefusedError, networks_of
from trainables.training.python_state import python_state
from trainables.trial import Stack

AT_ONCE = 100  # updates of a launch at most


class Launches:
    """The updates of an agent whose networks are all of the execution `onchip`; RefusedError where its algorithm cannot be a program."""

    def __init__(self, agent: Agent, data: Minibatches) -> None:
        if not native_ops.serves(torch.empty(0)):
            raise RefusedError("the recording of an update without a C compiler")
        self.agent, self.data, self.fixed = agent, data, Fixed()
        self.networks: list[tuple[str, Network]] = networks_of(agent)
        self.shadow = shadow = Agent(agent.algorithm, Stack(agent.stack.trials[:1]), *agent.sizes, recorded=False)
        shadow.build(
            "onchip", masks={name: from_row(network.spec, network.mask[[network.longest]].float()) for name, network in self.networks}
        )
        self.minibatches = minibatches_of(agent.algorithm, shadow.stack, data.table)
        self.minibatches.look_ahead(data.steps)
        self.shared = max(network.shared for _, network in self.networks)
        self.programs: dict[tuple[bool, ...], Program] = {}
        self.machinery: onchip.Machinery | None = None

    def run(self, first: int, stop: int) -> dict[str, Tensor]:
        """The updates from `first` until before `stop`, at most AT_ONCE; the newest losses [K] by name."""
        patterns = [self.pattern(update) for update in range(first, stop)]
        machinery = self._assembled()
        number = {pattern: i for i, pattern in enumerate(self.programs)}
        numbers = self._numbers(first, patterns)
        machinery.launch(first, [number[pattern] for pattern in patterns], numbers, self.shared)
        for _, network in self.networks:
            torch.autograd.graph.increment_version(network.parameters)
        for name, optimizer in self.agent.optimizers.items():
            optimizer.count = self.shadow.optimizers[name].count
        self.agent.at(stop - 1)
        return {
            name: self.arena[:, at].clone() for pattern in dict.fromkeys(patterns) for name, at in self.programs[pattern].losses.items()
        }

    def pattern(self, update: int) -> tuple[bool, ...]:
        """What this update does differently from others; it has a program."""
        while True:
            self.shadow.at(update)
            pattern = self.shadow.pattern()
            if pattern in self.programs:
                return pattern
            program = self._recorded()
            if self.shadow.pattern() != pattern:  # it has asked for another number of updates
                continue
            self.shadow.at(update + math.lcm(*self.shadow.periods))
            if not program.same(self._recorded()):
                raise RefusedError(f"something else in update {update} than in a later one of its kind")
            self.agent.periods |= self.shadow.periods
            self.programs[pattern], self.machinery = program, None

    def _recorded(self) -> Program:
        before, tape = python_state(self.shadow), Tape()
        self._made()  # so that the blocks of its draws are there and their making is not recorded
        with tape:
            losses = {name: loss.detach() for name, loss in self._made().items()}
        if tape.frozen or python_state(self.shadow) != before:
            raise RefusedError(f"what depends on Python: {', '.join(tape.frozen) or 'its state'}")
        return Compiler(self.shadow, self.minibatches, self.fixed, tape, losses).program

    def _made(self) -> dict[str, Tensor]:
        shadow = self.shadow
        losses: dict[str, Tensor] = shadow.algorithm.update(shadow, self.minibatches.draw(shadow.streams, shadow.hyper.batch_size))
        return losses

    def _assembled(self) -> onchip.Machinery:
        """The programs in memory, and a row for each member with its hyperparameters and keys."""
        if self.machinery is None:
            agent, device = self.agent, self.networks[0][1].device
            rows = torch.zeros(agent.size, max(program.end for program in self.programs.values()), device=device)
            for (kind, name), at in self.fixed.at.items():
                if kind == "hyper":
                    rows[:, at] = getattr(agent.hyper, name)[:, 0]
                elif kind == "one":
                    rows[:, at] = 1
                elif kind == "key":
                    keys = torch.tensor([key_of(seed, name) for seed in agent.streams.seeds], dtype=torch.uint32)
                    rows.view(torch.int32)[:, at : at + 2] = keys.view(torch.int32).to(device)
            self.arena = rows
            data = self.data
            self.machinery = onchip.Machinery(
                rows, self._structs(), [program.instructions for program in self.programs.values()], (data.rows, data.shift, data.scale)
            )
        return self.machinery

    def _structs(self) -> list[onchip.Network]:
        trained = len(self.agent.networks)
        moments = [(self.agent.optimizers[name].first, self.agent.optimizers[name].second) for name, _ in self.networks[:trained]]
        return [network.struct(*(moments[i] if i < trained else ())) for i, (_, network) in enumerate(self.networks)]

    def _numbers(self, first: int, patterns: Sequence[tuple[bool, ...]]) -> Tensor:
        """[updates, 2 x optimizers]: for each update's optimizers the factor of the rate, and what Adam adds to the root."""
        for name, optimizer in self.agent.optimizers.items():
            self.shadow.optimizers[name].count = optimizer.count
        widest = max(len(program.steps) for program in self.programs.values())
        numbers = torch.zeros(len(patterns), 2 * widest, dtype=torch.float64)
        rows = numbers.numpy()
        for i, pattern in enumerate(patterns):
            self.shadow.at(first + i)
            program = self.programs[pattern]
            for prepare in program.before:
                prepare()
            for ordinal, step in enumerate(program.steps):
                step.updates[0] += 1
                rows[i, 2 * ordinal : 2 * ordinal + 2] = corrected(step)
        return numbers


def corrected(step: AdamStruct) -> tuple[float, float]:
    """What update.c's winnow_adam computes from the count of updates: value -= rate x factor x first / (root of second + small)."""
    root = math.sqrt(1 - step.beta2 ** step.updates[0])
    return step.factor[0] * root / (1 - step.beta1 ** step.updates[0]), step.epsilon * root
