"""Whole updates on the chip: one block of threads for each pruned member of a stack, for GPUs; a CPU runs the same code in tests.

A network is computed tile by tile of the batch, from its kept weights alone, in the memory of one multiprocessor
(native/onchip_network.h, docs/decisions/029-onchip.md). Training goes further: trainables/training/onchip.py makes a program of the
whole update, whose many instructions are one launch. Called by itself, a network is a program of one instruction.

A member's row of `parameters` [K, V] holds what `sparse` keeps, in its order, with no gaps:

    | extras | copy 0: layer 0: b w w w | b w | b w w | layer 1: ... | copy 1: ... | idle | zeros up to a multiple of 16 |
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from trainables.errors import CannotComputeError
from trainables.execution import dense
from trainables.execution._kept import Kept
from trainables.execution._onchip_layout import Layout
from trainables.native import onchip
from trainables.tensors import tape
from trainables.tensors.mlp import MLP, ROW_ALIGNMENT

OTHERWISE = "fused"  # computes a stack with networks that are too large


def cannot(spec: MLP) -> str:
    """Why this execution cannot compute a network, in a few words; empty where it can."""
    if spec.norm:
        return "layer normalization"
    return f"more than {onchip.DEPTH} layers" if len(spec.layers) > onchip.DEPTH else ""


class Network(Kept):
    """Fulfils execution.Network for float32; can be differentiated once."""

    def __init__(self, spec: MLP, flat: Tensor, mask: Tensor) -> None:
        """Raises CannotComputeError where a member does not fit on the chip, or a GPU's kernel cannot be compiled."""
        self.spec, self.members, self.device = spec, len(flat), flat.device
        if why := onchip.missing(self.device):
            raise CannotComputeError(f"execution 'onchip' has no kernel for this GPU ({why}); {OTHERWISE!r} computes the stack")
        self.mask = mask.bool().cpu()
        layouts = [Layout(spec, row) for row in self.mask]
        self.shared = max(layout.shared for layout in layouts)
        if self.shared > (room := onchip.room(self.device)):
            raise CannotComputeError(
                f"execution 'onchip' cannot compute {spec.sizes} with {int(self.mask[:, : spec.used].sum(1).max()):,} weights: "
                f"{self.shared / 1024:.0f} kB on the chip, where a block has {room / 1024:.0f}; {OTHERWISE!r} can"
            )
        lengths = [len(layout.place) for layout in layouts]
        self.longest = lengths.index(max(lengths))  # the member that decides how wide the rows are
        self.width = -(-max(lengths) // ROW_ALIGNMENT) * ROW_ALIGNMENT
        place = torch.full((self.members, self.width), spec.row)
        for row, layout in zip(place, layouts, strict=True):
            row[: len(layout.place)] = torch.from_numpy(layout.place)
        self.place = place.to(self.device)
        self.parameters = self.pack(flat)
        self.core = self.parameters.detach().requires_grad_()
        self.spans = list(itertools.pairwise(itertools.accumulate(spec.extra.values(), initial=0)))
        self.extra = {name: self.parameters[:, a:b].detach().requires_grad_() for name, (a, b) in zip(spec.extra, self.spans, strict=True)}
        self.leaves = [self.core, *self.extra.values()]
        self._index([copy for layout in layouts for copy in layout.copies])

    def _index(self, copies: Sequence[Any]) -> None:
        lists = [part for copy in copies for part in (copy.forward, copy.backward, copy.units, copy.inputs)]
        ends = list(itertools.accumulate((part.nbytes for part in lists), initial=0))  # multiples of 8
        self.lists = onchip.there(b"".join(part.tobytes() for part in lists), self.device)
        at = [self.lists.data_ptr() + start for start in ends]
        made = [copy.struct(at[4 * i : 4 * i + 4]) for i, copy in enumerate(copies)]
        self.copies = onchip.there((onchip.Copy * len(made))(*made), self.device)

    def struct(self, first: Tensor | None = None, second: Tensor | None = None) -> onchip.Network:
        """As native/onchip.h has it, with Adam's moments where there are any."""
        at = [0 if rows is None else rows.data_ptr() for rows in (self.parameters, first, second)]
        spec = self.spec
        sizes = self.width, spec.copies, len(spec.layers), spec.sizes[0], spec.sizes[-1], int(spec.output == "tanh")
        return onchip.Network(*at, self.copies.data_ptr(), *sizes)

    def __call__(self, *inputs: Tensor, copy: int | None = None) -> Tensor:
        return self._call(self.core, inputs, copy)

    def frozen(self, *inputs: Tensor, copy: int | None = None) -> Tensor:
        return self._call(None, inputs, copy)

    def _call(self, core: Tensor | None, inputs: Sequence[Tensor], copy: int | None) -> Tensor:
        copy = copy if self.spec.copies > 1 else None
        if torch.is_grad_enabled():
            return _apply(self, copy, core, *inputs)
        return self.forward(inputs, copy)

    def input_gradient(self, *inputs: Tensor, by: int) -> tuple[Tensor, Tensor]:
        rows = self.core.new_zeros(self.members, self.spec.row + 1).scatter(1, self.place, self.core)
        weights, biases, _ = dense.parts(self.spec, self.spec.views(rows[:, :-1]))
        return self(*inputs), dense.value_and_gradient(self.spec, weights, biases, tuple(inputs), by)[1]

    def forward(self, inputs: Sequence[Tensor], copy: int | None) -> Tensor:
        members, batch = inputs[0].shape[:2]
        several = self.spec.copies > 1 and copy is None
        out = inputs[0].new_empty(
            (members, self.spec.copies, batch, self.spec.sizes[-1]) if several else (members, batch, self.spec.sizes[-1])
        )
        tape.do(self.compute, (inputs, copy, out), (inputs, out))
        return out

    def compute(self, inputs: Sequence[Tensor], copy: int | None, out: Tensor) -> None:
        """Write the output for inputs [K, B, n] to `out`."""
        arena = torch.cat([torch.cat(tuple(inputs), -1).flatten(1), out.flatten(1)], 1)
        start = arena.shape[1] - out[0].numel()
        made = self._pass(inputs[0].shape[1], copy, out=start, gradient=onchip.NONE)
        made.input[0] = onchip.NONE
        self._launch("forward", made, arena)
        out.copy_(arena[:, start:].view_as(out))

    def differentiate(
        self, inputs: Sequence[Tensor], copy: int | None, given: Tensor, core: Tensor | None, by_input: Sequence[Tensor | None]
    ) -> None:
        """Write the gradients of the values [K, V] to `core` and of the inputs to `by_input`, where these are wanted, for the contiguous
        gradient of the output."""
        joined = torch.cat(tuple(inputs), -1)
        wanted = any(gradient is not None for gradient in by_input)
        rows = [joined, given, *([] if core is None else [core]), *([joined] if wanted else [])]
        arena = torch.cat([row.flatten(1) for row in rows], 1)
        starts = list(itertools.accumulate((row[0].numel() for row in rows), initial=0))
        made = self._pass(joined.shape[1], copy, out=starts[1], gradient=onchip.NONE if core is None else starts[2])
        made.input[0] = starts[-2] if wanted else onchip.NONE
        self._launch("backward", made, arena)
        if core is not None:
            core.copy_(arena[:, starts[2] : starts[3]])
        if wanted:
            found = arena[:, starts[-2] :].view_as(joined)
            for gradient, part in zip(by_input, found.split([x.shape[-1] for x in inputs], -1), strict=True):
                if gradient is not None:
                    gradient.copy_(part)

    def _pass(self, batch: int, copy: int | None, out: int, gradient: int) -> onchip.Pass:
        """Of inputs that begin the arena as one tensor."""
        size = self.spec.sizes[0]
        made = onchip.Pass(0, onchip.NONE if copy is None else copy, batch, 1, out, gradient)
        made.part[0] = onchip.Part(0, size, 1, size)
        return made

    def _launch(self, code: str, operands: onchip.Pass, arena: Tensor) -> None:
        machinery = onchip.Machinery(arena, [self.struct()], [[onchip.instruction(code, operands)]])
        machinery.launch(0, [0], torch.empty(1, 0), self.shared)


class _Node(torch.autograd.Function):
    """The network as one node: `core` is its leaf of all values, or None where only the inputs are differentiated."""

    @staticmethod
    def forward(ctx: Any, network: Network, copy: int | None, core: Tensor | None, *inputs: Tensor) -> Tensor:
        ctx.network, ctx.copy = network, copy
        ctx.save_for_backward(network.core, *inputs)  # the core, so that autograd refuses one that was changed in between
        return network.forward(inputs, copy)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Any, ...]:
        _, *inputs = ctx.saved_tensors
        network, need = ctx.network, ctx.needs_input_grad[2:]
        gradient = gradient.contiguous()
        core = torch.empty_like(network.parameters) if need[0] else None
        by_input = [torch.empty(x.shape, device=x.device) if wanted else None for x, wanted in zip(inputs, need[1:], strict=True)]
        arguments = (inputs, ctx.copy, gradient, core, by_input)
        tape.do(network.differentiate, arguments, arguments)
        return None, None, core, *by_input


_apply: Any = _Node.apply
