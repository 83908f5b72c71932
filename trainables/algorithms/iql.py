"""IQL: implicit Q-learning, expectile regression for the value and advantage-weighted cloning (Kostrikov et al. 2021, arXiv 2110.06169)."""

from __future__ import annotations

from dataclasses import dataclass
from types import SimpleNamespace

import torch
from torch import Tensor

from trainables.agent import Agent, Batch
from trainables.nn import MLP
from trainables.tensors.functions import exp
from trainables.tensors.gaussian import log_prob

TITLE = "IQL"


@dataclass(frozen=True)
class Hyper:
    hidden: tuple[int, ...] = (256, 256)  # the paper, appendix
    batch_size: int = 256  # the paper, appendix
    actor_learning_rate: float = 3e-4  # the paper; cosine schedule to 0
    critic_learning_rate: float = 3e-4  # the paper; also the value's
    discount: float = 0.99  # the paper
    n_step: int = 1  # the same: steps of the TD target (docs/methods.md)
    tau: float = 0.005  # the paper
    expectile: float = 0.7  # the paper, MuJoCo
    beta: float = 3.0  # the paper, MuJoCo
    weight_cap: float = 100.0  # ikostrikov/implicit_q_learning
    log_std_min: float = -20.0  # CORL
    log_std_max: float = 2.0  # CORL
    squash: bool = True  # CORL: the mean passes through tanh; False in SaminYeasar/sparse_reg


RANGES = {"expectile": "(0, 1)", "beta": "[0, inf)"}
NORMALIZE = True  # CORL


def networks(observation_size: int, action_size: int, hyper: SimpleNamespace) -> dict[str, MLP]:
    return {
        "actor": MLP(
            (observation_size, *hyper.hidden, action_size), output="tanh" if hyper.squash else "linear", extra={"log_std": action_size}
        ),
        "critic": MLP((observation_size + action_size, *hyper.hidden, 1), copies=2),
        "value": MLP((observation_size, *hyper.hidden, 1)),
    }


LEARNING_RATES = {"actor": "actor_learning_rate", "critic": "critic_learning_rate", "value": "critic_learning_rate"}
TARGETS = ("critic",)


def advantage(agent: Agent, batch: Batch) -> Tensor:
    """min of the target critics - V(s), [K, B], differentiable in the value network."""
    with torch.no_grad():
        q = agent.target.critic(batch.observations, batch.actions).squeeze(-1).amin(1)
    return q - agent.value(batch.observations).squeeze(-1)


def value_loss(agent: Agent, advantages: Tensor) -> Tensor:
    """Expectile regression of V towards Q: |expectile - 1(advantage < 0)| advantage^2, [K]."""
    weight = (agent.hyper.expectile - (advantages.detach() < 0).float()).abs()
    return (weight * advantages.square()).mean(1)


def critic_loss(agent: Agent, batch: Batch) -> Tensor:
    """Mean squared TD error towards r + discount V(s'), mean over the twin critics, [K]."""
    with torch.no_grad():
        next_v = agent.value.frozen(batch.next_observations).squeeze(-1)
        target = agent.td_target(batch, next_v)
    q = agent.critic(batch.observations, batch.actions).squeeze(-1)  # [K, 2, B]
    return (q - target.unsqueeze(1)).square().mean((1, 2))


def actor_loss(agent: Agent, batch: Batch, advantages: Tensor) -> Tensor:
    """-exp(beta advantage) log pi(a | s), the weight capped, with a Gaussian of state-independent deviation, [K]."""
    weight = torch.minimum(exp(agent.hyper.beta * advantages.detach()), agent.hyper.weight_cap)
    mean = agent.actor(batch.observations)
    bounds = agent.hyper.log_std_min, agent.hyper.log_std_max
    log_std = agent.actor.extra["log_std"].clamp(*bounds).unsqueeze(1)  # [K, 1, A]
    return -(weight * log_prob(batch.actions, mean, log_std)).mean(1)


LOSSES = {
    "actor": lambda agent, batch: actor_loss(agent, batch, advantage(agent, batch)),
    "critic": critic_loss,
    "value": lambda agent, batch: value_loss(agent, advantage(agent, batch)),
}


def update(agent: Agent, batch: Batch) -> dict[str, Tensor]:
    advantages = advantage(agent, batch)
    # The order of the reference code: V(s') and the advantages are those from before this update.
    critic = critic_loss(agent, batch)
    value = value_loss(agent, advantages)
    agent.minimize(value=value)
    agent.minimize(critic=critic)
    actor = actor_loss(agent, batch, advantages)
    agent.minimize(factor=agent.cosine(), actor=actor)
    agent.track("critic")
    return {"value_loss": value, "critic_loss": critic, "actor_loss": actor}


def act(agent: Agent, observations: Tensor) -> Tensor:
    actions = agent.actor(observations)
    return actions if agent.hyper.squash else actions.clamp(-1, 1)
