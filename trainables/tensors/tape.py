"""An update as a list of calls on fixed memory: on a CPU, what a CUDA graph is on a GPU.

Half of the update of a small pruned network is torch's and Python's own work: each operation is looked up, allocates its result, makes
views, and leaves a node that autograd's engine visits later. A tape notes operations below autograd as they run, and runs them again:
same operations, same numbers, same memory for results, no views and no graph. What is not an operation of torch (the project's C, the
optimizers, the draws, schedules) registers itself with `do` and `row`.

Anything else that an update takes from Python would keep its first value. So reading a number out of a tensor or asking for the
agent's update makes a tape `frozen`: it must not be repeated.
"""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map_only

from trainables.tensors import calls, operations
from trainables.tensors.fusing import fused
from trainables.tensors.reuse import Operation, Reuse, tensors

Call = Callable[[], object]


class _Entered(threading.local):
    tape: Tape | None = None  # a tape is not entered within another; backward on a CPU runs in the thread that asks for it


_entered = _Entered()


def do(function: Callable[..., object], arguments: Sequence[Any], memory: Sequence[Any] = ()) -> None:
    """`function(*arguments)`, now and in every repetition. `memory`: the tensors that it works on by address."""
    if _entered.tape:
        _entered.tape.do(function, arguments, memory)
    else:
        function(*arguments)


def row(draws: calls.Draws) -> Tensor:
    """This update's row of `draws`; every repetition copies that of its own update to the same memory."""
    if _entered.tape:
        return _entered.tape.row(draws)
    draws.hold()
    return draws.now()


def recording() -> bool:
    """Whether a tape is being recorded in this thread."""
    return _entered.tape is not None


def freeze(what: str) -> None:
    """Note that the update depends on `what`, whose changes a repetition would not see."""
    if _entered.tape and not _entered.tape.silent:
        _entered.tape.frozen.append(what)


class Tape(TorchDispatchMode):
    """Notes what is computed while it is entered; `repeat` computes it again."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.draws: list[calls.Draws] = []  # hold rows for some updates
        self.calls: list[Call | calls.Call | Operation] = []
        self.made: list[Call | calls.Call] = []  # the calls as C or torch makes them
        self.steps: list[Call] = []  # the same, the project's C without Python between
        self.memory: list[Tensor] = []  # what is worked on by address stays where it is
        self.reuse = Reuse()
        self.frozen: list[str] = []  # why it must not be repeated
        self.silent = False

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        """Torch's way to ask whether to shield this from its compiler, for which it would import the compiler: seconds, for nothing."""
        return False

    def __enter__(self) -> Tape:
        _entered.tape = self
        super().__enter__()  # type: ignore[no-untyped-call]
        return self

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)  # type: ignore[no-untyped-call]
        _entered.tape = None
        self.calls = self.reuse.placed(self.calls, self.memory)
        self.made = fused([each for call in self.calls for each in _calls(call)])
        self.reuse = Reuse()  # with the memory that results had while they were recorded
        for in_c, some in itertools.groupby(self.made, lambda call: isinstance(call, calls.Call)):
            group: list[Any] = list(some)
            self.steps += [calls.together(group)] if in_c else group

    def repeat(self) -> None:
        self.hold()
        self.compute()

    __call__ = repeat

    def hold(self) -> int:
        """Draw what the update reads; how many updates from this one on may be computed then."""
        return min((draws.hold() for draws in self.draws), default=1)

    def compute(self) -> None:
        """The update again, whose draws are there."""
        with torch.no_grad():
            for step in self.steps:
                step()

    @property
    def in_c(self) -> Sequence[calls.Call] | None:
        """The calls of an update that needs no Python; None where one does."""
        made = [call for call in self.made if isinstance(call, calls.Call)]
        return made if len(made) == len(self.made) else None

    def do(self, function: Callable[..., object], arguments: Sequence[Any], memory: Sequence[Any]) -> None:
        self._silently(partial(function, *arguments))
        if not self.silent:
            self.calls.append(calls.packed(function, arguments) or partial(function, *arguments))
            self.memory += tensors(memory)

    def row(self, draws: calls.Draws) -> Tensor:
        self._silently(draws.hold)
        memory: Tensor = self._silently(lambda: draws.now().clone())
        if not self.silent:
            self.draws.append(draws)
            self.calls.append(calls.row(memory, draws))
        return memory

    def _silently(self, function: Callable[[], Any]) -> Any:
        """What `function` returns; what it computes is not noted."""
        before, self.silent = self.silent, True
        try:
            return function()
        finally:
            self.silent = before

    def __torch_dispatch__(self, function: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None) -> Any:
        result = function(*args, **(kwargs or {}))
        if not self.silent:
            self._note(function, args, kwargs or {}, result)
        return result

    def _note(self, function: Any, args: tuple[Any, ...], kwargs: dict[str, Any], result: Any) -> None:
        name, results, given = function.name(), tensors(result), tensors((args, kwargs))
        self.reuse.note(given, results)
        if torch.Tag.data_dependent_output in function.tags or _chooses(function, given):
            self.frozen.append(name)
        elif function._schema.is_mutable or not (_allocates(name) or _shares(results, given)):
            self.calls.append(Operation(function, *tree_map_only(Tensor, torch.detach, (args, kwargs, result))))


def _calls(call: Any) -> Sequence[Any]:
    """What makes the call again: calls of C where they have the same bits."""
    if not isinstance(call, Operation):
        return [call]
    function, args, kwargs, results = call.function, call.args, call.kwargs, tensors(call.results)
    if in_c := operations.in_c(function.name(), args, kwargs, results):
        return in_c
    return [partial(function, *args, **kwargs) if function._schema.is_mutable else _into(results, function, args, kwargs)]


def _chooses(function: Any, given: Sequence[Tensor]) -> bool:
    """Whether the shape of a result depends on numbers. Indexing may; it does so by a mask."""
    return torch.Tag.dynamic_output_shape in function.tags and (
        "::index" not in function.name() or any(tensor.dtype in (torch.bool, torch.uint8) for tensor in given[1:])
    )


def _allocates(name: str) -> bool:
    return name.startswith(("aten::empty", "aten::new_empty"))


def _shares(results: Sequence[Tensor], given: Sequence[Tensor]) -> bool:
    """Whether the results are views: what they show changes without them."""
    memory = {tensor.untyped_storage().data_ptr() for tensor in given}
    return all(tensor.untyped_storage().data_ptr() in memory for tensor in results)


def _into(results: Sequence[Tensor], function: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Call:
    """The call of `function` that writes its results where they are."""
    packet, wanted = function.overloadpacket, _arguments(function, out=False)
    for variant in (getattr(packet, name) for name in packet.overloads()):
        outs = _arguments(variant, out=True)
        if len(outs) == len(results) and _arguments(variant, out=False) == wanted:
            return partial(variant._op, *args, **kwargs, **{name: to for (name, _), to in zip(outs, results, strict=True)})

    def copied() -> None:
        for to, again in zip(results, tensors(function(*args, **kwargs)), strict=True):
            to.copy_(again)

    return copied


def _arguments(function: Any, out: bool) -> list[tuple[str, str]]:
    """Name and type of the arguments that a function takes, or of those that it writes to."""
    return [(argument.name, str(argument.type)) for argument in function._schema.arguments if argument.is_out == out]
