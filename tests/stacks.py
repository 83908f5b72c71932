"""Small stacks on made-up transitions, for the tests that need no environment: O = 5, A = 2, two hidden layers of 16."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from trainables import plugins
from trainables.agent import Agent
from trainables.datasets.minibatches import minibatches_of
from trainables.datasets.table import Table
from trainables.environments import Reference
from trainables.pruning.prune import prune
from trainables.tensors.mask import Mask
from trainables.trial import Stack, Trial
from trainables.trial.pruner_traits import traits_of

Rows = dict[str, Tensor]


def made_up_table(observation_size: int = 5, action_size: int = 2, rows: int = 500) -> Table:
    """Transitions with some structure: actions and rewards are functions of the observation plus noise; one in twenty is terminal."""
    numbers = np.random.default_rng(0)
    scale = numbers.uniform(0.1, 5, observation_size)
    observations = numbers.normal(size=(rows, observation_size)) * scale + numbers.normal(size=observation_size)
    following = 0.9 * observations + 0.1 * numbers.normal(size=observations.shape) * scale
    signal = observations @ numbers.normal(size=(observation_size, action_size)) / observation_size
    actions = 2 * np.tanh(signal + 0.3 * numbers.normal(size=signal.shape))
    rewards = np.tanh(observations[:, :1]) + 0.1 * actions[:, :1]
    terminals = numbers.random((rows, 1)) < 0.05
    return Table(
        dataset="test/made-up-v0",
        rows=np.concatenate([observations, actions, rewards, following, terminals], axis=1).astype(np.float32),
        observation_size=observation_size,
        action_size=action_size,
        action_low=np.full(action_size, -2, np.float32),
        action_high=np.full(action_size, 2, np.float32),
        mean=observations.mean(0).astype(np.float32),
        std=observations.std(0).astype(np.float32),
        environment="none",
        horizon=1000,
        reference=Reference(0.0, 1.0, "made up"),
        episode_returns=np.zeros(1, np.float32),
        episode_lengths=np.array([rows]),
        hash="0",
    )


def small_hyper(algorithm: str) -> dict[str, Any]:
    """Overrides that make any algorithm's networks and batches small."""
    defaults = plugins.hyper_defaults(algorithm)
    small: dict[str, Any] = {name: (16,) * min(len(value), 3) for name, value in defaults.items() if isinstance(value, tuple)}
    return small | {"batch_size": 32} | ({"critics": 3} if "critics" in defaults else {})


def small_trial(algorithm: str = "bc", pruner: str = "dense", sparsity: float = 0.0, seed: int = 0, **more: Any) -> Trial:
    """A trial on made-up transitions; `hyper` goes over the small sizes."""
    hyper = small_hyper(algorithm) | more.pop("hyper", {})
    given: dict[str, Any] = {"dataset": "test/made-up-v0", "updates": 40, "evaluations": 1, "calibration_size": 64}
    return Trial(**(given | {"algorithm": algorithm, "pruner": pruner, "sparsity": sparsity, "seed": seed, "hyper": hyper} | more))


def alone(trial: Trial) -> Stack:
    return Stack((trial,))


class World:
    """A stack in training as run_stack does it: pruned, built in an execution, updated. Dense and not pruned before `start` or `resume`."""

    def __init__(
        self, trials: Sequence[Trial], execution: str = "dense", table: Table | None = None, recorded: bool = False, device: str = "cpu"
    ) -> None:
        table = table or made_up_table()
        self.stack = Stack(tuple(trials))
        self.algorithm = plugins.load("algorithms", self.stack.lead.algorithm)
        self.agent = Agent(self.algorithm, self.stack, table.observation_size, table.action_size, device, recorded)
        self.agent.build()
        self.data = minibatches_of(self.algorithm, self.stack, table, device)
        self.execution = execution
        self.masks: dict[str, Mask] = {}

    def start(self, masks: Mapping[str, Mask] | None = None) -> World:
        """Prune, or take the masks that pruning this stack gave before, and build at update 0."""
        self.masks = dict(masks) if masks else prune(self.agent, self.stack, self.data.draw)
        if traits_of(self.stack.lead.pruner).remembers:
            self.agent.latent = {name: self.agent.initial(name) for name in self.agent.specs}
        self.agent.build(self.execution, masks=self.masks)
        return self

    def resume(self, masks: Mapping[str, Mask], rows: Rows, counts: Mapping[str, int]) -> World:
        """Build from a saved state."""
        self.masks = dict(masks)
        self.agent.build(self.execution, {name: rows[f"online/{name}"] for name in self.agent.specs}, self.masks)
        self.agent.load_rows(rows, counts)
        return self

    def train(self, first: int, stop: int, before: Callable[[int], None] = lambda update: None) -> list[dict[str, Tensor]]:
        """Updates `first`, ..., `stop - 1`; what each logged. `before` is called ahead of each."""
        logged = []
        for update in range(first, stop):
            before(update)
            if (steps := self.stack.lead.n_step_at(update)) != self.data.steps:
                self.data.look_ahead(steps)
            self.agent.at(update)
            found = self.algorithm.update(self.agent, self.data.draw(self.agent.streams, self.agent.hyper.batch_size))
            logged.append({name: value.detach().clone() for name, value in found.items()})
        return logged

    def rows(self) -> Rows:
        return {name: row.detach().clone() for name, row in self.agent.rows().items()}

    def counts(self) -> dict[str, int]:
        return {name: optimizer.count for name, optimizer in self.agent.optimizers.items()}


def member_of(rows: Rows, member: int) -> Rows:
    return {name: row[member : member + 1] for name, row in rows.items()}


def assert_same(found: Mapping[str, Tensor], wanted: Mapping[str, Tensor], where: str = "") -> None:
    """Bit for bit, NaN included."""
    assert found.keys() == wanted.keys()
    for name, value in found.items():
        other = wanted[name]
        assert value.shape == other.shape, f"{where} {name}: {value.shape} and {other.shape}"
        same = value.contiguous().view(torch.int32) == other.contiguous().view(torch.int32)
        assert same.all(), f"{where} {name}: {int((~same).sum())} of {same.numel()} numbers differ, by up to {(value - other).abs().max()}"


def with_seed(trial: Trial, seed: int) -> Trial:
    return replace(trial, seed=seed)
