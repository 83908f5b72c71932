"""Minibatches of K members from one prepared table, drawn by counter, normalized on the way."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from trainables import plugins
from trainables.agent import Batch
from trainables.datasets.scaling import action_affine, observation_affine
from trainables.datasets.table import Table
from trainables.errors import UserError
from trainables.tensors import native_ops
from trainables.tensors.streams import Streams


class Minibatches:
    """Rows of a table as a `Batch`; one gather and one multiply-add per update."""

    def __init__(self, table: Table, normalize: bool, device: str = "cpu", next_actions: bool = False, timeouts: str = "bootstrap") -> None:
        """With `next_actions`, transitions whose next action is not in the data (the last of a truncated episode) are left out. With the
        timeouts "terminal", every episode's last transition counts as terminal.

        Raises UserError where none is left."""
        self.rows = torch.from_numpy(np.asarray(table.rows)).to(device)
        self.widths = (table.observation_size, table.action_size, 1, table.observation_size, 1)
        self.picked = torch.from_numpy(followed(table)).to(device) if next_actions else None  # rows to draw from; None: all
        o_shift, o_scale = observation_affine(table, normalize)
        a_shift, a_scale = action_affine(table)
        zero, one = np.zeros(1), np.ones(1)
        self.shift = torch.tensor(np.concatenate([o_shift, a_shift, zero, o_shift, zero]), dtype=torch.float32, device=device)
        self.scale = torch.tensor(np.concatenate([o_scale, a_scale, one, o_scale, one]), dtype=torch.float32, device=device)
        self.ends = torch.from_numpy(ends(table)).to(device) if timeouts == "terminal" else None
        self.gather = native_ops.gather(self.rows, self.shift, self.scale) if native_ops.serves(self.rows) else self._gather

    def draw(self, streams: Streams, size: int) -> Batch:
        """`size` transitions per member, with replacement, from the stream "minibatch" at its current update."""
        if self.picked is None:
            return Batch(*self._columns(streams.integers("minibatch", size, len(self.rows))))
        index = self.picked[streams.integers("minibatch", size, len(self.picked))]
        # After a terminal the next row is of another episode or absent; any will do.
        following = self._columns((index + 1).clamp_(max=len(self.rows) - 1))
        return Batch(*self._columns(index), next_actions=following[1])

    def _columns(self, index: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        """Observations, actions, rewards, next observations and terminals of the rows `index` [K, B]."""
        observations, actions, rewards, following, terminals = self.gather(index).split_with_sizes(self.widths, dim=-1)
        ended = terminals.squeeze(-1)
        if self.ends is not None:
            ended = torch.maximum(ended, self.ends.index_select(0, index.flatten()).reshape(index.shape))
        return observations, actions, rewards.squeeze(-1), following, ended

    def _gather(self, index: Tensor) -> Tensor:
        return torch.addcmul(self.shift, self.rows.index_select(0, index.flatten()), self.scale).unflatten(0, index.shape)


def ends(table: Table) -> npt.NDArray[np.float32]:
    """1 for the last transition of each episode, else 0."""
    last = np.zeros(len(table.rows), np.float32)
    last[np.cumsum(table.episode_lengths) - 1] = 1
    return last


def followed(table: Table) -> npt.NDArray[np.int64]:
    """Rows of transitions that end their episode by a terminal or are followed by another of the same episode; UserError without any."""
    inside = np.ones(len(table.rows), np.bool_)
    inside[np.cumsum(table.episode_lengths) - 1] = False
    rows = np.flatnonzero(inside | (np.asarray(table.rows[:, -1]) > 0))
    if not len(rows):
        others = [name for name in plugins.names("algorithms") if not plugins.constant("algorithms", name, "NEXT_ACTIONS", False)]
        raise UserError(
            f"dataset {table.dataset!r}: none of its {len(table)} transitions has a next action: episodes are cut off after one step; "
            f"algorithms that need none: {', '.join(others)}"
        )
    return rows
