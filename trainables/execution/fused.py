"""The whole network as one node of autograd's graph, for GPUs: batched matrix products, forward and backward written out.

Dead units (no path to the output) are left out, and all members are as wide as the widest of them: a GPU wants few large kernels, and
a size class of its own for every member (compact.py) made 3,500 for an update of 64 members. Left to autograd, a third of an update
would go into copying biases, the weights of several copies and their transposed gradients; here products read weights and write gradients
where they lie, and what is left is one pass over memory (native/kernels.cu).

A member's row of `parameters` [K, V] holds one equal part per copy, so that members and copies are one batch axis of the products:

    | copy 0: weight.0 | bias.0 | weight.1 | bias.1 | ... | extras | idle | zeros | copy 1: ... |

`weight.0` has columns of zeros up to a multiple of 8, and so have inputs: matrix units read 16 bytes at once. Idle is what was kept of
dead units: its gradient is 0. Only copy 0's extras are used.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from trainables.execution import dense
from trainables.execution.compact import idle, shrink
from trainables.native import cuda
from trainables.tensors.mlp import MLP, ROW_ALIGNMENT

COLUMNS = 8  # the inputs and the hidden units of a network are a multiple of


def cannot(spec: MLP) -> str:
    """Why this execution cannot compute a network, in a few words; empty where it can."""
    return "layer normalization" if spec.norm else ""  # a dead unit counts in its mean


def multiples(spec: MLP, live: Sequence[int]) -> tuple[int, ...]:
    """Hidden widths for `live` units per hidden layer; at least COLUMNS, since a GPU cannot multiply empty matrices."""
    return tuple(min(full, -(-max(n, 1) // COLUMNS) * COLUMNS) for n, full in zip(live, spec.sizes[1:-1], strict=True))


class Network:
    """Fulfils execution.Network for any device; can be differentiated once."""

    def __init__(self, spec: MLP, flat: Tensor, mask: Tensor) -> None:
        self.spec, self.members = spec, len(flat)
        self.place = self._layout(mask)
        self.mask = torch.nn.functional.pad(mask, (0, 1)).gather(1, self.place)
        self.parameters = self.pack(flat)
        used = self.mask.view(-1, self.width)[:, : self.used]
        self.masked = bool((used[self.place.view(-1, self.width)[:, : self.used] != spec.row] == 0).any())
        self.core = self.parameters.detach().requires_grad_()
        ends = itertools.accumulate(spec.extra.values(), initial=self.used)
        self.spans = dict(zip(spec.extra, itertools.pairwise(ends), strict=True))
        self.extra = {name: self.parameters[:, a:b].detach().requires_grad_() for name, (a, b) in self.spans.items()}
        self.leaves = [self.core, *self.extra.values()]
        self.filling: dict[torch.Size, Tensor] = {}

    def _layout(self, mask: Tensor) -> Tensor:
        """The canonical place of each number of the rows [K, V] (`spec.row`: there is none); sets the sizes of a copy's part."""
        spec = self.spec
        small, place = shrink(spec, mask, multiples)
        views = small.views(place)
        inputs = -(-spec.sizes[0] // COLUMNS) * COLUMNS
        views["weight.0"] = torch.nn.functional.pad(views["weight.0"], (0, inputs - spec.sizes[0]), value=spec.row)
        self.sizes = inputs, *small.sizes[1:]
        parts = [view.flatten(2) for view in views.values()]
        self.used = sum(part.shape[2] for part in parts)
        self.segments = [part.shape[2] for part in parts]
        extras = torch.full((len(mask), spec.copies, sum(spec.extra.values())), spec.row, device=mask.device)
        extras[:, 0] = torch.arange(spec.used - extras.shape[2], spec.used, device=mask.device)
        rest = idle(spec, mask, place)
        rest = torch.nn.functional.pad(rest, (0, -rest.shape[1] % spec.copies), value=spec.row).unflatten(1, (spec.copies, -1))
        row = torch.cat([*parts, extras, rest], dim=2)
        self.width = -(-row.shape[2] // ROW_ALIGNMENT) * ROW_ALIGNMENT
        return torch.nn.functional.pad(row, (0, self.width - row.shape[2]), value=spec.row).flatten(1)

    def layers(self, rows: Tensor, copy: int | None = None) -> list[tuple[Tensor, Tensor]]:
        """Weights [N, out, in] and biases [N, out] of each layer inside `rows` [K, V]; N is K C, or K where one copy is asked for."""
        copies = rows.view(self.members, self.spec.copies, self.width)
        chosen = copies[:, copy] if copy is not None else copies.view(-1, self.width)
        parts = chosen[:, : self.used].split(self.segments, dim=1)
        return [(w.unflatten(1, (n, -1)), b) for w, b, n in zip(parts[::2], parts[1::2], self.sizes[1:], strict=True)]

    def __call__(self, *inputs: Tensor, copy: int | None = None) -> Tensor:
        return self._call(self.core, inputs, copy)

    def frozen(self, *inputs: Tensor, copy: int | None = None) -> Tensor:
        return self._call(None, inputs, copy)

    def _call(self, core: Tensor | None, inputs: Sequence[Tensor], copy: int | None) -> Tensor:
        copy = copy if self.spec.copies > 1 else None
        if torch.is_grad_enabled():
            out: Tensor = _apply(self, copy, core, *inputs)
        else:
            out = self.forward(self.gathered(inputs, copy), copy)[-1]
        return out.unflatten(0, (self.members, -1)) if self.spec.copies > 1 and copy is None else out

    def input_gradient(self, *inputs: Tensor, by: int) -> tuple[Tensor, Tensor]:
        shape = self.members, self.spec.copies
        layers = [(weight.unflatten(0, shape), bias.unflatten(0, shape)) for weight, bias in self.layers(self.core)]
        weights, biases = [weight for weight, _ in layers], [bias for _, bias in layers]
        weights[0] = weights[0][..., : self.spec.sizes[0]]
        return dense.value_and_gradient(self.spec, weights, biases, tuple(inputs), by)

    def collect(self, gradients: Sequence[Tensor]) -> Tensor:
        core = gradients[0]
        for (a, b), extra in zip(self.spans.values(), gradients[1:], strict=True):
            core[:, a:b] = extra
        return core.mul_(self.mask) if self.masked else core

    def pack(self, flat: Tensor) -> Tensor:
        return torch.nn.functional.pad(flat, (0, 1)).gather(1, self.place).masked_fill_(self.mask == 0, 0)

    def unpack(self, packed: Tensor) -> Tensor:
        whole = packed.new_zeros(self.members, self.spec.row + 1).scatter_(1, self.place, packed.masked_fill(self.mask == 0, 0))
        return whole[:, :-1].contiguous()

    def gathered(self, inputs: Sequence[Tensor], copy: int | None) -> Tensor:
        """The inputs side by side and filled up, [N, B, in]."""
        missing = self.sizes[0] - self.spec.sizes[0]
        if missing:
            shape = inputs[0].shape[:2]
            if shape not in self.filling:
                self.filling[shape] = inputs[0].new_zeros(*shape, missing)
            inputs = [*inputs, self.filling[shape]]
        x = torch.cat(list(inputs), dim=-1)
        if self.spec.copies > 1 and copy is None:
            x = x.unsqueeze(1).expand(-1, self.spec.copies, -1, -1).flatten(0, 1)
        return x

    def forward(self, x: Tensor, copy: int | None) -> list[Tensor]:
        """The activations [N, B, .] of all layers, the inputs `x` first and the output last."""
        activations, layers = [x], self.layers(self.parameters, copy)
        for weight, bias in layers[:-1]:
            activations.append(rectified(torch.bmm(activations[-1], weight.transpose(1, 2)), bias))
        weight, bias = layers[-1]
        out = torch.bmm(activations[-1], weight.transpose(1, 2)).add_(bias.unsqueeze(1))
        return [*activations, out.tanh_() if self.spec.output == "tanh" else out]

    def backward(
        self, gradient: Tensor, activations: Sequence[Tensor], copy: int | None, widths: Sequence[int], need: Sequence[bool]
    ) -> tuple[Tensor | None, ...]:
        """The gradients of `core` and of the inputs, whose `widths` are given, where there is `need`."""
        *below, out = activations
        if self.spec.output == "tanh":
            gradient = torch.ops.aten.tanh_backward(gradient, out)
        layers, core = self.layers(self.parameters, copy), None
        if need[0]:
            core = torch.empty_like(self.parameters) if copy is None else torch.zeros_like(self.parameters)
            core.view(-1, self.width)[:, self.used :] = 0
            to = self.layers(core, copy)
            torch.sum(gradient, 1, out=to[-1][1])
        for index in reversed(range(len(layers))):
            if need[0]:
                torch.bmm(gradient.transpose(1, 2), below[index], out=to[index][0])
            if index:
                gradient = through(gradient, layers[index][0], below[index], to[index - 1][1] if need[0] else None)
        by_input: list[Tensor | None] = []
        for (a, b), wanted in zip(itertools.pairwise(itertools.accumulate(widths, initial=0)), need[1:], strict=True):
            part = torch.bmm(gradient, layers[0][0][..., a:b]) if wanted else None
            if part is not None and len(part) > self.members:
                part = part.unflatten(0, (self.members, -1)).sum(1)
            by_input.append(part)
        return core, *by_input


class _Node(torch.autograd.Function):
    """`core` is the network's leaf of all values, or None where only the inputs are differentiated."""

    @staticmethod
    def forward(ctx: Any, network: Network, copy: int | None, core: Tensor | None, *inputs: Tensor) -> Tensor:
        activations = network.forward(network.gathered(inputs, copy), copy)
        ctx.network, ctx.copy, ctx.widths = network, copy, [x.shape[-1] for x in inputs]
        ctx.save_for_backward(network.core, *activations)  # the core, so that autograd refuses one that was changed in between
        return activations[-1]

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Any, ...]:
        _, *activations = ctx.saved_tensors
        return None, None, *ctx.network.backward(gradient, activations, ctx.copy, ctx.widths, ctx.needs_input_grad[2:])


_apply: Any = _Node.apply


def rectified(x: Tensor, bias: Tensor) -> Tensor:
    """max(x + bias, 0), NaN where a sum is, in place of x [N, B, H], for biases [N, H]."""
    return cuda.rectify(x, bias) if cuda.serves(x, bias) else x.add_(bias.unsqueeze(1)).relu_()


def through(gradient: Tensor, weight: Tensor, y: Tensor, sums: Tensor | None) -> Tensor:
    """Backpropagate `gradient` [N, B, out] through the layer of `weight` [N, out, H] and the ReLU below it, whose results are y [N, B, H];
    the sums over B, which are the biases' gradient, go into `sums` [N, H]."""
    if cuda.serves(y, weight, *([] if sums is None else [sums])):
        if weight.shape[1] == 1:
            return cuda.gate_outer(gradient, weight, y, sums)
        return cuda.gate(torch.bmm(gradient, weight), y, sums)
    below: Tensor = torch.ops.aten.threshold_backward(torch.bmm(gradient, weight), y, 0)
    if sums is not None:
        torch.sum(below, 1, out=sums)
    return below
