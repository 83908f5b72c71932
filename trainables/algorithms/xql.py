"""XQL: extreme Q-learning, IQL whose value is fitted by Gumbel regression (Garg et al. 2023, arXiv 2301.02328).

Differs from the authors' code in the initial weights.
"""

from __future__ import annotations

from dataclasses import dataclass
from types import SimpleNamespace

import torch
from torch import Tensor

from trainables.agent import Agent, Batch
from trainables.nn import MLP
from trainables.tensors.functions import exp
from trainables.tensors.gaussian import log_prob

TITLE = "XQL"


@dataclass(frozen=True)
class Hyper:
    hidden: tuple[int, ...] = (256, 256)  # Div99/XQL
    batch_size: int = 256  # Div99/XQL, mujoco_consistent.sh: the one setting for all tasks; 1024 in some of each task's own
    actor_learning_rate: float = 3e-4  # Div99/XQL; cosine schedule to 0
    critic_learning_rate: float = 3e-4  # Div99/XQL; also the value's
    discount: float = 0.99  # Div99/XQL
    n_step: int = 1  # the same: steps of the TD target (docs/methods.md)
    tau: float = 0.005  # Div99/XQL
    temperature: float = 2.0  # Div99/XQL, mujoco_consistent.sh: of the Gumbel regression; by dataset in trial/published.py
    max_clip: float = 7.0  # Div99/XQL: the largest exponent of the regression
    huber: float = 20.0  # Div99/XQL: TD errors beyond it count linearly
    beta: float = 3.0  # Div99/XQL, MuJoCo: of the advantages' weights
    weight_cap: float = 100.0  # Div99/XQL
    log_std_min: float = -5.0  # Div99/XQL
    log_std_max: float = 2.0  # Div99/XQL


RANGES = {"temperature": "(0, inf)", "max_clip": "(0, inf)", "huber": "(0, inf)", "beta": "[0, inf)"}
NORMALIZE = False  # Div99/XQL
REWARD_SPAN = dict.fromkeys(("halfcheetah", "hopper", "walker2d"), 1000.0)  # Div99/XQL: temperature, huber and beta are for such rewards


def networks(observation_size: int, action_size: int, hyper: SimpleNamespace) -> dict[str, MLP]:
    return {
        "actor": MLP((observation_size, *hyper.hidden, action_size), output="tanh", extra={"log_std": action_size}),
        "critic": MLP((observation_size + action_size, *hyper.hidden, 1), copies=2),
        "value": MLP((observation_size, *hyper.hidden, 1), norm="before"),
    }


LEARNING_RATES = {"actor": "actor_learning_rate", "critic": "critic_learning_rate", "value": "critic_learning_rate"}
TARGETS = ("critic",)


def target_q(agent: Agent, batch: Batch) -> Tensor:
    """min of the target critics, with no gradient, [K, B]."""
    with torch.no_grad():
        return agent.target.critic(batch.observations, batch.actions).squeeze(-1).amin(1)


def value_loss(agent: Agent, batch: Batch, q: Tensor) -> Tensor:
    """Gumbel regression of V towards Q: exp(z) - z - 1 with z = (Q - V) / temperature, divided by exp(the batch's largest z), [K]."""
    z = torch.minimum((q - agent.value(batch.observations).squeeze(-1)) / agent.hyper.temperature, agent.hyper.max_clip)
    largest = z.detach().amax(1, keepdim=True).clamp(min=-1)
    return (exp(z - largest) - (z + 1) * exp(-largest)).mean(1)


def critic_loss(agent: Agent, batch: Batch) -> Tensor:
    """Sum over the twin critics of the mean Huber loss of the TD error towards r + discount V(s'), [K]."""
    with torch.no_grad():
        target = agent.td_target(batch, agent.value.frozen(batch.next_observations).squeeze(-1))
    q = agent.critic(batch.observations, batch.actions).squeeze(-1)  # [K, 2, B]
    error = (q - target.unsqueeze(1)).abs()
    square = torch.minimum(error, agent.hyper.huber.unsqueeze(-1))
    return (0.5 * square.square() + agent.hyper.huber.unsqueeze(-1) * (error - square)).mean(-1).sum(1)


def actor_loss(agent: Agent, batch: Batch, q: Tensor) -> Tensor:
    """-exp(beta (Q - V)) log pi(a | s), the weight capped, with a Gaussian of state-independent deviation, [K]."""
    advantages = q - agent.value.frozen(batch.observations).detach().squeeze(-1)
    weight = torch.minimum(exp(agent.hyper.beta * advantages), agent.hyper.weight_cap)
    bounds = agent.hyper.log_std_min, agent.hyper.log_std_max
    log_std = agent.actor.extra["log_std"].clamp(*bounds).unsqueeze(1)  # [K, 1, A]
    return -(weight * log_prob(batch.actions, agent.actor(batch.observations), log_std)).mean(1)


LOSSES = {
    "actor": lambda agent, batch: actor_loss(agent, batch, target_q(agent, batch)),
    "critic": critic_loss,
    "value": lambda agent, batch: value_loss(agent, batch, target_q(agent, batch)),
}


def update(agent: Agent, batch: Batch) -> dict[str, Tensor]:
    # The order of the authors' code: actor and critics see the value from after its update.
    q = target_q(agent, batch)
    value = value_loss(agent, batch, q)
    agent.minimize(value=value)
    actor = actor_loss(agent, batch, q)
    agent.minimize(factor=agent.cosine(), actor=actor)
    critic = critic_loss(agent, batch)
    agent.minimize(critic=critic)
    agent.track("critic")
    return {"value_loss": value, "actor_loss": actor, "critic_loss": critic}


def act(agent: Agent, observations: Tensor) -> Tensor:
    return agent.actor(observations)
