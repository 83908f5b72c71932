"""ReBRAC: TD3+BC with a cloning penalty in both actor and critic, each with its weight (Tarasov et al. 2023, arXiv 2305.09836).

Initial weights are torch's and not those of the authors' code (docs/methods.md).
"""

from __future__ import annotations

from dataclasses import dataclass
from types import SimpleNamespace

import torch
from torch import Tensor

from trainables.agent import Agent, Batch
from trainables.nn import MLP

TITLE = "ReBRAC"


@dataclass(frozen=True)
class Hyper:
    hidden: tuple[int, ...] = (256, 256, 256)  # the paper, section 3
    batch_size: int = 1024  # the paper, section 3
    learning_rate: float = 1e-3  # the paper, appendix: MuJoCo, actor and critic
    discount: float = 0.99  # the paper, section 3
    n_step: int = 1  # the same: steps of the TD target (docs/methods.md)
    tau: float = 0.005  # tinkoff-ai/ReBRAC
    actor_penalty: float = 0.01  # the paper, appendix: by dataset (trial/published.py); here the most frequent of MuJoCo's
    critic_penalty: float = 0.01  # the same
    policy_noise: float = 0.2  # tinkoff-ai/ReBRAC
    noise_clip: float = 0.5  # tinkoff-ai/ReBRAC
    policy_delay: int = 2  # tinkoff-ai/ReBRAC: the actor and all targets move every 2nd update


RANGES = {"actor_penalty": "[0, inf)", "critic_penalty": "[0, inf)"}
NORMALIZE = False  # tinkoff-ai/ReBRAC
NEXT_ACTIONS = True


def networks(observation_size: int, action_size: int, hyper: SimpleNamespace) -> dict[str, MLP]:
    return {
        "actor": MLP((observation_size, *hyper.hidden, action_size), output="tanh"),
        "critic": MLP((observation_size + action_size, *hyper.hidden, 1), copies=2, norm="after"),
    }


LEARNING_RATES = {"actor": "learning_rate", "critic": "learning_rate"}
TARGETS = ("actor", "critic")


def critic_loss(agent: Agent, batch: Batch) -> Tensor:
    """Sum over the twin critics of the mean squared TD error; the target pays for next actions that are not the data's, [K]."""
    hyper = agent.hyper
    with torch.no_grad():
        noise = agent.noise("target policy", *batch.actions.shape[1:]) * hyper.policy_noise.unsqueeze(-1)
        clip = hyper.noise_clip.unsqueeze(-1)
        next_actions = (agent.target.actor(batch.next_observations) + noise.clamp(-clip, clip)).clamp(-1, 1)
        next_q = agent.target.critic(batch.next_observations, next_actions).squeeze(-1).amin(1)
        penalty = (next_actions - batch.next_actions).square().sum(-1)
        target = agent.td_target(batch, next_q - hyper.critic_penalty * penalty)
    q = agent.critic(batch.observations, batch.actions).squeeze(-1)  # [K, 2, B]
    return (q - target.unsqueeze(1)).square().mean(-1).sum(1)


def actor_loss(agent: Agent, batch: Batch) -> Tensor:
    """-lambda min Q(s, pi(s)) + penalty |pi(s) - a|^2 with lambda = 1 / mean |min Q| of the member's own batch, [K]."""
    actions = agent.actor(batch.observations)
    q = agent.critic.frozen(batch.observations, actions).squeeze(-1).amin(1)  # [K, B]
    weight = 1 / q.detach().abs().mean(1, keepdim=True)
    penalty = (actions - batch.actions).square().sum(-1)
    return (agent.hyper.actor_penalty * penalty - weight * q).mean(1)


LOSSES = {"actor": actor_loss, "critic": critic_loss}


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
