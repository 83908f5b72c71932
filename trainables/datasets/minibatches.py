"""Minibatches of K members from one prepared table, drawn by counter, normalized on the way."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from types import ModuleType
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from trainables import plugins
from trainables.agent import Batch
from trainables.datasets.scaling import action_affine, normalizes, observation_affine
from trainables.datasets.table import Table
from trainables.errors import UserError
from trainables.tensors import native_ops
from trainables.tensors.streams import Streams
from trainables.trial import Stack


def minibatches_of(algorithm: ModuleType, stack: Stack, table: Table, device: str = "cpu") -> Minibatches:
    """Minibatches as the algorithm asks for them."""
    following, returns = (getattr(algorithm, name, False) for name in ("NEXT_ACTIONS", "RETURNS"))
    discounts = [trial.hyper_values()["discount"] for trial in stack.trials] if returns else []
    factor = span_factor(table, reward_span(algorithm, stack.lead.dataset))
    rewards = stack.lead.reward_shift, stack.lead.reward_scale * factor
    normalize = normalizes(algorithm, stack.lead.network, stack.lead.states)
    made = Minibatches(table, normalize, device, following, stack.lead.timeouts, discounts, rewards)
    made.look_ahead(stack.lead.n_step_at(0))
    return made


class Minibatches:
    """Rows of a table as a `Batch`; one gather and one multiply-add per update."""

    def __init__(
        self,
        table: Table,
        normalize: bool,
        device: str = "cpu",
        next_actions: bool = False,
        timeouts: str = "bootstrap",
        discounts: Sequence[float] = (),
        rewards: tuple[float, float] = (0.0, 1.0),
    ) -> None:
        """With the timeouts "terminal", every episode's last transition counts as terminal. With `next_actions`, transitions whose next
        action is asked for and not in the data are left out: the last of a truncated episode, unless it counts as terminal. With the
        members' `discounts`, batches have `returns`.
        `rewards` are the shift and the scale of all rewards.

        Raises UserError where none is left."""
        self.rows = torch.from_numpy(np.asarray(table.rows)).to(device)
        self.widths = (table.observation_size, table.action_size, 1, table.observation_size, 1)
        self.next_actions, lacking = next_actions, next_actions and timeouts != "terminal"
        self.picked = torch.from_numpy(followed(table)).to(device) if lacking else None  # rows to draw from; None: all
        o_shift, o_scale = observation_affine(table, normalize)
        a_shift, a_scale = action_affine(table)
        zero, one, (self.reward_shift, self.reward_scale) = np.zeros(1), np.ones(1), rewards
        r_shift, r_scale = np.full(1, self.reward_shift), np.full(1, self.reward_scale)
        self.shift = torch.tensor(np.concatenate([o_shift, a_shift, r_shift, o_shift, zero]), dtype=torch.float32, device=device)
        self.scale = torch.tensor(np.concatenate([o_scale, a_scale, r_scale, o_scale, one]), dtype=torch.float32, device=device)
        self.ends = torch.from_numpy(ends(table)).to(device) if timeouts == "terminal" else None
        # Of each discount, as members have it in float32, the returns of all rows, one discount after the other.
        different = np.unique(np.array(discounts, np.float32))
        self.discounts = torch.from_numpy(different).to(device)
        returns = [returns_to_go(table, each, rewards) for each in different] or [np.zeros(0, np.float32)]
        self.returns = torch.from_numpy(np.concatenate(returns)).to(device)
        self.gather = native_ops.gather(self.rows, self.shift, self.scale) if native_ops.serves(self.rows) else self._gather
        self.table, self.steps = table, 1

    def look_ahead(self, steps: int) -> None:
        """From now on, draw transitions of up to `steps` steps, for n-step targets.

        One that meets its episode's end is shorter, and bootstraps from the last next observation where the episode was only cut off; with
        next actions such a one ends a step before, at the last one that has one. Which transitions are drawn does not change."""
        self.steps = steps
        if steps == 1:
            return
        self.last = torch.from_numpy(last_steps(self.table, self.picked is not None)).to(self.rows.device)
        self.rewards = self.rows[:, sum(self.widths[:2])] * self.reward_scale + self.reward_shift
        self.offsets = torch.arange(min(steps, int(self.table.episode_lengths.max())), device=self.rows.device)

    def draw(self, streams: Streams, size: int) -> Batch:
        """`size` transitions per member, with replacement, from the stream "minibatch" at its current update."""
        if self.picked is None:
            index = streams.integers("minibatch", size, len(self.rows))
        else:
            index = self.picked[streams.integers("minibatch", size, len(self.picked))]
        observations, actions, rewards, following, terminals = self._columns(index)
        more: dict[str, Any] = {"returns": partial(self._returns, index)} if len(self.discounts) else {}
        if self.steps > 1:
            last = torch.minimum(self.last[index], index + (len(self.offsets) - 1))
            more["steps"] = last - index + 1
            within = self.offsets < more["steps"].unsqueeze(-1)
            more["rewards_ahead"] = self.rewards[torch.minimum(index.unsqueeze(-1) + self.offsets, last.unsqueeze(-1))] * within
            index = last
            *_, following, terminals = self._columns(index)
        if self.next_actions:
            # After a terminal the next row is of another episode or absent; any will do.
            more["next_actions"] = self._columns((index + 1).clamp_(max=len(self.rows) - 1))[1]
        return Batch(observations, actions, rewards, following, terminals, **more)

    def _returns(self, index: Tensor, discount: Tensor) -> Tensor:
        """Returns [K, B] of the rows `index`, for members' discounts [K, 1]: those that were given, in any order."""
        place = index + len(self.rows) * torch.searchsorted(self.discounts, discount)
        return self.returns.index_select(0, place.flatten()).reshape(index.shape)

    def _columns(self, index: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        """Observations, actions, rewards, next observations and terminals of the rows `index` [K, B]."""
        observations, actions, rewards, following, terminals = self.gather(index).split_with_sizes(self.widths, dim=-1)
        ended = terminals.squeeze(-1)
        if self.ends is not None:
            ended = torch.maximum(ended, self.ends.index_select(0, index.flatten()).reshape(index.shape))
        return observations, actions, rewards.squeeze(-1), following, ended

    def _gather(self, index: Tensor) -> Tensor:
        return torch.addcmul(self.shift, self.rows.index_select(0, index.flatten()), self.scale).unflatten(0, index.shape)


def reward_span(algorithm: ModuleType, dataset: str) -> float:
    """What the returns of the dataset's episodes are to span; 0 where rewards stay as they are."""
    span: float | Mapping[str, float] = getattr(algorithm, "REWARD_SPAN", 0.0)
    if not isinstance(span, Mapping):
        return span
    return next((number for name, number in span.items() if name in dataset.lower()), 0.0)


def span_factor(table: Table, span: float) -> float:
    """The factor of rewards with which the returns of the dataset's episodes span `span`; 1 for 0, or where all returns are equal."""
    spread = float(table.episode_returns.max() - table.episode_returns.min())
    return span / spread if span and spread else 1.0


def ends(table: Table) -> npt.NDArray[np.float32]:
    """1 for the last transition of each episode, else 0."""
    last = np.zeros(len(table.rows), np.float32)
    last[np.cumsum(table.episode_lengths) - 1] = 1
    return last


def returns_to_go(table: Table, discount: float, rewards: tuple[float, float] = (0.0, 1.0)) -> npt.NDArray[np.float32]:
    """Discounted sum of rewards, shifted and scaled, from each transition to the end of its episode; nothing is added for what follows a
    cut-off, so near one it is too low (as in CORL's Cal-QL; Nakamoto et al. go on with the last reward in Kitchen, whose episodes never
    terminate).

    Sums of 1, 2, 4, ... rewards, each from two of half the length."""
    shift, scale = rewards
    sums = scale * np.array(table.rows[:, table.observation_size + table.action_size], np.float64) + shift
    factors = discount * (1 - np.maximum(ends(table), table.rows[:, -1]).astype(np.float64))  # of what follows the sum, 0 after an end
    length = 1
    while factors.any() and length < len(sums):
        sums[:-length] += factors[:-length] * sums[length:]
        factors[:-length] *= factors[length:]
        factors[-length:] = 0
        length *= 2
    return sums.astype(np.float32)


def last_steps(table: Table, next_actions: bool) -> npt.NDArray[np.int64]:
    """For each row, the last one of its episode that a transition of several steps may end with: a terminal one, or the episode's last;
    with `next_actions` the one before that, if the episode was cut off. That means nothing for rows that are not `followed`."""
    ended, cut = np.asarray(table.rows[:, -1]) > 0, ends(table) > 0
    if next_actions:
        cut = np.append((cut & ~ended)[1:], True)
    stops = np.flatnonzero(ended | cut)
    return stops[np.searchsorted(stops, np.arange(len(table.rows)))]


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
