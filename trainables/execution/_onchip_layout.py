"""What a pruned member stores, in which order, and the lists of weights by which native/onchip_network.h finds it."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from trainables.execution._groups import live
from trainables.native import onchip
from trainables.tensors.mlp import MLP

Ints = NDArray[np.int64]


class Copy:
    """One copy of a network: its weights in pairs, unit by unit and, for the way back, input by input."""

    def __init__(self, spec: MLP, weights: list[NDArray[np.bool_]], first: int) -> None:
        """`weights` are the masks [out, in] by layer; values are numbered from `first` on, unit by unit, the bias first."""
        self.order = live(weights, spec)
        base = np.cumsum([1, *map(len, self.order)])  # of the inputs' tile rows, then of each layer's
        self.height = int(base[-1])
        forward: list[NDArray[np.void]] = []
        backward: list[NDArray[np.void]] = []
        units: list[NDArray[np.void]] = []
        inputs: list[NDArray[np.void]] = []
        self.unit, self.input, self.weight = [0], [0], [0]
        self.groups = []  # of each layer, which of [bias, inputs] a unit reads
        for i, (below, above) in enumerate(itertools.pairwise(self.order)):
            weight = weights[i][np.ix_(above, below)]
            group = np.insert(weight, 0, True, axis=1)
            stored = np.full(group.shape, onchip.NONE)
            stored[group] = first + np.arange(group.sum())
            first += int(group.sum())
            self.groups.append(group)
            froms, tos = np.insert(base[i] + np.arange(len(below)), 0, 0), base[i + 1] + np.arange(len(above))
            busiest = np.argsort(-weight.sum(0), kind="stable")  # warps that share the rows end at the same time
            for (lists, rows), taken, own, other, back in (
                ((forward, units), stored, tos, froms, False),
                ((backward, inputs), stored[:, 1:].T[busiest], froms[1:][busiest], tos, True),
            ):
                made, by_row = paired(taken, own, other, back, sum(map(len, lists)))
                lists.append(made)
                rows.append(by_row)
            self.unit.append(self.unit[-1] + len(units[-1]))
            self.input.append(self.input[-1] + len(inputs[-1]))
            self.weight.append(self.weight[-1] + len(forward[-1]))
        self.last = first
        self.forward, self.backward, self.units, self.inputs = (np.concatenate(parts) for parts in (forward, backward, units, inputs))

    @property
    def shared(self) -> int:
        """Bytes on the chip, as onchip_network.h's `staged` takes them on the way back."""
        rows = self.units.nbytes + self.inputs.nbytes
        return 4 * onchip.TILE * self.height + 8 * (len(self.forward) + len(self.backward)) + rows

    def struct(self, at: Sequence[int]) -> onchip.Copy:
        """As in onchip.h, for the addresses of its four lists."""
        made = onchip.Copy(*at, back=len(self.backward), height=self.height)
        for name in ("unit", "input", "weight"):
            starts = getattr(self, name)
            getattr(made, name)[: len(starts)] = starts
        return made


def paired(taken: Ints, own: Ints, other: Ints, back: bool, before: int) -> tuple[NDArray[np.void], NDArray[np.void]]:
    """The weights of rows `taken` [own, other], each row filled up to pairs, and the rows; `before` weights come ahead of them."""
    rows, columns = (taken != onchip.NONE).nonzero()
    counts = np.bincount(rows, minlength=len(taken))
    starts = np.cumsum([0, *(counts + counts % 2)])
    place = np.arange(len(rows)) + np.repeat(starts[:-1] - np.cumsum([0, *counts])[:-1], counts)
    made = np.zeros(starts[-1], onchip.WEIGHT)
    made["take"] = onchip.NONE
    made["take"][place] = taken[rows, columns]
    made["from"][place], made["to"][place] = (own[rows], other[columns]) if back else (other[columns], own[rows])
    by_row = np.zeros(len(taken), onchip.ROW)
    by_row["first"], by_row["pairs"], by_row["to"] = (before + starts[:-1]) // 2, (counts + 1) // 2, own
    return made, by_row


class Layout:
    """One member, from its row [D] of the mask. place [V]: the canonical position of every value, in the order of storage."""

    def __init__(self, spec: MLP, mask: Tensor) -> None:
        kept = {name: view[0].numpy() for name, view in spec.views(mask[None]).items()}
        canonical = {name: view[0].numpy() for name, view in spec.views(torch.arange(spec.row)[None]).items()}
        place: list[Ints] = [canonical[name] for name in spec.extra]
        self.copies: list[Copy] = []
        at = sum(spec.extra.values())
        for c in range(spec.copies):
            copy = Copy(spec, [kept[f"weight.{i}"][c] for i in range(len(spec.layers))], at)
            for i, ((below, above), group) in enumerate(zip(itertools.pairwise(copy.order), copy.groups, strict=True)):
                weight, bias = canonical[f"weight.{i}"][c][np.ix_(above, below)], canonical[f"bias.{i}"][c][above]
                place.append(np.insert(weight, 0, bias, axis=1)[group])
            at = copy.last
            self.copies.append(copy)
        idle = mask[: spec.used].numpy().copy()  # what is kept of dead units
        idle[np.concatenate(place)] = False
        self.place = np.concatenate([*place, np.flatnonzero(idle)])
        self.shared = max(copy.shared for copy in self.copies)
