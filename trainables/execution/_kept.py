"""What executions have in common that store the kept values only."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from trainables.tensors.mlp import MLP


class Kept:
    """Rows of kept values [K, V], the extras first. `place` [K, V]: where each stands in the canonical row, `spec.row` where there is none;
    `spans`: where each extra begins and ends."""

    spec: MLP
    members: int
    place: Tensor
    spans: Sequence[tuple[int, int]]

    def collect(self, gradients: Sequence[Tensor]) -> Tensor:
        core = gradients[0]
        for (a, b), extra in zip(self.spans, gradients[1:], strict=True):
            core[:, a:b] = extra
        return core

    def pack(self, flat: Tensor) -> Tensor:
        return torch.nn.functional.pad(flat, (0, 1)).gather(1, self.place)

    def unpack(self, packed: Tensor) -> Tensor:
        return packed.new_zeros(self.members, self.spec.row + 1).scatter_(1, self.place, packed)[:, :-1].contiguous()
