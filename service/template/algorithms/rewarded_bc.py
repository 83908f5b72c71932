"""Behaviour cloning that weights transitions by their rewards."""

from __future__ import annotations

from dataclasses import dataclass
from types import SimpleNamespace

from torch import Tensor

from trainables.agent import Agent, Batch
from trainables.nn import MLP


@dataclass(frozen=True)
class Hyper:
    hidden: tuple[int, ...] = (64, 64)
    batch_size: int = 256
    learning_rate: float = 1e-3
    temperature: float = 20.0  # of the softmax over a minibatch's rewards


NORMALIZE = True  # observations, by the dataset's mean and deviation


def networks(observation_size: int, action_size: int, hyper: SimpleNamespace) -> dict[str, MLP]:
    return {"actor": MLP((observation_size, *hyper.hidden, action_size), output="tanh")}


LEARNING_RATES = {"actor": "learning_rate"}
TARGETS = ()


def actor_loss(agent: Agent, batch: Batch) -> Tensor:
    """Weighted squared error of the action, [K]."""
    share = (batch.rewards / agent.hyper.temperature).softmax(1)  # [K, B]
    return (share * (agent.actor(batch.observations) - batch.actions).square().mean(2)).sum(1)


LOSSES = {"actor": actor_loss}  # the loss that scores each network's weights before training


def update(agent: Agent, batch: Batch) -> dict[str, Tensor]:
    actor = actor_loss(agent, batch)
    agent.minimize(actor=actor)
    return {"actor_loss": actor}


def act(agent: Agent, observations: Tensor) -> Tensor:
    return agent.actor(observations)
