"""Kept weights only, on a CPU: the whole network is one node of autograd's graph, computed by `native/kernels.c`.

A member's row of `parameters` [K, V] holds the extras, then one group of values per unit, the unit's bias first:

    | extras | copy 0: layer 0: b w w w | b w | b w w | layer 1: ... | copy 1: ... | idle | zeros up to a multiple of 16 |

Only units that reach the output have a group (the others cannot change it, now or later); what was kept of the others is idle:
its gradient is 0. With layer normalization every unit reaches the output by way of the mean, and after a hidden layer's groups come
its units' gains, then their shifts. Within a layer the unit with the most weights comes first: rows of equal length follow each
other, so the processor predicts where they end. Backward goes by the transposed groups, which are indices into the same values.
"""

from __future__ import annotations

import ctypes
import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from trainables.execution._arena import Arena
from trainables.execution._groups import Groups
from trainables.execution._kept import Kept
from trainables.native import build
from trainables.native.build import NORM_EPSILON, TILE
from trainables.tensors import tape
from trainables.tensors.mlp import MLP, ROW_ALIGNMENT

DEVICES = ("cpu",)
PARTS = [ctypes.c_int64 * (4 * n) for n in range(17)]  # arrays of kernels.c's Part as plain integers, made once: ctypes is slow at it


class Network(Kept):
    """Fulfils execution.Network for float32 CPU tensors; can be differentiated once."""

    def __init__(self, spec: MLP, flat: Tensor, mask: Tensor) -> None:
        self.spec, self.members = spec, len(flat)
        self.library = build.library()
        self._index([Groups(spec, row) for row in mask.bool()])
        self.parameters = self.pack(flat)
        self.core = self.parameters.detach().requires_grad_()
        ends = list(itertools.accumulate(spec.extra.values(), initial=0))
        self.spans = list(itertools.pairwise(ends))
        self.extra = {name: self.parameters[:, a:b].detach().requires_grad_() for name, (a, b) in zip(spec.extra, self.spans, strict=True)}
        self.leaves = [self.core, *self.extra.values()]
        self.arena = Arena()

    def _index(self, groups: list[Groups]) -> None:
        spec, depth = self.spec, len(self.spec.layers)
        values = -(-max(len(g.place) for g in groups) // ROW_ALIGNMENT) * ROW_ALIGNMENT
        self.place = torch.full((self.members, values), spec.row)  # position in the canonical row; `spec.row` where there is none
        indices = np.zeros((3, self.members, values), np.int32)
        for k, g in enumerate(groups):
            self.place[k, : len(g.place)] = torch.from_numpy(g.place)
            for to, index in zip(indices, (g.column, g.trow, g.tvalue), strict=True):
                to[k, : len(index)] = index
        units = [max(g.heights[layer] for g in groups) for layer in range(depth)]
        before = spec.norm == "before"
        heights = [1 + (1 + before) * n + 2 * bool(spec.norm) for n in units]  # rows of a tile
        offset = np.cumsum([1 + spec.sizes[0], *(heights * spec.copies)]) * TILE
        layers = (build.LayerStruct * (self.members * spec.copies * depth))()
        self.kept_alive = [indices, offset := offset.astype(np.int32), layers, [g.layers for g in groups]]
        for layer, arrays in zip(layers, itertools.chain.from_iterable(g.layers for g in groups), strict=True):
            layer.outputs, layer.inputs = len(arrays["start"]) - 1, len(arrays["visit"])
            layer.start, layer.visit, layer.tstart = (arrays[name].ctypes.data for name in ("start", "visit", "tstart"))
        self.tile = int(offset[-1])
        widest = max(heights)
        self.scratch = (1 + spec.sizes[0] + 3 * widest) * TILE + 2 * values + 8  # floats
        self.network = build.NetworkStruct(
            self.members, spec.copies, depth, spec.sizes[0], spec.sizes[-1], widest, values, spec.output == "tanh",
            NORM_EPSILON if spec.norm else 0, spec.norm == "after", spec.residual, before, self.tile,
            *(index.ctypes.data for index in indices), offset.ctypes.data, ctypes.addressof(layers),
        )  # fmt: skip
        self.address = ctypes.addressof(self.network)

    def __call__(self, *inputs: Tensor, copy: int | None = None) -> Tensor:
        if torch.is_grad_enabled():
            return _apply(self, copy, self.core, *inputs)
        return self.forward(inputs, copy, None)

    def frozen(self, *inputs: Tensor, copy: int | None = None) -> Tensor:
        if torch.is_grad_enabled():
            return _apply(self, copy, None, *inputs)
        return self.forward(inputs, copy, None)

    def input_gradient(self, *inputs: Tensor, by: int) -> tuple[Tensor, Tensor]:
        if self.spec.norm or self.spec.output != "linear" or self.spec.sizes[-1] != 1:
            raise ValueError(f"{self.spec} is not a network of one linear output without normalization")
        found: tuple[Tensor, Tensor] = _apply_gradient(self, by, self.core, *inputs)
        return found

    def forward(self, inputs: Sequence[Tensor], copy: int | None, tiles: Tensor | None) -> Tensor:
        """The output; the activations stay in `tiles` if backward is to follow."""
        members, batch, _ = inputs[0].shape
        parts: list[int] = []
        width = 0
        for x in inputs:
            (k, b, size), (by_member, by_row, step) = x.shape, x.stride()
            if step != 1 and size != 1:
                return self.forward([x.contiguous() for x in inputs], copy, tiles)
            if k != self.members or b != batch or x.dtype != torch.float32:
                width = -1
                break
            width += size
            parts += x.data_ptr(), by_member, by_row, size
        if width != self.spec.sizes[0]:
            given = [(tuple(x.shape), x.dtype) for x in inputs]
            raise ValueError(f"inputs {given} are not float32 [{self.members}, B, n] whose n add up to {self.spec.sizes[0]}")
        copies, last = self.spec.copies, self.spec.sizes[-1]
        if copy is not None and not 0 <= copy < copies:
            raise ValueError(f"copy {copy} is not one of {copies}")
        out = torch.empty((members, batch, last) if copy is not None or copies == 1 else (members, copies, batch, last))
        room = self.arena.borrow(self.tile) if tiles is None else tiles
        scratch = self.arena.borrow(self.scratch)
        arguments = (
            self.address, self.parameters.data_ptr(), len(inputs), PARTS[len(inputs)](*parts), batch, -1 if copy is None else copy,
            tiles is not None, room.data_ptr(), out.data_ptr(), scratch.data_ptr(),
        )  # fmt: skip
        tape.do(self.library.winnow_forward, arguments, (inputs, room, scratch, out))
        self.arena.give_back(scratch)
        if tiles is None:
            self.arena.give_back(room)
        return out


class _Call:
    """What backward needs of one call. Its activations' memory is given back after backward: the next networks find it in the cache. If
    backward runs once more, they are computed again. With `adjoints` it is given back when the graph that holds this is freed."""

    __slots__ = ("adjoints", "copy", "inputs", "need", "network", "rooms", "shapes", "version")

    def __init__(self, network: Network, copy: int | None, need: Sequence[bool], inputs: Sequence[Tensor], adjoints: bool = False) -> None:
        self.network, self.copy, self.need, self.shapes = network, copy, need, [x.shape for x in inputs]
        self.inputs, self.adjoints = [(x.detach(), x._version) for x in inputs], adjoints
        self.version = network.parameters._version
        self.rooms: list[Tensor] = []
        self.borrow()

    def borrow(self) -> None:
        tiles = self.network.members * -(-self.shapes[0][1] // TILE)
        self.rooms = [self.network.arena.borrow(tiles * self.network.tile) for _ in range(1 + self.adjoints)]

    def give_back(self) -> None:
        while self.rooms:
            self.network.arena.give_back(self.rooms.pop())

    def __del__(self) -> None:
        self.give_back()

    def backward(self, gradient: Tensor) -> tuple[Any, ...]:
        """The gradients of the values and of each input, where they are needed."""
        network, need, batch = self.network, self.need, self.shapes[0][1]
        self.check()
        if not self.rooms:
            if any(x._version != version for x, version in self.inputs):
                raise RuntimeError("the network's inputs were changed between its call and the second backward")
            self.borrow()
            network.forward([x for x, _ in self.inputs], self.copy, self.rooms[0])
        gradient = gradient.contiguous()
        core = torch.empty(network.parameters.shape) if need[0] else None
        inputs = [torch.empty(shape) if wanted else None for shape, wanted in zip(self.shapes, need[1:], strict=True)]
        parts: list[int] = []
        for x, (_, _, size) in zip(inputs, self.shapes, strict=True):
            parts += 0 if x is None else x.data_ptr(), batch * size, size, size
        scratch = network.arena.borrow(network.scratch)
        arguments = (
            network.address, network.parameters.data_ptr(), len(inputs), PARTS[len(inputs)](*parts), batch,
            -1 if self.copy is None else self.copy, self.rooms[0].data_ptr(), gradient.data_ptr(),
            core if core is None else core.data_ptr(), scratch.data_ptr(),
        )  # fmt: skip
        tape.do(network.library.winnow_backward, arguments, (inputs, self.rooms, scratch, gradient, core))
        network.arena.give_back(scratch)
        if not self.adjoints:
            self.give_back()
        return (None, None, core, *inputs)

    def check(self) -> None:
        if torch.is_grad_enabled():
            raise RuntimeError("execution 'sparse' can be differentiated once; take 'dense' for second derivatives")
        if self.version != self.network.parameters._version:
            raise RuntimeError("the network's parameters were changed between its call and backward")


class _Node(torch.autograd.Function):
    """The network as one node: `core` is its leaf of all values, or None where only the inputs are differentiated."""

    @staticmethod
    def forward(ctx: Any, network: Network, copy: int | None, core: Tensor | None, *inputs: Tensor) -> Tensor:
        need = ctx.needs_input_grad[2:]
        if not any(need):
            return network.forward(inputs, copy, None)
        ctx.call = _Call(network, copy, need, inputs)
        return network.forward(inputs, copy, ctx.call.rooms[0])

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Any, ...]:
        return ctx.call.backward(gradient)


class _GradientNode(torch.autograd.Function):
    """The network's value and its gradient by `inputs[by]` as one node."""

    @staticmethod
    def forward(ctx: Any, network: Network, by: int, core: Tensor, *inputs: Tensor) -> tuple[Tensor, Tensor]:
        ctx.call = call = _Call(network, None, (False, *ctx.needs_input_grad[3:]), inputs, adjoints=True)
        value = network.forward(inputs, None, call.rooms[0])
        start = sum(x.shape[-1] for x in inputs[:by])
        ctx.columns = start, start + inputs[by].shape[-1]
        gradient = torch.empty(*value.shape[:-1], inputs[by].shape[-1])
        scratch = network.arena.borrow(network.scratch)
        arguments = (
            network.address, network.parameters.data_ptr(), *ctx.columns, value.shape[-2], *(room.data_ptr() for room in call.rooms),
            gradient.data_ptr(), scratch.data_ptr(),
        )  # fmt: skip
        tape.do(network.library.winnow_input_gradient, arguments, (call.rooms, scratch, gradient))
        network.arena.give_back(scratch)
        return value, gradient

    @staticmethod
    def backward(ctx: Any, *given: Tensor) -> tuple[Any, ...]:
        call, network = ctx.call, ctx.call.network
        call.check()
        value, gradient = (cotangent.contiguous() for cotangent in given)
        core, scratch = torch.empty(network.parameters.shape), network.arena.borrow(network.scratch)
        arguments = (
            network.address, network.parameters.data_ptr(), *ctx.columns, value.shape[-2], *(room.data_ptr() for room in call.rooms),
            value.data_ptr(), gradient.data_ptr(), core.data_ptr(), scratch.data_ptr(),
        )  # fmt: skip
        tape.do(network.library.winnow_input_gradient_backward, arguments, (call.rooms, scratch, value, gradient, core))
        network.arena.give_back(scratch)
        inputs = call.backward(value)[3:] if any(call.need) else [None] * len(call.shapes)
        return (None, None, core, *inputs)


# Bypasses a wrapper in Python that only torch.func needs.
_apply: Any = super(torch.autograd.Function, _Node).apply
_apply_gradient: Any = super(torch.autograd.Function, _GradientNode).apply
