"""Memory for the intermediate results of recorded operations: what is not needed any more is given to what is computed next.

While operations are recorded, every result has memory of its own, megabytes for an update of dense networks. Repeated like that each
would come from beyond the cache; plain torch, which frees as it goes, gets the same few blocks again and again. So do these.
"""

from __future__ import annotations

import weakref
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves, tree_map_only

# One result per element of the operands: it may lie where an operand was.
IN_PLACE = {
    f"aten::{name}"
    for name in ("relu", "threshold_backward", "tanh", "neg", "add.Tensor", "sub.Tensor", "mul.Tensor", "div.Tensor", "mul.Scalar")
}


@dataclass(frozen=True, slots=True)
class Operation:
    """A call of torch's `function` and the results that it gave."""

    function: Any
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    results: Any

    def tensors(self) -> list[Tensor]:
        return tensors((self.args, self.kwargs, self.results))


class Reuse:
    """Follows which memory is made for results while they are recorded, and whether anybody else still holds it."""

    def __init__(self) -> None:
        self.made: dict[int, int] = {}  # bytes, by address
        self.held: list[tuple[weakref.ref[Tensor], int]] = []
        self.kept: list[Tensor] = []  # addresses stay different from each other until all is recorded

    def note(self, given: Sequence[Tensor], results: Sequence[Tensor]) -> None:
        known = {address(tensor) for tensor in given}
        for tensor in results:
            at = address(tensor)
            self.held.append((weakref.ref(tensor), at))
            if at not in known and tensor.is_cpu:
                self.made[at] = tensor.untyped_storage().nbytes()
                self.kept.append(tensor.detach())

    def placed(self, calls: Sequence[Any], fixed: Iterable[Tensor]) -> list[Any]:
        """`calls` with each Operation on memory that is used again as soon as nothing later needs it; `fixed` stays where it is."""
        stays = {address(tensor) for tensor in fixed} | {at for tensor, at in self.held if tensor() is not None}
        last: dict[int, int] = {}
        for index, call in enumerate(calls):
            if isinstance(call, Operation):
                for tensor in call.tensors():
                    last[address(tensor)] = index
        movable = {at: size for at, size in self.made.items() if at not in stays and at in last}
        places: dict[int, torch.UntypedStorage] = {}
        free: dict[int, list[torch.UntypedStorage]] = defaultdict(list)

        def moved(tensor: Tensor) -> Tensor:
            to = places.get(address(tensor))
            if to is None:
                return tensor
            return torch.empty(0, dtype=tensor.dtype).set_(to, tensor.storage_offset(), tensor.shape, tensor.stride())

        new: list[Any] = []
        for index, call in enumerate(calls):
            if not isinstance(call, Operation):
                new.append(call)
                continue
            touched = dict.fromkeys(address(tensor) for tensor in call.tensors())
            ends = [at for at in touched if at in movable and last[at] == index]
            for at in touched:
                if at in movable and at not in places:
                    over = next((end for end in ends if end in places and _fits(call, at, end)), None)
                    if over is not None:
                        places[at] = places[over]
                        ends.remove(over)
                    else:
                        size = movable[at]
                        places[at] = free[size].pop() if free[size] else torch.UntypedStorage(size)
            new.append(Operation(call.function, *tree_map_only(Tensor, moved, (call.args, call.kwargs, call.results))))
            for at in ends:
                free[movable[at]].append(places[at])
        return new


def _fits(call: Operation, result: int, operand: int) -> bool:
    """Whether `call` may write the result at address `result` over its operand: element for element."""
    if call.function.name() not in IN_PLACE or not isinstance(call.results, Tensor) or address(call.results) != result:
        return False
    layouts = {
        (tensor.storage_offset(), tensor.shape, tensor.stride(), tensor.dtype)
        for tensor in call.tensors()
        if address(tensor) in (result, operand)
    }
    return len(layouts) == 1 and call.results.untyped_storage().nbytes() == call.results.numel() * call.results.element_size()


def address(tensor: Tensor) -> int:
    return tensor.untyped_storage().data_ptr()


def tensors(tree: Any) -> list[Tensor]:
    return [leaf for leaf in tree_leaves(tree) if isinstance(leaf, Tensor)]
