"""TD3+BC: TD3 with a behaviour-cloning term in the actor's loss (Fujimoto & Gu 2021, arXiv 2106.06860)."""

from __future__ import annotations

from dataclasses import dataclass
from types import SimpleNamespace

import torch
from torch import Tensor

from trainables.agent import Agent, Batch
from trainables.nn import MLP

TITLE = "TD3+BC"


@dataclass(frozen=True)
class Hyper:
    hidden: tuple[int, ...] = (256, 256)  # sfujim/TD3_BC
    batch_size: int = 256  # sfujim/TD3_BC
    learning_rate: float = 3e-4  # sfujim/TD3_BC, actor and critic
    discount: float = 0.99  # sfujim/TD3_BC
    n_step: int = 1  # the same: steps of the TD target (docs/methods.md)
    tau: float = 0.005  # sfujim/TD3_BC
    alpha: float = 2.5  # the paper, section 4
    policy_noise: float = 0.2  # sfujim/TD3_BC
    noise_clip: float = 0.5  # sfujim/TD3_BC
    policy_delay: int = 2  # sfujim/TD3_BC: the actor and all targets move every 2nd update


RANGES = {"alpha": "[0, inf)"}
NORMALIZE = True  # the paper, section 4


def networks(observation_size: int, action_size: int, hyper: SimpleNamespace) -> dict[str, MLP]:
    return {
        "actor": MLP((observation_size, *hyper.hidden, action_size), output="tanh"),
        "critic": MLP((observation_size + action_size, *hyper.hidden, 1), copies=2),
    }


LEARNING_RATES = {"actor": "learning_rate", "critic": "learning_rate"}
TARGETS = ("actor", "critic")


def critic_loss(agent: Agent, batch: Batch) -> Tensor:
    """Sum over the twin critics of the mean squared TD error, [K]."""
    hyper = agent.hyper
    with torch.no_grad():
        noise = agent.noise("target policy", *batch.actions.shape[1:]) * hyper.policy_noise.unsqueeze(-1)
        clip = hyper.noise_clip.unsqueeze(-1)
        next_actions = (agent.target.actor(batch.next_observations) + noise.clamp(-clip, clip)).clamp(-1, 1)
        next_q = agent.target.critic(batch.next_observations, next_actions).squeeze(-1).amin(1)
        target = agent.td_target(batch, next_q)
    q = agent.critic(batch.observations, batch.actions).squeeze(-1)  # [K, 2, B]
    return (q - target.unsqueeze(1)).square().mean(-1).sum(1)


def actor_loss(agent: Agent, batch: Batch) -> Tensor:
    """-lambda Q1(s, pi(s)) + (pi(s) - a)^2 with lambda = alpha / mean |Q1| of the member's own batch, [K]."""
    actions = agent.actor(batch.observations)
    q = agent.critic.frozen(batch.observations, actions, copy=0).squeeze(-1)  # [K, B]
    weight = agent.hyper.alpha / q.detach().abs().mean(1, keepdim=True)
    return (-weight * q).mean(1) + (actions - batch.actions).square().mean((1, 2))


def leaky_critic_loss(agent: Agent, batch: Batch) -> Tensor:
    """The critic's loss plus the actor's as a function of the critic, [K]: SaminYeasar/sparse_reg scores the critic after both backward
    passes, so its saliency includes the actor's leftover gradient. Only for comparison with that code."""
    q = agent.critic(batch.observations, agent.actor(batch.observations), copy=0).squeeze(-1)
    weight = agent.hyper.alpha / q.detach().abs().mean(1, keepdim=True)
    return critic_loss(agent, batch) + (-weight * q).mean(1)


LOSSES = {"actor": actor_loss, "critic": critic_loss}
LEAKY_LOSSES = {"critic": leaky_critic_loss}


def update(agent: Agent, batch: Batch) -> dict[str, Tensor]:
    critic = critic_loss(agent, batch)
    agent.minimize(critic=critic)
    logged = {"critic_loss": critic}
    if agent.every(agent.hyper.policy_delay):
        actor = actor_loss(agent, batch)
        agent.minimize(actor=actor)
        agent.track("actor", "critic")
        logged["actor_loss"] = actor
    return logged


def act(agent: Agent, observations: Tensor) -> Tensor:
    return agent.actor(observations)
