"""AWAC: advantage-weighted actor-critic, which clones actions that are better than the policy's (Nair et al. 2020, arXiv 2006.09359)."""

from __future__ import annotations

from dataclasses import dataclass
from types import SimpleNamespace

import torch
from torch import Tensor

from trainables.agent import Agent, Batch
from trainables.nn import MLP
from trainables.tensors.functions import exp
from trainables.tensors.gaussian import log_prob

TITLE = "AWAC"


@dataclass(frozen=True)
class Hyper:
    hidden: tuple[int, ...] = (256, 256, 256)  # CORL
    batch_size: int = 256  # CORL
    learning_rate: float = 3e-4  # CORL, actor and critic
    discount: float = 0.99  # CORL
    n_step: int = 1  # the same: steps of the TD target (docs/methods.md)
    tau: float = 0.005  # CORL
    advantage_scale: float = 0.3333  # CORL, MuJoCo: lambda
    weight_cap: float = 100.0  # CORL
    log_std_min: float = -20.0  # CORL
    log_std_max: float = 2.0  # CORL
    cosine: bool = False  # SaminYeasar/sparse_reg: the actor's learning rate falls to 0 along a cosine


RANGES = {"advantage_scale": "(0, inf)"}
NORMALIZE = True  # CORL


def networks(observation_size: int, action_size: int, hyper: SimpleNamespace) -> dict[str, MLP]:
    return {
        "actor": MLP((observation_size, *hyper.hidden, action_size), extra={"log_std": action_size}),
        "critic": MLP((observation_size + action_size, *hyper.hidden, 1), copies=2),
    }


LEARNING_RATES = {"actor": "learning_rate", "critic": "learning_rate"}
TARGETS = ("critic",)


def policy(agent: Agent, observations: Tensor) -> tuple[Tensor, Tensor]:
    """Mean [K, B, A] and the state-independent log deviation [K, 1, A] of a Gaussian that is not squashed."""
    bounds = agent.hyper.log_std_min, agent.hyper.log_std_max
    return agent.actor(observations), agent.actor.extra["log_std"].clamp(*bounds).unsqueeze(1)


def sample(agent: Agent, observations: Tensor, purpose: str) -> Tensor:
    """Actions of the policy, clipped to [-1, 1], with no gradient, [K, B, A]."""
    with torch.no_grad():
        mean, log_std = policy(agent, observations)
        return (mean + exp(log_std) * agent.noise(purpose, *mean.shape[1:])).clamp(-1, 1)


def critic_loss(agent: Agent, batch: Batch) -> Tensor:
    """Sum over the twin critics of the mean squared TD error, [K]."""
    with torch.no_grad():
        next_actions = sample(agent, batch.next_observations, "target policy")
        next_q = agent.target.critic(batch.next_observations, next_actions).squeeze(-1).amin(1)
        target = agent.td_target(batch, next_q)
    q = agent.critic(batch.observations, batch.actions).squeeze(-1)  # [K, 2, B]
    return (q - target.unsqueeze(1)).square().mean(-1).sum(1)


def actor_loss(agent: Agent, batch: Batch) -> Tensor:
    """-exp(advantage / lambda) log pi(a | s), the weight capped; advantage = min Q(s, a) - min Q(s, a') with a' from the policy, [K]."""
    with torch.no_grad():
        sampled = sample(agent, batch.observations, "policy")
        both = torch.cat([batch.actions, sampled], dim=1)
        q, v = agent.critic(batch.observations.repeat(1, 2, 1), both).squeeze(-1).amin(1).chunk(2, dim=-1)
        weight = torch.minimum(exp((q - v) / agent.hyper.advantage_scale), agent.hyper.weight_cap)
    return -(weight * log_prob(batch.actions, *policy(agent, batch.observations))).mean(1)


LOSSES = {"actor": actor_loss, "critic": critic_loss}


def update(agent: Agent, batch: Batch) -> dict[str, Tensor]:
    critic = critic_loss(agent, batch)
    agent.minimize(critic=critic)
    actor = actor_loss(agent, batch)
    agent.minimize(factor=agent.cosine() if agent.hyper.cosine else 1.0, actor=actor)
    agent.track("critic")
    return {"critic_loss": critic, "actor_loss": actor}


def act(agent: Agent, observations: Tensor) -> Tensor:
    return agent.actor(observations).clamp(-1, 1)
