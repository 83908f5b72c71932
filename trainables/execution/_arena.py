"""Memory for activations, which networks that are computed in turn use again and again, so that it stays in the processor's cache."""

from __future__ import annotations

import torch
from torch import Tensor

CHUNK = 2**20  # floats; of which only those that are used become memory
ALIGNMENT = 16  # floats, a cache line


class Arena:
    """Hands out the first place that is large enough. Not for two threads at once."""

    def __init__(self) -> None:
        self.chunks: list[Tensor] = []
        self.free: list[tuple[int, int, int]] = []  # chunk, start, stop; in this order
        self.lent: dict[int, tuple[int, int, int]] = {}  # by address

    def borrow(self, size: int) -> Tensor:
        """`size` floats; the caller gives them back after use."""
        size = -(-size // ALIGNMENT) * ALIGNMENT
        place = next((place for place, (_, start, stop) in enumerate(self.free) if stop - start >= size), None)
        if place is None:
            self.chunks.append(torch.empty(max(size, CHUNK)))
            self.free.append((len(self.chunks) - 1, 0, len(self.chunks[-1])))
            place = len(self.free) - 1
        chunk, start, stop = self.free[place]
        self.free[place : place + 1] = [(chunk, start + size, stop)] if stop - start > size else []
        room = self.chunks[chunk][start : start + size]
        self.lent[room.data_ptr()] = chunk, start, start + size
        return room

    def give_back(self, room: Tensor) -> None:
        merged: list[tuple[int, int, int]] = []
        for chunk, start, stop in sorted([*self.free, self.lent.pop(room.data_ptr())]):
            if merged and merged[-1][0] == chunk and merged[-1][2] == start:
                merged[-1] = chunk, merged[-1][1], stop
            else:
                merged.append((chunk, start, stop))
        self.free = merged
