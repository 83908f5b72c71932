"""A mask: a list over layers of {0, 1} tensors [K, C, out, in], 1 = kept. How it is laid out as rows and
as bits, and which of it lies on a path from an input to an output."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from trainables.errors import UserError
from trainables.tensors.mlp import MLP

Mask = list[Tensor]


def ones(spec: MLP, members: int, device: str | torch.device = "cpu") -> Mask:
    """The mask that keeps everything."""
    return [torch.ones(members, spec.copies, n_out, n_in, device=device) for n_in, n_out in spec.layers]


def to_row(spec: MLP, mask: Mask) -> Tensor:
    """Canonical mask rows [K, D]: the weights' masks, 1 on biases, extras and padding."""
    row = torch.ones(mask[0].shape[0], spec.row, device=mask[0].device)
    views = spec.views(row)
    for index, layer in enumerate(mask):
        views[f"weight.{index}"].copy_(layer)
    return row


def from_row(spec: MLP, row: Tensor) -> Mask:
    """The weights' masks in canonical rows [K, D], as views."""
    views = spec.views(row)
    return [views[f"weight.{index}"] for index in range(len(spec.layers))]


def pack_bits(mask: Mask, member: int) -> Tensor:
    """One bit per prunable weight of a member, layer after layer, uint8."""
    flat = np.concatenate([layer[member].flatten().cpu().numpy().astype(bool) for layer in mask])
    return torch.from_numpy(np.packbits(flat))


def unpack_bits(spec: MLP, packed: Sequence[Tensor]) -> Mask:
    """The mask [K, C, out, in] per layer from K packed members."""
    flat = torch.stack([unpacked(bits, sum(spec.weights_per_layer)) for bits in packed]).float()
    parts = flat.split(spec.weights_per_layer, dim=1)
    return [part.unflatten(1, (spec.copies, n_out, n_in)) for part, (n_in, n_out) in zip(parts, spec.layers, strict=True)]


def unpacked(bits: Tensor, count: int) -> Tensor:
    """The first `count` bits, uint8; raises UserError where there are more or fewer bytes than that takes."""
    if bits.dtype != torch.uint8 or bits.shape != (-(-count // 8),):
        raise UserError(f"a mask has {bits.numel()} bytes; {count} weights take {-(-count // 8)}")
    return torch.from_numpy(np.unpackbits(bits.numpy(), count=count))


def on_path(mask: Mask, residual: bool = False) -> Mask:
    """The part of a mask that lies on some input-to-output path, counted per copy (copies share no unit). In a `residual` network, a path
    may go past a block."""
    return between(mask, live_units(mask, residual))


def between(mask: Mask, live: Sequence[Tensor]) -> Mask:
    """The part of a mask between the units that `live_units` gives: that on a path."""
    return [layer * live[i].unsqueeze(-2) * live[i + 1].unsqueeze(-1) for i, layer in enumerate(mask)]


def live_units(mask: Mask, residual: bool = False) -> list[Tensor]:
    """Inputs, then per layer bool [K, C, units]: whether the unit, or the input, lies on a path. In a `residual` network a unit of the
    stream may do so without a weight of the next block."""
    reached, useful = [torch.ones_like(mask[0][..., 0, :])], useful_units(mask, residual)  # reached: some input reaches the unit
    for index, layer in enumerate(mask):
        units = ((layer * reached[-1].unsqueeze(-2)).sum(-1) > 0).float()
        reached.append(torch.maximum(units, reached[index - 1]) if residual and index and index % 2 == 0 else units)
    seen = (mask[0] * useful[1].unsqueeze(-1)).sum(-2) > 0
    return [seen, *((r > 0) & u for r, u in zip(reached[1:], useful[1:], strict=True))]


def useful_units(mask: Mask, residual: bool = False) -> list[Tensor]:
    """Inputs, then per layer bool [K, C, units]: whether the unit reaches an output; inputs and outputs always count."""
    useful = [torch.ones_like(mask[-1][..., :, 0], dtype=torch.bool)]
    for index in reversed(range(1, len(mask))):
        units = (mask[index] * useful[0].unsqueeze(-1)).sum(-2) > 0
        # What layer 0, 2, ... adds to the stream also stays there, past the block that layer `index` begins.
        useful.insert(0, units | useful[1] if residual and index % 2 and index + 1 < len(mask) else units)
    return [torch.ones_like(mask[0][..., 0, :], dtype=torch.bool), *useful]
