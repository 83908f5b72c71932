"""Plain copies of pruned modules: dense with zeros, or without the units that pruning left dead."""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Mapping
from itertools import pairwise
from typing import cast

import torch
from torch import Tensor, nn

from trainables.library.hold import Hold
from trainables.library.weights import Modules, parts, several, weights

# Activations that compute each unit alone, and always the same.
ALONE = (
    nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.ELU, nn.SELU, nn.CELU, nn.GELU, nn.SiLU, nn.Mish, nn.Tanh, nn.Sigmoid, nn.Softplus, nn.Softsign,
    nn.Hardtanh, nn.Hardsigmoid, nn.Hardswish, nn.Identity,
)  # fmt: skip


def folded(network: Modules, masks: Mapping[str, Tensor], smaller: bool) -> Modules:
    """Copies of a network's modules that nothing holds; without dead units, if they are to be `smaller`."""
    modules = copy.deepcopy(parts(network))
    for module in modules:
        for parameter in module.parameters():
            if (hold := Hold.of(parameter)) is not None:
                hold.release()
    again: Modules = modules if several(network) else modules[0]
    if smaller:
        slots = weights(again, frozen=True)[0]
        of = {id(slot.layer): masks[name] != 0 for name, slot in slots.items() if name in masks and len(slot.owners) == 1}
        uses = Counter(id(child) for module in modules for layer in module.modules() for child in layer._modules.values())
        masked = {layer: mask for layer, mask in of.items() if uses[layer] == 1}
        for module in modules:
            for layer in module.modules():
                if type(layer) is nn.Sequential:
                    _shrink(layer, masked)
    return nn.ModuleList(modules) if isinstance(network, nn.ModuleList) else again


def _shrink(layers: nn.Sequential, masks: dict[int, Tensor]) -> None:
    """Take out the units between two linear layers in a row to or from which no weight leads; `masks` by layer, bool [out, in]."""
    rows: list[tuple[nn.Linear, list[nn.Module], nn.Linear]] = []
    inside = list(layers)
    linear = [index for index, layer in enumerate(inside) if type(layer) is nn.Linear and id(layer) in masks]
    for i, j in pairwise(linear):
        between = inside[i + 1 : j]
        if all(type(layer) in ALONE for layer in between):
            rows.append((cast(nn.Linear, inside[i]), between, cast(nn.Linear, inside[j])))
    for first, _, second in reversed(rows):  # a unit that is taken out may have been the only one that another led to
        _keep(first, second, masks[id(second)].any(0), masks)
    for first, between, second in rows:
        silent = ~masks[id(first)].any(1)  # no weight leads to them: their output is a constant
        with torch.no_grad():
            constant = (
                torch.zeros(first.out_features).to(first.weight) if _biasless(first) else first.bias.clone()
            )  # an activation may work in place
            for layer in between:
                constant = layer(constant)
            if _biasless(second):
                silent &= constant == 0
            elif silent.any() and not silent.all():
                second.bias.add_(second.weight[:, silent] @ constant[silent])
        _keep(first, second, ~silent, masks)


def _keep(first: nn.Linear, second: nn.Linear, units: Tensor, masks: dict[int, Tensor]) -> None:
    """Keep some of the units between two layers; where none is alive, all stay, because a layer needs one."""
    if not units.any() or units.all():
        return
    with torch.no_grad():
        first.weight = nn.Parameter(first.weight[units], first.weight.requires_grad)
        if not _biasless(first):
            first.bias = nn.Parameter(first.bias[units], first.bias.requires_grad)
        second.weight = nn.Parameter(second.weight[:, units], second.weight.requires_grad)
    first.out_features = second.in_features = int(units.sum())
    masks[id(first)], masks[id(second)] = masks[id(first)][units], masks[id(second)][:, units]


def _biasless(layer: nn.Linear) -> bool:
    bias: Tensor | None = layer.bias
    return bias is None
