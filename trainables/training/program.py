"""A recorded update as a program for one block of threads: every call of a tape becomes an instruction of native/onchip.h.

A tape is made by one member. Its memory becomes places in an arena of which each member has a row, and what may differ between members
(hyperparameters, the keys of streams) lies at fixed places, where each member's row has its own numbers.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from trainables.agent import Agent
from trainables.datasets.minibatches import Minibatches
from trainables.execution.onchip import Network
from trainables.native import onchip
from trainables.native.build import AdamStruct
from trainables.tensors import calls, operations, product
from trainables.tensors.optim import BETAS, Schedule
from trainables.tensors.reuse import Operation, address, tensors
from trainables.tensors.tape import Tape

FIXED = 256  # floats of a row for what is the same in all programs: hyperparameters, keys, losses
ALIGNMENT = 4  # floats


class RefusedError(Exception):
    """Why an update cannot be a program, in a few words."""


@dataclass(frozen=True)
class Program:
    """`before` each update, `steps` are set to what the optimizers are given, in the order of their instructions' ordinals."""

    instructions: list[onchip.Instruction]
    before: list[Callable[[], object]]
    steps: list[AdamStruct]
    losses: dict[str, int]  # places
    end: int  # of its places

    def same(self, other: Program) -> bool:
        return list(map(bytes, self.instructions)) == list(map(bytes, other.instructions))


class Fixed:
    """Places at the beginning of each row, by what lies there: ("hyper", name), ("key", phase and purpose), ("loss", name), ("one", "")."""

    def __init__(self) -> None:
        self.at: dict[tuple[str, str], int] = {}
        self.end = 0

    def place(self, kind: str, name: str = "", size: int = 1) -> int:
        if (kind, name) not in self.at:
            self.at[kind, name], self.end = self.end, self.end + size
            if self.end > FIXED:
                raise RefusedError("more hyperparameters and draws than it has places for")
        return self.at[kind, name]


def networks_of(agent: Agent) -> list[tuple[str, Network]]:
    """All networks, the targets last, in the order in which instructions number them."""
    targets = [(name, getattr(agent.target, name)) for name in agent.trackers]
    return [*agent.networks.items(), *targets]


class Compiler:
    """Makes the program of a tape of `agent`, which has one member and draws its minibatches from `data`."""

    def __init__(self, agent: Agent, data: Minibatches, fixed: Fixed, tape: Tape, losses: Mapping[str, Tensor]) -> None:
        self.agent, self.data, self.fixed = agent, data, fixed
        self.networks = [network for _, network in networks_of(agent)]
        self.numbers = {id(network): number for number, network in enumerate(self.networks)}
        self.rows = {network.parameters.data_ptr(): number for number, network in enumerate(self.networks)}
        self.kept = {address(value): ("hyper", name) for name, value in vars(agent.hyper).items() if isinstance(value, Tensor)}
        self.kept[address(agent.ones)] = ("one", "")
        self.memory = {tensor.data_ptr(): tensor for tensor in tape.memory}
        self.places: dict[int, int] = {}
        self.counts: set[int] = set()
        self.end = FIXED
        self.instructions: list[onchip.Instruction] = []
        self.steps: list[AdamStruct] = []
        self.before: list[Callable[[], object]] = []
        for call in tape.calls:
            if isinstance(call, Operation):
                self._operation(call)
            elif isinstance(call, calls.Call) and isinstance(call.arguments, calls.Row):
                self._draw(*call.kept)
            elif isinstance(call, calls.Call):
                self._of_c(call)
            elif isinstance(call, partial) and id(getattr(call.func, "__self__", None)) in self.numbers:
                self._network(call.func, *call.args)
            else:
                raise RefusedError(f"the call {getattr(call, 'func', call)!r}")
        places = {name: self.fixed.place("loss", name) for name in losses}
        for name, loss in losses.items():
            at = self.read(loss)
            self.add("elementwise", onchip.Elementwise(0, (1, 1, 1), at=(places[name], at, onchip.NONE, onchip.NONE)))
        self.program = Program(self.instructions, self.before, self.steps, places, self.end)

    def add(self, code: str, operands: Any) -> None:
        self.instructions.append(onchip.instruction(code, operands))

    def read(self, tensor: Tensor) -> int:
        """The place of a tensor's first number."""
        at = address(tensor)
        if at in self.kept:
            return self.fixed.place(*self.kept[at]) + int(tensor.storage_offset())
        if at in self.rows:
            self._extras(at, tensor)
        if at not in self.places:
            raise RefusedError(f"memory from outside of the update ({tensor.dtype}, {list(tensor.shape)})")
        return self.places[at] + int(tensor.storage_offset())

    def _extras(self, at: int, tensor: Tensor) -> None:
        """Take a network's extras into the arena as they are now."""
        number = self.rows[at]
        count = sum(self.networks[number].spec.extra.values())
        last = tensor.storage_offset() + sum((size - 1) * step for size, step in zip(tensor.shape, tensor.stride(), strict=True))
        if last >= count:
            raise RefusedError("weights other than as a network")
        if at not in self.places:
            self.places[at], self.end = self.end, self.end + -(-count // ALIGNMENT) * ALIGNMENT
        self.add("extras", onchip.Extras(number, count, self.places[at]))

    def write(self, tensor: Tensor) -> int:
        at = address(tensor)
        if at in self.kept or at in self.rows:
            raise RefusedError("a change of hyperparameters or weights")
        if at not in self.places:
            self.places[at] = self.end
            count = tensor.untyped_storage().nbytes() // tensor.element_size()
            self.end += -(-count // ALIGNMENT) * ALIGNMENT
        return self.read(tensor)

    def _draw(self, to: Tensor, draws: Any) -> None:
        if isinstance(draws, Schedule):
            self.before.append(lambda: to.fill_(draws.factor(draws.update.value)))
            return
        if getattr(draws, "streams", None) is not self.agent.streams:
            raise RefusedError("numbers that are not of the agent's streams")
        purpose, kind, count, below = draws.asked
        key = self.fixed.place("key", self.agent.streams.phase + purpose, 2)
        self.add("draw", onchip.Draw(onchip.DRAWS.index(kind), count, below, key, self.write(to)))

    def _of_c(self, call: calls.Call) -> None:
        given = call.arguments
        if isinstance(given, AdamStruct):
            if (given.beta1, given.beta2) != BETAS:
                raise RefusedError(f"Adam with betas {given.beta1}, {given.beta2}")
            operands = self.rows[given.value], self.read(self.memory[given.gradient]), self._hyper(given.rate), len(self.steps)
            self.steps.append(given)
            self.add("adam", onchip.Adam(*operands))
        elif call.function == calls.address("winnow_replayed_track"):
            _, _, target, online, tau = given
            self.add("track", onchip.Track(self.rows[target], self.rows[online], self._hyper(tau)))
        elif call.function == calls.address("winnow_replayed_gather"):
            count, index, _, table, _, _, out = given
            if table != self.data.rows.data_ptr():
                raise RefusedError("a table other than the dataset's")
            at = self.read(self.memory[index])
            self.add("gather", onchip.Gather(count, at, self.write(self.memory[out])))
        else:
            raise RefusedError("another function of the project's C")

    def _hyper(self, at: int) -> int:
        if at not in self.kept:
            raise RefusedError("a rate that is not a hyperparameter")
        return self.fixed.place(*self.kept[at])

    def _network(self, function: Any, inputs: Sequence[Tensor], copy: int | None, out: Tensor, *more: Any) -> None:
        if len(inputs) > onchip.PARTS:
            raise RefusedError(f"a network of {len(inputs)} inputs")
        number, backward = self.numbers[id(function.__self__)], function.__name__ == "differentiate"
        made = onchip.Pass(number, onchip.NONE if copy is None else copy, inputs[0].shape[1], len(inputs), gradient=onchip.NONE)
        for i, x in enumerate(inputs):
            made.part[i] = onchip.Part(self.read(x), x.stride(1), x.stride(2), x.shape[2])
        made.input[:] = [onchip.NONE] * onchip.PARTS
        made.out = self.read(out) if backward else self.write(out)
        if backward:
            core, by_input = more
            made.gradient = onchip.NONE if core is None else self.write(core)
            for i, gradient in enumerate(by_input):
                made.input[i] = onchip.NONE if gradient is None else self.write(gradient)
        self.add("backward" if backward else "forward", made)

    def _operation(self, call: Operation) -> None:
        name, results = call.function.name(), tensors(call.results)
        operation, _ = operations.parts(name)
        if name == product.SUM:
            self._sum(False, results[0], call.args[0], [1], keepdim=True)
            return
        if operation in ("sum", "mean"):
            self._sum(operation == "mean", results[0], *call.args, **call.kwargs)
            return
        lines = operations.lines(name, call.args, call.kwargs, results)
        if lines is None and operation in _MORE and len(results) == 1:
            lines = _MORE[operation](results[0], *call.args, **call.kwargs)
        if lines is None:
            raise RefusedError(f"the operation {name.removeprefix('aten::')}")
        for line in lines:
            self._line(name, *line)

    def _line(self, name: str, operation: str, out: Tensor, operands: Sequence[Any]) -> None:
        given = [x.expand(out.shape) if isinstance(x, Tensor) else None for x in operands]
        strides = [(0,) * out.dim() if x is None else x.stride() for x in given]
        sizes, steps = operations.coalesced(out.shape, [out.stride(), *strides])
        if len(sizes) > 3 or not all(x is None or self._number(x) for x in [out, *given]):
            raise RefusedError(f"the operation {name.removeprefix('aten::')} on {out.dtype} {list(out.shape)}")
        made = onchip.Elementwise(onchip.OPERATIONS.index(operation), filled(sizes, 1), at=(onchip.NONE,) * 4)
        for i, x in enumerate(given, 1):
            if x is None:
                made.number[i] = float(operands[i - 1])
            else:
                made.at[i] = self.read(x)
        made.at[0] = self.write(out)
        for i, by in enumerate(steps):
            made.step[i] = filled(by, 0)
        self.add("elementwise", made)

    def _number(self, x: Tensor) -> bool:
        """Whether it lies in the arena as floats: everything but indices."""
        return x.dtype in (torch.float32, torch.bool) or address(x) in self.counts

    def _sum(self, mean: bool, out: Tensor, x: Tensor, dims: Any = (), keepdim: bool = False, dtype: Any = None) -> None:
        over = operations.dims_of(x, dims)
        rest = [d for d in range(x.dim()) if d not in over]
        kept, gone = x.permute(*rest, *over).shape[: len(rest)], [x.shape[d] for d in over]
        sizes, (to, by) = operations.coalesced(kept, [out.reshape(kept).stride(), [x.stride(d) for d in rest]])
        inner, (within,) = operations.coalesced(gone, [[x.stride(d) for d in over]])
        if max(len(sizes), len(inner)) > 3 or not self._number(x):
            raise RefusedError(f"a sum of {x.dtype} {list(x.shape)}")
        if out.dtype == torch.int64:  # how often something is true
            self.counts.add(address(out))
        shapes = filled(sizes, 1), filled(to, 0), filled(by, 0), filled(inner, 1), filled(within, 0)
        divisor = x.numel() / out.numel() if mean else 1
        at = self.read(x)
        self.add("sum", onchip.Sum(*shapes, self.write(out), at, divisor))


def filled(sizes: Sequence[int], by: int) -> tuple[int, ...]:
    """Three of them, the first ones `by` where there are fewer."""
    return (*[by] * (3 - len(sizes)), *sizes)


def _softplus(operation: str) -> Callable[..., list[operations.Line]]:
    """With torch's default sharpness and threshold only."""

    def lines(out: Tensor, *operands: Any) -> list[operations.Line]:
        tensors_, numbers = [x for x in operands if isinstance(x, Tensor)], [x for x in operands if not isinstance(x, Tensor)]
        if numbers not in ([], [1, 20]):
            raise RefusedError(f"softplus with {numbers}")
        return [(operation, out, tuple(tensors_))]

    return lines


def _same(operation: str) -> Callable[..., list[operations.Line]]:
    return lambda out, *operands, **_: [(operation, out, operands)]


# What a tape leaves to torch; by the name of the operation.
_MORE: dict[str, Callable[..., list[operations.Line]]] = {
    **{name: _same(name) for name in ("exp", "log", "tanh", "sqrt", "sigmoid")},
    "clone": lambda out, x, **_: [("copy", out, (x,))],
    "_to_copy": lambda out, x, **_: [("copy", out, (x,))],
    "tanh_backward": _same("tanh_slope"),
    "sigmoid_backward": _same("sigmoid_slope"),
    "softplus": _softplus("softplus"),
    "softplus_backward": _softplus("softplus_slope"),
    "zeros": lambda out, *_, **__: [("copy", out, (0.0,))],
    "zeros_like": lambda out, *_, **__: [("copy", out, (0.0,))],
    "ones_like": lambda out, *_, **__: [("copy", out, (1.0,))],
    "zero_": lambda out, *_, **__: [("copy", out, (0.0,))],
}
