"""Which values of a pruned network a member stores, in which order, and the indices by which kernels.c finds them."""

from __future__ import annotations

import itertools

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from trainables.native.build import TILE
from trainables.tensors.mlp import MLP

Ints = NDArray[np.int64]


class Groups:
    """The index of one member, from its row [D] of the mask.

    place [V]      canonical position of every value, in the order of storage
    column, trow, tvalue, layers   as in kernels.c, `layers` copy after copy
    heights        units of each layer, the maximum over copies
    """

    def __init__(self, spec: MLP, mask: Tensor) -> None:
        kept = {name: view[0].numpy() for name, view in spec.views(mask[None]).items()}
        canonical = {name: view[0].numpy() for name, view in spec.views(torch.arange(spec.row)[None]).items()}
        at, transposed = sum(spec.extra.values()), 0
        place: list[Ints] = [canonical[name] for name in spec.extra]
        column: list[Ints] = [np.zeros(at, int)]
        trow: list[Ints] = []
        tvalue: list[Ints] = []
        self.layers: list[dict[str, NDArray[np.int32]]] = []
        self.heights = [0] * len(spec.layers)
        for copy in range(spec.copies):
            weights = [kept[f"weight.{i}"][copy] for i in range(len(spec.layers))]
            for i, (inputs, units) in enumerate(itertools.pairwise(live(weights, spec))):
                chosen = np.ix_(units, inputs)
                weight = weights[i][chosen]
                group = np.insert(weight, 0, True, axis=1)  # column 0: the bias
                place.append(np.insert(canonical[f"weight.{i}"][copy][chosen], 0, canonical[f"bias.{i}"][copy][units], axis=1)[group])
                column.append(group.nonzero()[1] * TILE)
                stored = np.zeros(group.shape, int)
                stored[group] = at + np.arange(group.sum())
                counts = weight.sum(0)
                visit = np.argsort(-counts, kind="stable") if i else np.arange(len(inputs))
                trow.append(weight.T[visit].nonzero()[1] * TILE)
                tvalue.append(stored[:, 1:].T[visit][weight.T[visit]])
                starts = {"start": _starts(at, group.sum(1)), "visit": visit.astype(np.int32), "tstart": _starts(transposed, counts[visit])}
                self.layers.append(starts)
                self.heights[i] = max(self.heights[i], len(units))
                at, transposed = int(starts["start"][-1]), int(starts["tstart"][-1])
                if f"gain.{i}" in kept:
                    place += [canonical[f"{name}.{i}"][copy][units] for name in ("gain", "shift")]
                    column.append(np.zeros(2 * len(units), int))
                    at += 2 * len(units)
        idle = mask[: spec.used].numpy().copy()
        idle[np.concatenate(place)] = False
        self.place = np.concatenate([*place, np.flatnonzero(idle)])
        self.column, self.trow, self.tvalue = (np.concatenate(parts) for parts in (column, trow, tvalue))


def _starts(first: int, counts: Ints) -> NDArray[np.int32]:
    return (first + np.concatenate([[0], np.cumsum(counts)])).astype(np.int32)


def live(weights: list[NDArray[np.bool_]], spec: MLP) -> list[Ints]:
    """The inputs, then each layer's units that reach an output (every unit, where they are normalized), most weights first (outputs, and
    units of a residual stream, to which several layers add, in order)."""
    units: list[Ints] = [np.arange(weights[-1].shape[0])]
    for index in reversed(range(len(weights) - 1)):
        below, weight, whole = weights[index], weights[index + 1], index in spec.normalized
        alive = np.arange(len(below)) if whole else np.flatnonzero(weight[units[0]].any(0))
        units.insert(0, alive if whole and spec.residual else alive[np.argsort(-below[alive].sum(1), kind="stable")])
    return [np.arange(weights[0].shape[1]), *units]
