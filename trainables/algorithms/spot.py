"""SPOT: TD3 that stays where a variational autoencoder finds the data's actions dense (Wu et al. 2022, arXiv 2202.06239).

The authors' code (thuml/SPOT) trains the autoencoder first, for 100,000 updates, and the policy on the finished one. Here all networks
train in each update, as in BCQ: every update is one minibatch for every network, whatever a trial's budget, so the autoencoder is trained
ten times as long in the papers' million updates, and the first policies follow an unfinished one. The actor has no dropout (0.1 there).
"""

from __future__ import annotations

from dataclasses import dataclass
from types import SimpleNamespace

import torch
from torch import Tensor

from trainables.agent import Agent, Batch
from trainables.nn import MLP
from trainables.tensors.functions import exp

TITLE = "SPOT"


@dataclass(frozen=True)
class Hyper:
    hidden: tuple[int, ...] = (256, 256)  # thuml/SPOT, actor and critic
    model_hidden: tuple[int, ...] = (750, 750)  # thuml/SPOT, encoder and decoder
    batch_size: int = 256  # thuml/SPOT
    learning_rate: float = 3e-4  # thuml/SPOT, actor and critic
    model_learning_rate: float = 1e-3  # thuml/SPOT, encoder and decoder
    discount: float = 0.99  # thuml/SPOT
    n_step: int = 1  # the same: steps of the TD target (docs/methods.md)
    tau: float = 0.005  # thuml/SPOT
    support_weight: float = 0.2  # thuml/SPOT: lambda, by dataset (trial/published.py); here the most frequent of MuJoCo's
    kl_weight: float = 0.5  # thuml/SPOT: beta
    log_std_min: float = -4.0  # thuml/SPOT, of the latents
    log_std_max: float = 15.0  # thuml/SPOT
    policy_noise: float = 0.2  # thuml/SPOT
    noise_clip: float = 0.5  # thuml/SPOT
    policy_delay: int = 2  # thuml/SPOT: the actor and all targets move every 2nd update


RANGES = {"support_weight": "[0, inf)", "kl_weight": "[0, inf)", "model_learning_rate": "[0, inf)"}
NORMALIZE = True  # thuml/SPOT


def networks(observation_size: int, action_size: int, hyper: SimpleNamespace) -> dict[str, MLP]:
    both, latent = observation_size + action_size, 2 * action_size  # thuml/SPOT: two latents for each dimension of the action
    return {
        "actor": MLP((observation_size, *hyper.hidden, action_size), output="tanh"),
        "critic": MLP((both, *hyper.hidden, 1), copies=2),
        "encoder": MLP((both, *hyper.model_hidden, 2 * latent)),
        "decoder": MLP((observation_size + latent, *hyper.model_hidden, action_size), output="tanh"),
    }


LEARNING_RATES = {
    "actor": "learning_rate",
    "critic": "learning_rate",
    "encoder": "model_learning_rate",
    "decoder": "model_learning_rate",
}
TARGETS = ("actor", "critic")


def rarity(agent: Agent, observations: Tensor, actions: Tensor, purpose: str, frozen: bool = False) -> Tensor:
    """How rare the autoencoder finds actions, up to a factor and a constant -log of their density: reconstruction + weight x KL, [K]."""
    encoder, decoder = (agent.encoder.frozen, agent.decoder.frozen) if frozen else (agent.encoder, agent.decoder)
    low, high = agent.hyper.log_std_min.unsqueeze(-1), agent.hyper.log_std_max.unsqueeze(-1)
    mean, log_std = encoder(observations, actions).chunk(2, dim=-1)
    log_std = log_std.clamp(low, high)
    latents = mean + exp(log_std) * agent.noise(purpose, *mean.shape[1:])
    error = (decoder(observations, latents) - actions).square().mean((1, 2))
    divergence = 0.5 * (mean.square() + exp(2 * log_std) - 1 - 2 * log_std).mean((1, 2))
    return error + agent.hyper.kl_weight.squeeze(-1) * divergence


def model_loss(agent: Agent, batch: Batch) -> Tensor:
    """The autoencoder's, on the data's actions, [K]."""
    return rarity(agent, batch.observations, batch.actions, "latents")


def critic_loss(agent: Agent, batch: Batch) -> Tensor:
    """Sum over the twin critics of the mean squared TD error, [K]."""
    hyper = agent.hyper
    with torch.no_grad():
        noise = agent.noise("target policy", *batch.actions.shape[1:]) * hyper.policy_noise.unsqueeze(-1)
        clip = hyper.noise_clip.unsqueeze(-1)
        next_actions = (agent.target.actor(batch.next_observations) + noise.clamp(-clip, clip)).clamp(-1, 1)
        target = agent.td_target(batch, agent.target.critic(batch.next_observations, next_actions).squeeze(-1).amin(1))
    q = agent.critic(batch.observations, batch.actions).squeeze(-1)  # [K, 2, B]
    return (q - target.unsqueeze(1)).square().mean(-1).sum(1)


def actor_loss(agent: Agent, batch: Batch) -> Tensor:
    """-Q1(s, pi(s)) / mean |Q1| of the member's own batch + lambda x how rare pi(s) is, [K]."""
    actions = agent.actor(batch.observations)
    q = agent.critic.frozen(batch.observations, actions, copy=0).squeeze(-1)  # [K, B]
    rare = rarity(agent, batch.observations, actions, "own latents", frozen=True)
    return -q.mean(1) / q.detach().abs().mean(1) + agent.hyper.support_weight.squeeze(-1) * rare


LOSSES = {"actor": actor_loss, "critic": critic_loss, "encoder": model_loss, "decoder": model_loss}


def update(agent: Agent, batch: Batch) -> dict[str, Tensor]:
    model = model_loss(agent, batch)
    agent.minimize(encoder=model, decoder=model)
    critic = critic_loss(agent, batch)
    agent.minimize(critic=critic)
    logged = {"model_loss": model, "critic_loss": critic}
    if agent.every(agent.hyper.policy_delay):
        actor = actor_loss(agent, batch)
        agent.minimize(actor=actor)
        agent.track("actor", "critic")
        logged["actor_loss"] = actor
    return logged


def act(agent: Agent, observations: Tensor) -> Tensor:
    return agent.actor(observations)
