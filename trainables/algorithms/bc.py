"""BC: behaviour cloning, supervised regression from observations to the dataset's actions."""

from __future__ import annotations

from dataclasses import dataclass
from types import SimpleNamespace

from torch import Tensor

from trainables.agent import Agent, Batch
from trainables.nn import MLP
from trainables.tensors.gaussian import log_prob

TITLE = "BC"


@dataclass(frozen=True)
class Hyper:
    hidden: tuple[int, ...] = (256, 256)  # CORL any_percent_bc
    batch_size: int = 256  # CORL
    learning_rate: float = 3e-4  # CORL
    gaussian: bool = False  # SaminYeasar/sparse_reg: a Gaussian with a linear mean, by likelihood, with a cosine schedule
    log_std_min: float = -5.0  # SaminYeasar/sparse_reg, of the Gaussian
    log_std_max: float = 2.0  # SaminYeasar/sparse_reg


NORMALIZE = True  # CORL: (s - mean) / (std + 1e-3)


def networks(observation_size: int, action_size: int, hyper: SimpleNamespace) -> dict[str, MLP]:
    sizes = (observation_size, *hyper.hidden, action_size)
    return {"actor": MLP(sizes, extra={"log_std": action_size}) if hyper.gaussian else MLP(sizes, output="tanh")}


LEARNING_RATES = {"actor": "learning_rate"}
TARGETS = ()


def actor_loss(agent: Agent, batch: Batch) -> Tensor:
    """Mean squared error of the action, or its negative log-likelihood, [K]."""
    if agent.hyper.gaussian:
        log_std = agent.actor.extra["log_std"].clamp(agent.hyper.log_std_min, agent.hyper.log_std_max).unsqueeze(1)  # [K, 1, A]
        return -log_prob(batch.actions, agent.actor(batch.observations), log_std).mean(1)
    return (agent.actor(batch.observations) - batch.actions).square().mean((1, 2))


LOSSES = {"actor": actor_loss}


def update(agent: Agent, batch: Batch) -> dict[str, Tensor]:
    actor = actor_loss(agent, batch)
    agent.minimize(factor=agent.cosine() if agent.hyper.gaussian else 1.0, actor=actor)
    return {"actor_loss": actor}


def act(agent: Agent, observations: Tensor) -> Tensor:
    actions = agent.actor(observations)
    return actions.clamp(-1, 1) if agent.hyper.gaussian else actions
