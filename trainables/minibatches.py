"""Minibatches of K members from one prepared table, drawn by counter, normalized on the way."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from trainables.agent import Batch
from trainables.datasets.table import Table
from trainables.execution import native
from trainables.streams import Streams

STD_OFFSET = 1e-3  # CORL and TD3+BC: (s - mean) / (std + 1e-3)


class Minibatches:
    """Rows of a table as a `Batch`; one gather and one multiply-add per update."""

    def __init__(self, table: Table, normalize: bool, device: str = "cpu") -> None:
        self.rows = torch.from_numpy(np.asarray(table.rows)).to(device)
        self.widths = (table.observation_size, table.action_size, 1, table.observation_size, 1)
        o_shift, o_scale = observation_affine(table, normalize)
        a_shift, a_scale = action_affine(table)
        zero, one = np.zeros(1), np.ones(1)
        self.shift = torch.tensor(np.concatenate([o_shift, a_shift, zero, o_shift, zero]), dtype=torch.float32, device=device)
        self.scale = torch.tensor(np.concatenate([o_scale, a_scale, one, o_scale, one]), dtype=torch.float32, device=device)
        self.gather = native.gather(self.rows, self.shift, self.scale) if native.serves(self.rows) else self._gather

    def draw(self, streams: Streams, size: int) -> Batch:
        """`size` transitions per member, with replacement, from the stream "minibatch" at its current update."""
        index = streams.integers("minibatch", size, len(self.rows))
        observations, actions, rewards, following, terminals = self.gather(index).split_with_sizes(self.widths, dim=-1)
        return Batch(observations, actions, rewards.squeeze(-1), following, terminals.squeeze(-1))

    def _gather(self, index: Tensor) -> Tensor:
        return torch.addcmul(self.shift, self.rows.index_select(0, index.flatten()), self.scale).unflatten(0, index.shape)


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

    def observation(self, raw: Tensor) -> Tensor:
        return torch.addcmul(torch.from_numpy(self.observation_shift), raw, torch.from_numpy(self.observation_scale))

    def action(self, scaled: np.ndarray) -> np.ndarray:
        return (scaled - self.action_shift) / self.action_scale
