"""Masks with a structure, filled by any saliency: whole units, the same number of inputs for each unit, or n of m adjacent inputs.

`units`   hidden units are removed whole, by the sum of their scores over incoming and outgoing weights, until the network is as wide as
          the pruner `small_dense` would make it
`fan_in`  every unit keeps the same number of inputs, round(density n_in), at least 1
`2:4`     of every 4 adjacent inputs of a unit 2 are kept (Mishra et al. 2021); a last group of fewer inputs keeps at most 2

The number of weights is therefore near round(density P), not exactly that. A network whose sparsity is 0 stays whole.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import pad

from trainables.errors import UserError
from trainables.pruning.narrow import shrink
from trainables.tensors.mask import Mask
from trainables.tensors.mlp import MLP


def structured(structure: str, spec: MLP, saliency: Sequence[Tensor], densities: Sequence[float]) -> Mask:
    """The mask of a network; `saliency[l]` is [K, C, out, in], and member k keeps about `densities[k]`. Raises UserError for a NaN."""
    if any(bool(torch.isnan(layer).any()) for layer in saliency):
        raise UserError(f"the saliency is NaN; nothing is pruned by structure {structure!r}")
    if structure == "units":
        return _units(spec, saliency, densities)
    if structure == "fan_in":
        return [_highest(layer, [max(1, round(density * layer.shape[-1])) for density in densities]) for layer in saliency]
    kept, group = (int(number) for number in structure.split(":"))
    return [_in_groups(layer, [kept if density < 1 else group for density in densities], group) for layer in saliency]


def _highest(scores: Tensor, keep: Sequence[int]) -> Tensor:
    """1 for member k's `keep[k]` highest scores along the last axis of [K, ...]; ties go to the lower index."""
    order = torch.sort(scores, dim=-1, descending=True, stable=True).indices
    ranks = torch.arange(scores.shape[-1], device=scores.device).expand_as(order)
    rank = torch.empty_like(order).scatter_(-1, order, ranks)
    return (rank < torch.tensor(list(keep), device=scores.device).reshape(-1, *[1] * (scores.dim() - 1))).float()


def _in_groups(layer: Tensor, keep: Sequence[int], group: int) -> Tensor:
    inputs = layer.shape[-1]
    groups = pad(layer, (0, -inputs % group), value=-torch.inf).unflatten(-1, (-1, group))
    return _highest(groups, keep).flatten(-2)[..., :inputs]


def _units(spec: MLP, saliency: Sequence[Tensor], densities: Sequence[float]) -> Mask:
    if spec.norm and min(densities) < 1:  # a plug-in's, whose source does not show it
        raise UserError("structure 'units' does not fit a network with layer normalization: removed units would count in its mean")
    widths = [shrink(spec, density).sizes for density in densities]
    alive = [torch.ones_like(saliency[0][:, :, 0, :])]  # of each layer's inputs, [K, C, in]
    for index, (layer, after) in enumerate(itertools.pairwise(saliency)):
        alive.append(_highest(layer.sum(-1) + after.sum(-2), [sizes[index + 1] for sizes in widths]))
    alive.append(torch.ones_like(saliency[-1][..., 0]))
    return [above.unsqueeze(-1) * below.unsqueeze(-2) for below, above in itertools.pairwise(alive)]
