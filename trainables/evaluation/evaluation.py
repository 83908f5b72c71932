"""Evaluation: each member's policy plays its own episodes, either at once or in another process while training goes on."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from torch import Tensor

from trainables import plugins
from trainables.agent import Agent
from trainables.datasets.scaling import Scaling, normalizes
from trainables.datasets.table import Table, load_table
from trainables.datasets.table_evaluator import evaluator_of
from trainables.evaluation.futures import Beside, Done, Future, Joined
from trainables.execution.dense import few_rows
from trainables.plugins import contract
from trainables.simulation.evaluator import Quantities
from trainables.tensors.mask import Mask, ones
from trainables.tensors.streams import key_of
from trainables.trial import Stack, Trial

Array = np.ndarray[Any, Any]
PROBES = 8  # observations at which is written down what a policy does
PART = 4  # members per process: ten episodes of each take a second, so a large stack is spread over many cores


def evaluation_seeds(trial: Trial, count: int) -> list[int]:
    """The reset seeds of the first `count` episodes of every evaluation of a trial."""
    return [key_of(trial.seed, f"evaluation/{episode}")[0] for episode in range(count)]


def final_seeds(trial: Trial, count: int) -> list[int]:
    """The reset seeds of the first `count` final episodes. They differ from those by which a policy may have been chosen or stopped."""
    return [key_of(trial.seed, f"final/{episode}")[0] for episode in range(count)]


def act(agent: Agent, observations: Tensor) -> Tensor:
    """The actions [K, E, A] of evaluation, scaled to [-1, 1], for observations [K, E, O] as the networks see them."""
    with torch.no_grad(), few_rows:
        actions: Tensor = agent.algorithm.act(agent, observations)
    return actions


class Evaluation:
    """Undiscounted returns of the agent's policies: the same seeds at every evaluation, other seeds in the `final` episodes."""

    def __init__(self, agent: Agent, table: Table, stack: Stack) -> None:
        self.agent, self.stack = agent, stack
        self.scaling = Scaling(table, normalizes(agent.algorithm, stack.lead.network, stack.lead.states))
        self.evaluator = evaluator_of(table, [evaluation_seeds(trial, trial.episodes) for trial in stack.trials])

    def __call__(self, final: bool = False) -> Quantities:
        """What is known of each episode, by quantity: [K, E], or [K, final_episodes]."""
        with torch.no_grad(), few_rows:  # once, not at each of a thousand time steps
            return self._final() if final else self.evaluator.play(self._act)

    def _final(self) -> Quantities:
        """Plays as many episodes at a time as there are environments; surplus episodes of the last round are dropped."""
        wanted, at_once = self.stack.lead.final_episodes, self.stack.lead.episodes
        seeds = [final_seeds(trial, at_once * -(-wanted // at_once)) for trial in self.stack.trials]
        rounds = [[row[first : first + at_once] for row in seeds] for first in range(0, wanted, at_once)]
        played = [self.evaluator.play(self._act, each) for each in rounds]
        names = dict.fromkeys(name for each in played for name in each)
        nan = np.full_like(played[0]["returns"], np.nan)  # of a quantity that no episode of a round has
        return {name: np.concatenate([each.get(name, nan) for each in played], axis=1)[:, :wanted] for name in names}

    def begin(self, beside: Beside | None, masks: Mapping[str, Mask], final: bool = False) -> Future:
        """The returns of the current policies. With `beside`, other processes compute them while training goes on."""
        if beside is None:
            return Done(self(final))
        names = getattr(self.agent.algorithm, "POLICY", ("actor",))
        networks = {name: self.agent.networks[name] for name in names}
        rows = {name: network.unpack(network.parameters.detach()).cpu().numpy() for name, network in networks.items()}
        kept = {name: [layer.bool().cpu().numpy() for layer in masks[name]] for name in names}

        def part(members: slice) -> Future:
            trials = json.dumps([trial.to_json() for trial in self.stack.trials[members]])
            masks_of = {name: [layer[members] for layer in layers] for name, layers in kept.items()}
            return beside(evaluate_rows, trials, final, self.agent.update, {name: row[members] for name, row in rows.items()}, masks_of)

        return Joined([part(slice(first, first + PART)) for first in range(0, len(self.stack), PART)])

    def act(self, observations: Array) -> Array:
        """Actions [K, E, A] of the environment for its observations [K, E, O]."""
        with torch.no_grad(), few_rows:
            return self._act(observations)

    def probes(self) -> list[dict[str, list[list[float]]]]:
        """What each member's policy does for a few observations, with which a network that is taken for it can be compared."""
        seen = np.random.default_rng(0).standard_normal((1, PROBES, self.agent.sizes[0]), np.float32).repeat(self.agent.size, 0)
        observations = (seen - self.scaling.observation_shift) / self.scaling.observation_scale
        rows = zip(observations.tolist(), self.act(observations).tolist(), strict=True)
        return [{"observations": own, "actions": actions} for own, actions in rows]

    def _act(self, observations: Array) -> Array:
        seen = self.scaling.observation(torch.from_numpy(observations)).to(self.agent.device)
        actions = self.agent.algorithm.act(self.agent, seen)
        contract.actions(self.agent.algorithm, actions, (*seen.shape[:2], self.agent.sizes[1]))
        return self.scaling.action(actions.cpu().numpy())


def evaluate_rows(trials: str, final: bool, update: int, rows: Mapping[str, Array], kept: Mapping[str, list[Array]]) -> Quantities:
    """Episodes of the policies in canonical rows [K, D] and masks. Runs on a CPU, in another process than training."""
    torch.set_num_threads(1)
    evaluation = _evaluation(trials)
    agent = evaluation.agent
    start = {name: torch.from_numpy(rows[name]) if name in rows else agent.initial(name) for name in agent.specs}
    masks = {name: ones(spec, agent.size) for name, spec in agent.specs.items()}
    masks |= {name: [torch.from_numpy(layer).float() for layer in layers] for name, layers in kept.items()}
    agent.build("dense", start, masks)  # `auto` would choose by the stack-mates, and another execution rounds differently
    agent.at(update)
    return evaluation(final)


@lru_cache(maxsize=4)
def _evaluation(trials: str) -> Evaluation:
    """Making environments takes longer than a short evaluation, so the last few parts keep theirs."""
    stack = Stack(tuple(Trial.from_json(value) for value in json.loads(trials)))
    table = load_table(stack.lead.dataset).cut(stack.lead.transitions, stack.lead.seed)
    agent = Agent(plugins.load("algorithms", stack.lead.algorithm), stack, table.observation_size, table.action_size)
    return Evaluation(agent, table, stack)
