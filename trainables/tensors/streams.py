"""Counter-based random numbers: "update 12,345 of seed 3's minibatch stream" always draws the same numbers.

Philox4x32-10 (Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3") in torch integer arithmetic: the same words on
every device. The key is a hash of (seed, purpose), the counter is (lane, update), so a member's draws depend neither on its
stack-mates nor on what was drawn before, and trials with the same seed see the same initial weights, minibatches and noise.
"""

from __future__ import annotations

import ctypes
import hashlib
import math
from collections.abc import Sequence

import torch
from torch import Tensor

from trainables.tensors import calls, native_ops, tape

WORD = 0xFFFFFFFF
BLOCK = 64  # updates drawn at once: one update's draw is too small to be worth twenty torch calls
BLOCK_WORDS = 2**18  # but at most this many words per member
GROWTH = 8  # the first draw is for its update alone, because an initialization and most calibrations need no more, the next for 8, ...
Asked = tuple[str, str, int, int]  # purpose, kind, count, and below what for integers


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


class Draws:
    """Fulfils calls.Draws for one purpose of `streams`."""

    def __init__(self, streams: Streams, update: ctypes.c_int64, asked: Asked) -> None:
        self.streams, self.update, self.asked = streams, update, asked
        self.block = calls.Block()
        self.most = max(1, min(BLOCK, BLOCK_WORDS // asked[2]))
        self.length = 1 if streams.clock is None else self.most  # a CUDA graph reads this memory, which stays as it is
        self.rows = torch.empty(0)

    def hold(self) -> int:
        at = self.update.value
        left = (self.block.first or 0) + len(self.rows) - at
        if 0 < left <= len(self.rows):
            return left
        if len(self.rows):
            self.length = min(self.most, GROWTH * self.length)
        start = at // self.length * self.length
        purpose, kind, count, below = self.asked
        rows = self.streams._block(self.streams.phase + purpose, kind, start, self.length, count, below)
        if len(self.rows) and self.streams.clock is not None:
            self.rows.copy_(rows)
        else:
            self.rows = rows
        self.block.rows, self.block.first = self.rows.data_ptr(), start
        return start + self.length - at

    def now(self) -> Tensor:
        return self.rows[self.update.value - self.block.first]


class Streams:
    """The draws of K members at the current update; algorithms name a purpose and a shape."""

    def __init__(self, seeds: Sequence[int], device: torch.device | str = "cpu", phase: str = "", clock: Tensor | None = None) -> None:
        """`phase` sets the purposes of another phase apart: calibration draws other minibatches than training. `clock` is an int64
        [1] that holds the update where updates are recorded (trainables/training/updates.py)."""
        self.seeds = list(seeds)
        self.phase = phase
        self.device = device
        self.clock = clock
        self.number = ctypes.c_int64()  # of the update whose draws are made next; recorded updates read it, and count it up
        self._native = clock is None and native_ops.serves(torch.empty(0, device=device))
        self._draws: dict[Asked, Draws] = {}

    @property
    def update(self) -> int:
        """The update whose draws are made next."""
        return self.number.value

    @update.setter
    def update(self, update: int) -> None:
        self.number.value = update

    def at(self, update: int) -> None:
        """Set the update whose draws are made next."""
        self.update = update
        if self.clock is not None:
            for draws in self._draws.values():
                draws.hold()

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
        draws = self._draws.get(asked)
        if draws is None:
            draws = self._draws[asked] = Draws(self, self.number, asked)
        if self.clock is None:
            return tape.row(draws)
        draws.hold()
        return draws.rows.index_select(0, self.clock % len(draws.rows)).squeeze(0)

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
