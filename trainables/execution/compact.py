"""Dead units left out, the rest computed densely: exact, and the way for GPUs, which do not like scattered weights.

A unit from which no path leads to an output never gets a gradient and changes nothing, so it is left out. A unit that no input reaches
but that reaches an output is a trainable constant and stays. Hidden widths are rounded up to a size class, by each member's own
mask, so that a member computes the same whatever its stack-mates; neighbours of one class are computed together.

    canonical row [D]  --place-->  row [V]: | extras | the smaller network's row | idle | padding      `place` = D means padding

Kept weights of dead units are idle: no gradient reaches them, and they are stored so that a checkpoint is the same in every execution.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from trainables.execution import dense
from trainables.tensors.mask import from_row, useful_units
from trainables.tensors.mlp import MLP, ROW_ALIGNMENT

CLASSES = sorted({base * 2**power for base in (16, 24) for power in range(16)})  # 16, 24, 32, 48, 64, 96, ...: at most half too wide


def cannot(spec: MLP) -> str:
    """Why this execution cannot compute a network, in a few words; empty where it can."""
    return "layer normalization" if spec.norm else ""  # a dead unit counts in its mean


class Network:
    """Fulfils execution.Network for any device; differentiable any number of times."""

    def __init__(self, spec: MLP, flat: Tensor, mask: Tensor) -> None:
        self.spec = spec
        self.parts = [_Part(spec, list(members), mask) for members in neighbours(spec, mask)]
        places = [place for part in self.parts for place in part.place]
        width = aligned(max(len(place) for place in places))
        self.place = torch.stack([torch.nn.functional.pad(place, (0, width - len(place)), value=spec.row) for place in places])
        self.mask = torch.nn.functional.pad(mask, (0, 1)).gather(1, self.place)
        self.parameters = self.pack(flat)
        self.gradient = torch.zeros_like(self.parameters)
        ends = itertools.accumulate(spec.extra.values(), initial=0)
        self.spans = dict(zip(spec.extra, itertools.pairwise(ends), strict=True))
        self.extra = {name: self.parameters[:, a:b].detach().requires_grad_() for name, (a, b) in self.spans.items()}
        self.leaves = [*self.extra.values(), *itertools.chain.from_iterable(part.bind(self.parameters) for part in self.parts)]

    def __call__(self, *inputs: Tensor, copy: int | None = None) -> Tensor:
        return self._joined([part(inputs, copy) for part in self.parts])

    def frozen(self, *inputs: Tensor, copy: int | None = None) -> Tensor:
        return self._joined([part(inputs, copy, frozen=True) for part in self.parts])

    def input_gradient(self, *inputs: Tensor, by: int) -> tuple[Tensor, Tensor]:
        values, slopes = zip(*(part.value_and_gradient(inputs, by) for part in self.parts), strict=True)
        return self._joined(list(values)), self._joined(list(slopes))

    def collect(self, gradients: Sequence[Tensor]) -> Tensor:
        remaining = iter(gradients)
        for a, b in self.spans.values():
            self.gradient[:, a:b] = next(remaining)
        for part in self.parts:
            layers = [gradient.flatten(1) for gradient in itertools.islice(remaining, len(part.leaves))]
            torch.cat(layers, dim=1, out=part.row_of(self.gradient))
        return self.gradient.mul_(self.mask)

    def pack(self, flat: Tensor) -> Tensor:
        return torch.nn.functional.pad(flat, (0, 1)).gather(1, self.place).masked_fill_(self.mask == 0, 0)

    def unpack(self, packed: Tensor) -> Tensor:
        whole = packed.new_zeros(len(packed), self.spec.row + 1).scatter_(1, self.place, packed.masked_fill(self.mask == 0, 0))
        return whole[:, :-1].contiguous()

    def _joined(self, outputs: list[Tensor]) -> Tensor:
        # Contiguous either way: a sum over what follows rounds by how it lies in memory.
        return outputs[0].contiguous() if len(outputs) == 1 else torch.cat(outputs)


class _Part:
    """Neighbouring members of one size class."""

    def __init__(self, spec: MLP, members: list[int], mask: Tensor) -> None:
        self.members = slice(members[0], members[-1] + 1)
        mask = mask[self.members]
        self.small, weights = shrink(spec, mask)
        self.first = aligned(sum(spec.extra.values()))  # a matrix starts at a SIMD register
        extras = torch.full((len(mask), self.first), spec.row, device=mask.device)
        start = spec.used - sum(spec.extra.values())
        extras[:, : spec.used - start] = torch.arange(start, spec.used, device=mask.device)
        self.place = torch.cat([extras, weights, idle(spec, mask, weights)], dim=1)

    def row_of(self, rows: Tensor) -> Tensor:
        """The smaller network's part [members, .] of rows [K, V]."""
        return rows[self.members, self.first : self.first + self.small.used]

    def bind(self, parameters: Tensor) -> list[Tensor]:
        """The leaves: views of `parameters` [K, V]."""
        views = {name: view.detach().requires_grad_() for name, view in self.small.views(self.row_of(parameters)).items()}
        self.leaves = list(views.values())
        self.weights = [view for name, view in views.items() if name.startswith("weight.")]
        self.biases = [view for name, view in views.items() if name.startswith("bias.")]
        return self.leaves

    def __call__(self, inputs: Sequence[Tensor], copy: int | None, frozen: bool = False) -> Tensor:
        weights, biases = self.weights, self.biases
        if frozen:
            weights, biases = [w.detach() for w in weights], [b.detach() for b in biases]
        return dense.forward(self.small, weights, biases, {}, tuple(x[self.members] for x in inputs), copy)

    def value_and_gradient(self, inputs: Sequence[Tensor], by: int) -> tuple[Tensor, Tensor]:
        return dense.value_and_gradient(self.small, self.weights, self.biases, tuple(x[self.members] for x in inputs), by)


def aligned(count: int) -> int:
    return -(-count // ROW_ALIGNMENT) * ROW_ALIGNMENT


def neighbours(spec: MLP, mask: Tensor) -> list[list[int]]:
    """Runs of members whose hidden widths are of the same size classes."""
    live = [layer.sum(-1).amax(-1).tolist() for layer in useful_units(from_row(spec, mask))[1:-1]]
    classes = [size_class(spec, [layer[k] for layer in live]) for k in range(len(mask))]
    return [list(run) for _, run in itertools.groupby(range(len(mask)), key=classes.__getitem__)]


def size_class(spec: MLP, live: Sequence[int]) -> tuple[int, ...]:
    """Hidden widths for `live` units per hidden layer."""
    return tuple(min(full, next(size for size in CLASSES if size >= n)) for n, full in zip(live, spec.sizes[1:-1], strict=True))


def shrink(spec: MLP, mask: Tensor, widths: Callable[[MLP, Sequence[int]], tuple[int, ...]] = size_class) -> tuple[MLP, Tensor]:
    """The smaller network of members of one class, and the canonical place of each number of its rows [K, V] (`spec.row`: padding).

    `widths` are the hidden ones for so many live units per hidden layer."""
    useful = useful_units(from_row(spec, mask))
    hidden = widths(spec, [int(layer.sum(-1).max()) for layer in useful[1:-1]])
    small = replace(spec, sizes=(spec.sizes[0], *hidden, spec.sizes[-1]), extra={})
    # Live units first, in their order; the first `size` of them are taken, dead ones among these are padding.
    order = [torch.sort(~layer, dim=-1, stable=True).indices[..., :n] for layer, n in zip(useful, small.sizes, strict=True)]
    alive = [layer.gather(-1, index) for layer, index in zip(useful, order, strict=True)]
    place = torch.full((len(mask), small.row), spec.row, device=mask.device)
    to, source = small.views(place), spec.segments
    copy = torch.arange(spec.copies, device=mask.device).reshape(1, -1, 1)
    for index, (n_in, n_out) in enumerate(spec.layers):
        rows, columns = order[index + 1], order[index]  # [K, C, units]
        weight = source[f"weight.{index}"][0] + ((copy * n_out + rows) * n_in).unsqueeze(-1) + columns.unsqueeze(-2)
        both = alive[index + 1].unsqueeze(-1) & alive[index].unsqueeze(-2)
        to[f"weight.{index}"].copy_(torch.where(both, weight, spec.row))
        bias = source[f"bias.{index}"][0] + copy * n_out + rows
        to[f"bias.{index}"].copy_(torch.where(alive[index + 1], bias, spec.row))
    return small, place


def idle(spec: MLP, mask: Tensor, place: Tensor) -> Tensor:
    """The canonical places [K, n] that are kept and not among `place` [K, V], padded with `spec.row`; extras are never idle."""
    left = torch.nn.functional.pad(mask, (0, 1)).scatter(1, place, 0)[:, :-1] > 0
    left[:, spec.used - sum(spec.extra.values()) :] = False
    order = torch.sort(~left, dim=1, stable=True).indices[:, : int(left.sum(1).max())]
    return torch.where(left.gather(1, order), order, spec.row)
