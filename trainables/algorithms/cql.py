"""CQL: SAC whose critics are pushed down on sampled actions and up on the data's (Kumar et al. 2020, arXiv 2006.04779).

Initial weights are torch's and not CORL's (docs/methods.md).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from types import SimpleNamespace

import torch
from torch import Tensor

from trainables.agent import Agent, Batch
from trainables.nn import MLP
from trainables.tensors.functions import exp, logsumexp, tanh
from trainables.tensors.gaussian import squashed

TITLE = "CQL"


@dataclass(frozen=True)
class Hyper:
    hidden: tuple[int, ...] = (256, 256, 256)  # the paper, appendix F; CORL
    batch_size: int = 256  # CORL
    actor_learning_rate: float = 3e-5  # the paper, appendix F; CORL; also the entropy weight's
    critic_learning_rate: float = 3e-4  # the paper, appendix F; CORL
    discount: float = 0.99  # CORL
    n_step: int = 1  # the same: steps of the TD target (docs/methods.md)
    tau: float = 0.005  # CORL
    alpha: float = 10.0  # CORL, MuJoCo: weight of the conservative term
    temperature: float = 1.0  # CORL (cql_temp): of the soft maximum over actions
    samples: int = 10  # the paper, appendix F; CORL: actions of each of three proposals
    log_std_offset: float = -1.0  # CORL, as an initial value that is trained; here the output's bias learns it
    log_std_min: float = -20.0  # CORL
    log_std_max: float = 2.0  # CORL


RANGES = {"alpha": "[0, inf)", "temperature": "(0, inf)"}
NORMALIZE = True  # CORL


def networks(observation_size: int, action_size: int, hyper: SimpleNamespace) -> dict[str, MLP]:
    return {
        "actor": MLP((observation_size, *hyper.hidden, 2 * action_size), extra={"log_entropy_weight": 1}),
        "critic": MLP((observation_size + action_size, *hyper.hidden, 1), copies=2),
    }


LEARNING_RATES = {"actor": "actor_learning_rate", "critic": "critic_learning_rate"}
TARGETS = ("critic",)


def policy(agent: Agent, observations: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and log deviation before tanh, each [K, B, A]."""
    mean, log_std = agent.actor(observations).chunk(2, dim=-1)
    offset, low, high = (v.unsqueeze(-1) for v in (agent.hyper.log_std_offset, agent.hyper.log_std_min, agent.hyper.log_std_max))
    return mean, (log_std + offset).clamp(low, high)


def proposals(agent: Agent, mean: Tensor, log_std: Tensor) -> tuple[Tensor, Tensor]:
    """Actions [K, 3 N, B, A] to push down, with their log densities: N uniform, N of pi(s), N of pi(s').

    `mean` and `log_std` [K, 2 B, A] are the policy's at s and then at s'."""
    rows, size = mean.shape[1] // 2, mean.shape[2]
    uniform = 2 * agent.uniform("random actions", agent.hyper.samples, rows, size) - 1
    noise = agent.noise("proposed actions", agent.hyper.samples, 2 * rows, size)
    proposed, log_pi = squashed(mean.unsqueeze(1), log_std.unsqueeze(1), noise)  # [K, N, 2 B, A]
    actions = torch.cat([uniform, *proposed.split(rows, dim=2)], dim=1)
    density = log_pi.new_full(uniform.shape[:-1], -size * math.log(2))
    return actions, torch.cat([density, *log_pi.split(rows, dim=2)], dim=1)


def values(agent: Agent, batch: Batch) -> tuple[Tensor, Tensor, Tensor]:
    """Q(s, .) of the data's action and then of the proposals, [K, 2, 1 + 3 N, B]; the proposals' log densities; the TD target [K, B]."""
    rows = batch.actions.shape[1]
    with torch.no_grad():
        mean, log_std = policy(agent, torch.cat([batch.observations, batch.next_observations], dim=1))
        next_actions, _ = squashed(mean[:, rows:], log_std[:, rows:], agent.noise("target policy", *batch.actions.shape[1:]))
        next_q = agent.target.critic(batch.next_observations, next_actions).squeeze(-1).amin(1)
        target = agent.td_target(batch, next_q)
        sampled, log_density = proposals(agent, mean, log_std)
        actions = torch.cat([batch.actions.unsqueeze(1), sampled], dim=1).flatten(1, 2)  # the data's first: one forward for all
        observations = batch.observations.repeat(1, 1 + sampled.shape[1], 1)
    return agent.critic(observations, actions).squeeze(-1).unflatten(-1, (-1, rows)), log_density, target


def conservative(agent: Agent, q: Tensor, log_density: Tensor, target: Tensor) -> Tensor:
    """TD error + alpha (log of the integral of exp Q(s, .), by importance sampling, - Q(s, a)), summed over the twin critics, [K]."""
    hyper = agent.hyper
    data_q, temperature = q[:, :, 0], hyper.temperature.reshape(-1, 1, 1, 1)
    soft = logsumexp((q[:, :, 1:] - log_density.unsqueeze(1)) / temperature, dim=2)  # [K, 2, B]
    gap = (temperature.squeeze(-1) * soft - data_q).mean(-1)
    error = (data_q - target.unsqueeze(1)).square().mean(-1)
    return (error + hyper.alpha * gap).sum(1)


def critic_loss(agent: Agent, batch: Batch) -> Tensor:
    """The TD error and the conservative term, [K]."""
    return conservative(agent, *values(agent, batch))


def actor_losses(agent: Agent, batch: Batch) -> tuple[Tensor, Tensor]:
    """SAC's two: weight x log pi - min Q for the policy; for the entropy's weight, an entropy of -A on average. Each [K]."""
    actions, log_pi = squashed(*policy(agent, batch.observations), agent.noise("policy", *batch.actions.shape[1:]))
    q = agent.critic.frozen(batch.observations, actions).squeeze(-1).amin(1)
    log_entropy_weight = agent.actor.extra["log_entropy_weight"]  # [K, 1]
    entropy = -batch.actions.shape[-1]
    actor = (exp(log_entropy_weight.detach()) * log_pi - q).mean(1)
    return actor, -(log_entropy_weight * (log_pi.detach() + entropy)).mean(1)


LOSSES = {"actor": lambda agent, batch: actor_losses(agent, batch)[0], "critic": critic_loss}


def update(agent: Agent, batch: Batch) -> dict[str, Tensor]:
    # The order of CORL's code: both losses see the networks from before this update.
    actor, entropy = actor_losses(agent, batch)
    critic = critic_loss(agent, batch)
    agent.minimize(actor=actor + entropy, critic=critic)
    agent.track("critic")
    return {"actor_loss": actor, "entropy_loss": entropy, "critic_loss": critic}


def act(agent: Agent, observations: Tensor) -> Tensor:
    return tanh(agent.actor(observations).chunk(2, dim=-1)[0])
