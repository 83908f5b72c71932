"""From saliency to mask: which weights to keep."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from trainables.errors import UserError
from trainables.tensors.mask import Mask, on_path
from trainables.tensors.mlp import MLP

Budgets = Callable[[MLP, float], list[int]]  # weights kept per layer at a density


def kept(density: float, prunable: int) -> int:
    """How many of `prunable` weights a density in (0, 1] keeps: round(d P)."""
    return round(density * prunable)


def threshold(saliency: Sequence[Tensor], keep: Sequence[int]) -> Mask:
    """Keep exactly `keep[k]` weights of member k, those of highest saliency over all layers and copies together.

    `saliency[l]` is [K, C, out, in]; -inf marks a weight that may not be kept. Ties go to the lower flat index (layer, copy,
    row, column), so the same saliency always gives the same mask. Raises UserError for a NaN.
    """
    flat = torch.cat([layer.flatten(1) for layer in saliency], dim=1)
    for member, missing in enumerate(torch.isnan(flat).sum(1).tolist()):
        if missing:
            raise UserError(f"the saliency of member {member} is NaN for {missing} weights; nothing is pruned")
    total = flat.shape[1]
    # The lowest score that is kept, found without sorting; of the weights that share it, the first ones fill what is left.
    bar = flat.new_full((len(flat), 1), math.inf)
    for count in set(keep) - {0}:
        same = [member for member, own in enumerate(keep) if own == count]
        bar[same] = flat[same].kthvalue(total - count + 1, dim=1, keepdim=True).values
    above, equal = flat > bar, flat == bar
    left = torch.tensor(list(keep), device=flat.device).unsqueeze(1) - above.sum(1, keepdim=True)
    chosen = (above | (equal & (equal.cumsum(1) <= left))).float()
    split = chosen.split([layer[0].numel() for layer in saliency], dim=1)
    return [part.reshape(layer.shape) for part, layer in zip(split, saliency, strict=True)]


def threshold_in_layers(saliency: Sequence[Tensor], budgets: Sequence[Sequence[int]]) -> Mask:
    """The same inside each layer and copy alone: `budgets[k][l]` weights of member k's layer l, shared evenly by its copies."""
    mask: Mask = []
    for index, layer in enumerate(saliency):
        copies = layer.shape[1]
        parts = []
        for copy in range(copies):
            share = [budget[index] // copies + (copy < budget[index] % copies) for budget in budgets]
            parts.append(threshold([layer[:, copy : copy + 1]], share)[0])
        mask.append(torch.cat(parts, dim=1))
    return mask


def choose(
    specs: Mapping[str, MLP],
    saliency: Mapping[str, Sequence[Tensor]],
    densities: Mapping[str, Sequence[float]],
    scope: str = "network",
    target: str = "nominal",
    budgets: Budgets | None = None,
) -> dict[str, Mask]:
    """The masks of all networks from their saliencies; `densities[name][k]` is what member k keeps of a network.

    `scope` says within what weights are ranked: "network", "joint" (all networks, by their raw scores) or "layer" (the same density in
    each); `budgets(spec, density)` per layer takes precedence. With the target "nominal", sparsity is counted directly, on the mask. With
    "effective", it is counted on the weights that lie on a path, as closely as the ranking allows, and no others are kept.
    """
    if scope == "layer":
        budgets = even
    masks: dict[str, Mask] = {}
    for names in [list(specs)] if scope == "joint" else [[name] for name in specs]:

        def cut(asked: Mapping[str, Sequence[float]], names: list[str] = names) -> dict[str, Mask]:
            if budgets:
                return {name: threshold_in_layers(saliency[name], [budgets(specs[name], d) for d in asked[name]]) for name in names}
            totals = [sum(specs[name].weights_per_layer) for name in names]
            keep = [sum(map(kept, member, totals)) for member in zip(*(asked[name] for name in names), strict=True)]
            layers = threshold([layer for name in names for layer in saliency[name]], keep)
            return {name: [layers.pop(0) for _ in saliency[name]] for name in names}

        wanted = {name: densities[name] for name in names}
        masks |= cut(wanted) if target == "nominal" else on_paths(cut, wanted, {name: specs[name] for name in names})
    return masks


def on_paths(
    cut: Callable[[Mapping[str, Sequence[float]]], dict[str, Mask]], asked: Mapping[str, Sequence[float]], specs: Mapping[str, MLP]
) -> dict[str, Mask]:
    """Masks with as many weights on a path as `asked`, by bisection on what `cut` keeps, per member (Vysogorets & Kempe 2023)."""
    totals = {name: sum(spec.weights_per_layer) for name, spec in specs.items()}
    members, total = range(len(next(iter(asked.values())))), sum(totals.values())
    wanted = [sum(kept(asked[name][k], totals[name]) for name in totals) for k in members]

    def live(counts: Sequence[int]) -> tuple[dict[str, Mask], list[int]]:
        cuts = cut({name: [count / total for count in counts] for name in totals})
        alive = {name: on_path(mask, specs[name].residual) for name, mask in cuts.items()}
        return alive, [sum(int(layer[k].sum()) for mask in alive.values() for layer in mask) for k in members]

    low, high = list(wanted), [total] * len(wanted)
    while low != high:  # the smallest count that leaves at least as many as wanted
        middle = [(a + b) // 2 for a, b in zip(low, high, strict=True)]
        enough = [count >= want for count, want in zip(live(middle)[1], wanted, strict=True)]
        low = [a if ok else min(m + 1, b) for a, b, m, ok in zip(low, high, middle, enough, strict=True)]
        high = [m if ok else b for b, m, ok in zip(high, middle, enough, strict=True)]
    (above, more), (below, less) = live(high), live([max(1, count - 1) for count in high])
    nearer = [k for k in members if abs(less[k] - wanted[k]) < abs(more[k] - wanted[k])]
    for name, mask in above.items():
        for layer, other in zip(mask, below[name], strict=True):
            layer[nearer] = other[nearer]
    return above


def even(spec: MLP, density: float) -> list[int]:
    """The same density in every layer, exactly round(density P) weights in all."""
    return apportion([density * n for n in spec.weights_per_layer], kept(density, sum(spec.weights_per_layer)))


def shuffled(layer: Tensor, random: Tensor) -> Tensor:
    """A layer's mask [K, C, out, in] with its entries permuted within each copy, in the order of `random`."""
    order = random.flatten(2).argsort(dim=2, stable=True)
    return layer.flatten(2).gather(2, order).reshape(layer.shape)


def apportion(wanted: Sequence[float], total: int) -> list[int]:
    """Whole numbers that sum to `total`, nearest to `wanted` (largest remainder, ties to the first)."""
    counts = [math.floor(value) for value in wanted]
    by_remainder = sorted(range(len(wanted)), key=lambda i: (counts[i] - wanted[i], i))
    for index in by_remainder[: total - sum(counts)]:
        counts[index] += 1
    return counts


def check_numbers(network: str, saliency: Sequence[Tensor], names: Sequence[str]) -> None:
    """Raise UserError, naming trial and network, when scores of some member are NaN."""
    missing = torch.stack([torch.isnan(layer).flatten(1).sum(1) for layer in saliency]).sum(0)
    for name, count in zip(names, missing.tolist(), strict=True):
        if count:
            total = sum(layer[0].numel() for layer in saliency)
            raise UserError(f"{name}: the saliency of the {network} is NaN for {count} of {total} weights; nothing is pruned")


def check_connected(network: str, mask: Mask, names: Sequence[str], residual: bool = False) -> None:
    """Raise UserError, naming trial, network and layer, when a copy of some member has no path from input to output."""
    path = on_path(mask, residual)
    ends = [path[0], path[-1]] if residual else path  # a block may be empty: its stream goes on without it
    for member, name in enumerate(names):
        for copy in range(mask[0].shape[1]):
            if any(layer[member, copy].sum() == 0 for layer in ends):
                # No path: the narrowest layer is where it broke.
                fewest = min(range(len(mask)), key=lambda i: float(mask[i][member, copy].sum()))
                raise _no_path(name, network, fewest, int(mask[fewest][member, copy].sum()), mask[fewest][member, copy].numel())


def check_budgets(network: str, spec: MLP, budgets: Sequence[int], name: str) -> None:
    """Raise UserError as `check_connected` does, for a mask still to come: when its `budgets` leave a copy's layer without weights."""
    needed = (0, len(budgets) - 1) if spec.residual else range(len(budgets))
    for layer in needed:
        if budgets[layer] < spec.copies:
            raise _no_path(name, network, layer, 0, math.prod(spec.layers[layer]))


def _no_path(name: str, network: str, layer: int, count: int, total: int) -> UserError:
    return UserError(
        f"{name}: the mask leaves no path from input to output of the {network}: layer {network}.{layer} keeps {count} of {total} weights; "
        "lower the sparsity or choose another pruner"
    )
