"""BC: behaviour cloning, supervised regression from observations to the dataset's actions."""

from __future__ import annotations

from dataclasses import dataclass
from types import SimpleNamespace

from torch import Tensor

from trainables.agent import Agent, Batch
from trainables.nn import MLP

TITLE = "BC"


@dataclass(frozen=True)
class Hyper:
    hidden: tuple[int, ...] = (256, 256)  # CORL any_percent_bc
    batch_size: int = 256  # CORL
    learning_rate: float = 3e-4  # CORL


NORMALIZE = True  # CORL: (s - mean) / (std + 1e-3)


def networks(observation_size: int, action_size: int, hyper: SimpleNamespace) -> dict[str, MLP]:
    return {"actor": MLP((observation_size, *hyper.hidden, action_size), output="tanh")}


LEARNING_RATES = {"actor": "learning_rate"}
TARGETS = ()


def actor_loss(agent: Agent, batch: Batch) -> Tensor:
    """Mean squared error of the action, [K]."""
    return (agent.actor(batch.observations) - batch.actions).square().mean((1, 2))


LOSSES = {"actor": actor_loss}


def update(agent: Agent, batch: Batch) -> dict[str, Tensor]:
    actor = actor_loss(agent, batch)
    agent.minimize(actor=actor)
    return {"actor_loss": actor}


def act(agent: Agent, observations: Tensor) -> Tensor:
    return agent.actor(observations)
