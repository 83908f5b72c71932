"""Minibatches of K members from one prepared table, drawn by counter, normalized on the way."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from trainables.agent import Batch
from trainables.datasets.table import Table
from trainables.tensors import native_ops
from trainables.tensors.streams import Streams

STD_OFFSET = 1e-3  # CORL and TD3+BC: (s - mean) / (std + 1e-3)


class Minibatches:
    """Rows of a table as a `Batch`; one gather and one multiply-add per update."""

    def __init__(self, table: Table, normalize: bool, device: str = "cpu", next_actions: bool = False) -> None:
        """With `next_actions`, transitions whose next action is not in the data (the last of a truncated episode) are left out."""
        self.rows = torch.from_numpy(np.asarray(table.rows)).to(device)
        self.widths = (table.observation_size, table.action_size, 1, table.observation_size, 1)
        self.picked = torch.from_numpy(followed(table)).to(device) if next_actions else None  # rows to draw from; None: all
        o_shift, o_scale = observation_affine(table, normalize)
        a_shift, a_scale = action_affine(table)
        zero, one = np.zeros(1), np.ones(1)
        self.shift = torch.tensor(np.concatenate([o_shift, a_shift, zero, o_shift, zero]), dtype=torch.float32, device=device)
        self.scale = torch.tensor(np.concatenate([o_scale, a_scale, one, o_scale, one]), dtype=torch.float32, device=device)
        self.gather = native_ops.gather(self.rows, self.shift, self.scale) if native_ops.serves(self.rows) else self._gather

    def draw(self, streams: Streams, size: int) -> Batch:
        """`size` transitions per member, with replacement, from the stream "minibatch" at its current update."""
        if self.picked is None:
            return Batch(*self._columns(streams.integers("minibatch", size, len(self.rows))))
        index = self.picked[streams.integers("minibatch", size, len(self.picked))]
        # After a terminal the row below is another episode's, or there is none: any will do.
        following = self._columns((index + 1).clamp_(max=len(self.rows) - 1))
        return Batch(*self._columns(index), next_actions=following[1])

    def _columns(self, index: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        """Observations, actions, rewards, next observations and terminals of the rows `index` [K, B]."""
        observations, actions, rewards, following, terminals = self.gather(index).split_with_sizes(self.widths, dim=-1)
        return observations, actions, rewards.squeeze(-1), following, terminals.squeeze(-1)

    def _gather(self, index: Tensor) -> Tensor:
        return torch.addcmul(self.shift, self.rows.index_select(0, index.flatten()), self.scale).unflatten(0, index.shape)


def followed(table: Table) -> npt.NDArray[np.int64]:
    """Rows of transitions that end their episode by a terminal or are followed by another of the same episode."""
    inside = np.ones(len(table.rows), np.bool_)
    inside[np.cumsum(table.episode_lengths) - 1] = False
    return np.flatnonzero(inside | (np.asarray(table.rows[:, -1]) > 0))


def observation_affine(table: Table, normalize: bool) -> tuple[np.ndarray, np.ndarray]:
    """(shift, scale) [O] with which a network sees an observation: shift + scale s."""
    if not normalize:
        return np.zeros(table.observation_size), np.ones(table.observation_size)
    scale = 1 / (np.asarray(table.std, dtype=np.float64) + STD_OFFSET)
    return -np.asarray(table.mean, dtype=np.float64) * scale, scale


def action_affine(table: Table) -> tuple[np.ndarray, np.ndarray]:
    """(shift, scale) [A] that take the environment's action bounds to [-1, 1]."""
    low, high = np.asarray(table.action_low, dtype=np.float64), np.asarray(table.action_high, dtype=np.float64)
    return -(high + low) / (high - low), 2 / (high - low)


class Scaling:
    """Between an environment and a network: raw observations in, raw actions out."""

    def __init__(self, table: Table, normalize: bool) -> None:
        self.observation_shift, self.observation_scale = (v.astype(np.float32) for v in observation_affine(table, normalize))
        self.action_shift, self.action_scale = (v.astype(np.float32) for v in action_affine(table))
        self._affine = torch.from_numpy(self.observation_shift), torch.from_numpy(self.observation_scale)
        self._same = not self.action_shift.any() and bool((self.action_scale == 1).all())

    def observation(self, raw: Tensor) -> Tensor:
        shift, scale = self._affine
        return torch.addcmul(shift, raw, scale)

    def action(self, scaled: np.ndarray) -> np.ndarray:
        return scaled if self._same else (scaled - self.action_shift) / self.action_scale
