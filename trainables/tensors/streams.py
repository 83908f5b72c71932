"""Counter-based random numbers: "update 12,345 of seed 3's minibatch stream" always draws the same numbers.

Philox4x32-10 (Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3") in torch integer arithmetic: the same words on
every device. The key is a hash of (seed, purpose), the counter is (lane, update), so a member's draws depend neither on its
stack-mates nor on what was drawn before, and trials with the same seed see the same initial weights, minibatches and noise.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor

from trainables.tensors import native_ops, tape

WORD = 0xFFFFFFFF
BLOCK = 64  # updates drawn at once: one update's draw is too small to be worth twenty torch calls
BLOCK_WORDS = 2**18  # but at most this many words per member: an initialization is needed once, not for 64 updates


def key_of(seed: int, purpose: str) -> tuple[int, int]:
    """The two 32-bit key words of a stream."""
    digest = hashlib.sha256(f"{seed}/{purpose}".encode()).digest()
    return int.from_bytes(digest[:4], "little"), int.from_bytes(digest[4:8], "little")


def philox(counter: Sequence[Tensor], key: Sequence[Tensor]) -> list[Tensor]:
    """Four int64 tensors holding 32-bit words, from four counter words and two key words that broadcast together."""
    c0, c1, c2, c3 = counter
    k0, k1 = key
    for _ in range(10):
        p0, p1 = c0 * 0xD2511F53, c2 * 0xCD9E8D57  # int64 wraps, but all 64 bits of the product are there
        c0, c1, c2, c3 = ((p1 >> 32) & WORD) ^ c1 ^ k0, p1 & WORD, ((p0 >> 32) & WORD) ^ c3 ^ k1, p0 & WORD
        k0, k1 = (k0 + 0x9E3779B9) & WORD, (k1 + 0xBB67AE85) & WORD
    return [c0, c1, c2, c3]


def words(seeds: Sequence[int], purpose: str, first: int, updates: int, count: int, device: torch.device | str = "cpu") -> Tensor:
    """int64 [updates, K, count] of 32-bit words for the updates `first`, `first + 1`, ..."""
    lanes = -(-count // 4)
    keys = torch.tensor([key_of(seed, purpose) for seed in seeds], device=device).unsqueeze(-1)  # [K, 2, 1]
    lane = torch.arange(lanes, device=device)
    update = torch.arange(first, first + updates, device=device).reshape(-1, 1, 1)
    zero = torch.zeros_like(lane)
    drawn = philox((lane, update & WORD, update >> 32, zero), (keys[:, 0], keys[:, 1]))
    return torch.stack(torch.broadcast_tensors(*drawn), dim=-1).flatten(2)[:, :, :count]


def to_uniform(drawn: Tensor) -> Tensor:
    """Words -> float32 in (0, 1): 23 bits each, never an end of the interval (with 24 the highest would round to 1)."""
    return ((drawn >> 9).float() + 0.5) * 2.0**-23


def to_normal(uniform: Tensor) -> Tensor:
    """Pairs of uniforms along the last axis (even length) -> standard normals, Box-Muller."""
    u, v = uniform.unflatten(-1, (-1, 2)).unbind(-1)
    radius, angle = torch.sqrt(-2 * torch.log(u)), 2 * math.pi * v
    return torch.stack((radius * torch.cos(angle), radius * torch.sin(angle)), dim=-1).flatten(-2)


def to_integers(drawn: Tensor, below: int) -> Tensor:
    """Words -> int64 in [0, below); the bias of at most below / 2^32 is accepted."""
    return (drawn * below) >> 32


class Streams:
    """The draws of K members at the current update; algorithms name a purpose and a shape."""

    def __init__(self, seeds: Sequence[int], device: torch.device | str = "cpu", phase: str = "", clock: Tensor | None = None) -> None:
        """`phase` sets the purposes of another phase apart: calibration draws other minibatches than training. `clock` is an int64
        [1] that holds the update where updates are recorded (trainables/training/updates.py)."""
        self.seeds = list(seeds)
        self.phase = phase
        self.device = device
        self.clock = clock
        self.update = 0
        self._native = clock is None and native_ops.serves(torch.empty(0, device=device))
        self._blocks: dict[tuple[str, str, int, int], tuple[int, Tensor]] = {}

    def at(self, update: int) -> None:
        """Set the update whose draws are made next."""
        self.update = update
        if self.clock is not None:
            for (purpose, kind, count, below), (start, block) in self._blocks.items():
                if not start <= update < start + len(block):  # the recording reads this memory, so it is filled again
                    start = update // len(block) * len(block)
                    block.copy_(self._block(self.phase + purpose, kind, start, len(block), count, below))
                    self._blocks[purpose, kind, count, below] = start, block

    def uniform(self, purpose: str, *shape: int) -> Tensor:
        """float32 [K, *shape] in (0, 1)."""
        return self._draw(purpose, "uniform", math.prod(shape)).unflatten(-1, shape)

    def normal(self, purpose: str, *shape: int) -> Tensor:
        """float32 [K, *shape], standard normal."""
        return self._draw(purpose, "normal", math.prod(shape)).unflatten(-1, shape)

    def integers(self, purpose: str, count: int, below: int) -> Tensor:
        """int64 [K, count] in [0, below)."""
        return self._draw(purpose, "integers", count, below)

    def _draw(self, purpose: str, kind: str, count: int, below: int = 0) -> Tensor:
        asked = purpose, kind, count, below
        if self.clock is None:
            return tape.row(partial(self._row, *asked))
        block = self._holding(*asked)[1]
        return block.index_select(0, self.clock % len(block)).squeeze(0)

    def _row(self, purpose: str, kind: str, count: int, below: int) -> tuple[Tensor, int]:
        start, block = self._holding(purpose, kind, count, below)
        return block, self.update - start

    def _holding(self, purpose: str, kind: str, count: int, below: int) -> tuple[int, Tensor]:
        """The block that holds the draws of this update, and the update it starts with."""
        start, block = self._blocks.get((purpose, kind, count, below), (0, None))
        if block is None or not start <= self.update < start + len(block):
            length = max(1, min(BLOCK, BLOCK_WORDS // count))
            start = self.update // length * length
            block = self._block(self.phase + purpose, kind, start, length, count, below)
            self._blocks[purpose, kind, count, below] = (start, block)
        return start, block

    def _block(self, purpose: str, kind: str, first: int, updates: int, count: int, below: int) -> Tensor:
        """[updates, K, count] for the updates from `first` on; the same numbers whether C or torch computes them."""
        even = count + count % 2
        if self._native:
            keys = torch.tensor([key_of(seed, purpose) for seed in self.seeds])
            if kind == "integers":
                return native_ops.integers(keys, first, updates, count, below)
            draw = native_ops.normal if kind == "normal" else native_ops.uniform
            return draw(keys, first, updates, even)[..., :count].contiguous()
        raw = words(self.seeds, purpose, first, updates, even, self.device)
        if kind == "integers":
            return to_integers(raw, below)[..., :count].contiguous()
        drawn = to_uniform(raw)
        return (to_normal(drawn) if kind == "normal" else drawn)[..., :count].contiguous()
