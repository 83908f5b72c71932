"""EDAC: SAC with many critics, whose action gradients are kept diverse (An et al. 2021, arXiv 2110.01548); SAC-N is without.

Initial weights are torch's and not those of the authors' code (docs/methods.md). Policy and entropy weight step together and before the
critic, whose target sees the new ones; in the authors' code it sees the old ones, and in CORL the entropy weight steps first.
"""

from __future__ import annotations

from dataclasses import dataclass
from types import SimpleNamespace

import torch
from torch import Tensor

from trainables.agent import Agent, Batch
from trainables.nn import MLP
from trainables.tensors.functions import exp, tanh
from trainables.tensors.gaussian import squashed

TITLE = "EDAC"
# Share of the mean norm over a batch below which a gradient has no direction. Without this, the few rows through which an action reaches
# a very sparse critic only by weights that have just been grown, at 0, would give these gradients of 1e6 and more, and Adam would hardly
# move them again.
LEAST = 1e-6


@dataclass(frozen=True)
class Hyper:
    hidden: tuple[int, ...] = (256, 256, 256)  # snu-mllab/EDAC; CORL
    batch_size: int = 256  # the paper, appendix; CORL
    learning_rate: float = 3e-4  # the paper, appendix; CORL: actor, critics and the entropy's weight
    discount: float = 0.99  # the paper, appendix
    tau: float = 0.005  # the paper, appendix
    critics: int = 10  # the paper, appendix: halfcheetah and walker2d; hopper 50 (trial/published.py)
    eta: float = 1.0  # the paper, appendix: weight of the diversity, by dataset (trial/published.py)
    log_std_min: float = -5.0  # CORL
    log_std_max: float = 2.0  # CORL


RANGES = {"critics": "[2, inf)", "eta": "[0, inf)"}  # diversity is between two
NORMALIZE = False  # CORL
NETWORKS = ("mlp",)  # the critics' gradient by the action is differentiated again, which is written out for them alone


def networks(observation_size: int, action_size: int, hyper: SimpleNamespace) -> dict[str, MLP]:
    return {
        "actor": MLP((observation_size, *hyper.hidden, 2 * action_size), extra={"log_entropy_weight": 1}),
        "critic": MLP((observation_size + action_size, *hyper.hidden, 1), copies=hyper.critics),
    }


LEARNING_RATES = {"actor": "learning_rate", "critic": "learning_rate"}
TARGETS = ("critic",)


def policy(agent: Agent, observations: Tensor, purpose: str) -> tuple[Tensor, Tensor]:
    """Sampled actions [K, B, A] and their log densities [K, B]."""
    mean, log_std = agent.actor(observations).chunk(2, dim=-1)
    log_std = log_std.clamp(agent.hyper.log_std_min.unsqueeze(-1), agent.hyper.log_std_max.unsqueeze(-1))
    return squashed(mean, log_std, agent.noise(purpose, *mean.shape[1:]))


@torch.no_grad()
def td_target(agent: Agent, batch: Batch) -> Tensor:
    """Reward + the discounted minimum of the N target critics at a sampled next action, with its entropy, [K, B]."""
    next_actions, log_pi = policy(agent, batch.next_observations, "target policy")
    next_q = agent.target.critic(batch.next_observations, next_actions).squeeze(-1).amin(1)
    next_v = next_q - exp(agent.actor.extra["log_entropy_weight"]) * log_pi
    return batch.rewards + (1 - batch.terminals) * agent.hyper.discount * next_v


def squared_errors(q: Tensor, target: Tensor) -> Tensor:
    """Sum over the N critics of their mean squared errors, [K], from values [K, N, B, 1] and targets [K, B]."""
    return (q.squeeze(-1) - target.unsqueeze(1)).square().mean(-1).sum(1)


def critic_loss(agent: Agent, batch: Batch) -> Tensor:
    """Sum over the N critics of the mean squared TD error towards their minimum, + eta times the diversity term, [K]."""
    target = td_target(agent, batch)
    q, gradient = agent.critic.input_gradient(batch.observations, batch.actions, by=1)  # [K, N, B, 1], [K, N, B, A]
    return squared_errors(q, target) + agent.hyper.eta.squeeze(-1) * alignment(gradient)


def alignment(gradient: Tensor) -> Tensor:
    """Mean over the batch of the cosines between the critics' gradients by the action, summed over pairs i != j, over N - 1, [K].

    Gradients that all but vanish beside a critic's others count as orthogonal to all. The sum over pairs is |sum of the unit gradients|^2
    less the N squares, so that no N x N matrix is made."""
    norm = gradient.norm(dim=-1, keepdim=True)
    unit = torch.where(norm > LEAST * norm.mean(2, keepdim=True), gradient / (norm + 1e-10), 0.0)  # CORL's 1e-10
    pairs = unit.sum(1).square().sum(-1) - unit.square().sum((1, 3))  # [K, B]
    return pairs.mean(1) / (gradient.shape[1] - 1)


def actor_losses(agent: Agent, batch: Batch) -> tuple[Tensor, Tensor]:
    """SAC's two: weight x log pi - min Q for the policy; for the entropy's weight, an entropy of -A on average. Each [K]."""
    actions, log_pi = policy(agent, batch.observations, "policy")
    q = agent.critic.frozen(batch.observations, actions).squeeze(-1).amin(1)
    log_entropy_weight = agent.actor.extra["log_entropy_weight"]  # [K, 1]
    entropy = -batch.actions.shape[-1]
    actor = (exp(log_entropy_weight.detach()) * log_pi - q).mean(1)
    return actor, -(log_entropy_weight * (log_pi.detach() + entropy)).mean(1)


LOSSES = {"actor": lambda agent, batch: actor_losses(agent, batch)[0], "critic": critic_loss}


def update(agent: Agent, batch: Batch) -> dict[str, Tensor]:
    actor, entropy = actor_losses(agent, batch)
    agent.minimize(actor=actor + entropy)
    critic = critic_loss(agent, batch)
    agent.minimize(critic=critic)
    agent.track("critic")
    return {"actor_loss": actor, "entropy_loss": entropy, "critic_loss": critic}


def act(agent: Agent, observations: Tensor) -> Tensor:
    return tanh(agent.actor(observations).chunk(2, dim=-1)[0])
