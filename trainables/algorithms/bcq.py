"""BCQ: batch-constrained Q-learning, the best of many actions generated to resemble the data's (Fujimoto et al. 2019, arXiv 1812.02900)."""

from __future__ import annotations

from dataclasses import dataclass
from types import SimpleNamespace

import torch
from torch import Tensor

from trainables.agent import Agent, Batch
from trainables.execution import Network
from trainables.nn import MLP
from trainables.tensors.functions import exp

TITLE = "BCQ"


@dataclass(frozen=True)
class Hyper:
    hidden: tuple[int, ...] = (400, 300)  # sfujim/BCQ, actor and critic
    model_hidden: tuple[int, ...] = (750, 750)  # sfujim/BCQ, encoder and decoder
    batch_size: int = 100  # sfujim/BCQ
    learning_rate: float = 1e-3  # sfujim/BCQ, all networks
    discount: float = 0.99  # sfujim/BCQ
    n_step: int = 1  # the same: steps of the TD target (docs/methods.md)
    tau: float = 0.005  # sfujim/BCQ
    minimum_weight: float = 0.75  # the paper: lambda, of the smaller critic in the target
    perturbation: float = 0.05  # the paper: Phi, the largest change of a generated action
    kl_weight: float = 0.5  # sfujim/BCQ
    latent_clip: float = 0.5  # sfujim/BCQ: of the latents that actions are generated from
    log_std_min: float = -4.0  # sfujim/BCQ
    log_std_max: float = 15.0  # sfujim/BCQ
    samples: int = 10  # sfujim/BCQ: generated actions of a next observation
    act_samples: int = 100  # sfujim/BCQ: generated actions to choose from in evaluation


RANGES = {"minimum_weight": "[0, 1]", "perturbation": "[0, inf)", "kl_weight": "[0, inf)", "latent_clip": "(0, inf)"}
NORMALIZE = False  # sfujim/BCQ
POLICY = ("actor", "critic", "decoder")


def networks(observation_size: int, action_size: int, hyper: SimpleNamespace) -> dict[str, MLP]:
    both, latent = observation_size + action_size, 2 * action_size  # sfujim/BCQ: two latents for each dimension of the action
    return {
        "actor": MLP((both, *hyper.hidden, action_size), output="tanh"),
        "critic": MLP((both, *hyper.hidden, 1), copies=2),
        "encoder": MLP((both, *hyper.model_hidden, 2 * latent)),
        "decoder": MLP((observation_size + latent, *hyper.model_hidden, action_size), output="tanh"),
    }


LEARNING_RATES = {"actor": "learning_rate", "critic": "learning_rate", "encoder": "learning_rate", "decoder": "learning_rate"}
TARGETS = ("actor", "critic")


def generate(agent: Agent, observations: Tensor, noise: Tensor) -> Tensor:
    """Actions like the data's, [K, B, A], from observations and standard normals [K, B, 2 A]."""
    clip = agent.hyper.latent_clip.unsqueeze(-1)
    return agent.decoder(observations, noise.clamp(-clip, clip))


def perturb(agent: Agent, actor: Network, observations: Tensor, actions: Tensor) -> Tensor:
    """The actions, moved by at most Phi towards higher values."""
    return (actions + agent.hyper.perturbation.unsqueeze(-1) * actor(observations, actions)).clamp(-1, 1)


def model_loss(agent: Agent, batch: Batch) -> Tensor:
    """Variational autoencoder of the data's actions: reconstruction + weight x KL divergence from the standard normal, [K]."""
    low, high = agent.hyper.log_std_min.unsqueeze(-1), agent.hyper.log_std_max.unsqueeze(-1)
    mean, log_std = agent.encoder(batch.observations, batch.actions).chunk(2, dim=-1)
    log_std = log_std.clamp(low, high)
    latents = mean + exp(log_std) * agent.noise("latents", *mean.shape[1:])
    error = (agent.decoder(batch.observations, latents) - batch.actions).square().mean((1, 2))
    divergence = 0.5 * (mean.square() + exp(2 * log_std) - 1 - 2 * log_std).mean((1, 2))
    return error + agent.hyper.kl_weight.squeeze(-1) * divergence


def critic_loss(agent: Agent, batch: Batch) -> Tensor:
    """Sum over the twin critics of the squared TD error towards the best generated next action, [K]."""
    hyper, (rows, size) = agent.hyper, batch.actions.shape[1:]
    with torch.no_grad():
        observations = batch.next_observations.repeat(1, hyper.samples, 1)  # [K, N B, O]
        generated = generate(agent, observations, agent.noise("next latents", hyper.samples * rows, 2 * size))
        actions = perturb(agent, agent.target.actor, observations, generated)
        q = agent.target.critic(observations, actions).squeeze(-1)  # [K, 2, N B]
        mixed = hyper.minimum_weight * q.amin(1) + (1 - hyper.minimum_weight) * q.amax(1)
        best = mixed.unflatten(-1, (hyper.samples, rows)).amax(1)
        target = agent.td_target(batch, best)
    q = agent.critic(batch.observations, batch.actions).squeeze(-1)
    return (q - target.unsqueeze(1)).square().mean(-1).sum(1)


def actor_loss(agent: Agent, batch: Batch) -> Tensor:
    """-Q1 of a generated action after its perturbation, [K]."""
    with torch.no_grad():
        size = batch.actions.shape[-1]
        generated = generate(agent, batch.observations, agent.noise("own latents", batch.actions.shape[1], 2 * size))
    actions = perturb(agent, agent.actor, batch.observations, generated)
    return (-agent.critic.frozen(batch.observations, actions, copy=0).squeeze(-1)).mean(1)


LOSSES = {"actor": actor_loss, "critic": critic_loss, "encoder": model_loss, "decoder": model_loss}


def update(agent: Agent, batch: Batch) -> dict[str, Tensor]:
    model = model_loss(agent, batch)
    agent.minimize(encoder=model, decoder=model)
    critic = critic_loss(agent, batch)
    agent.minimize(critic=critic)
    actor = actor_loss(agent, batch)
    agent.minimize(actor=actor)
    agent.track("actor", "critic")
    return {"model_loss": model, "critic_loss": critic, "actor_loss": actor}


def act(agent: Agent, observations: Tensor) -> Tensor:
    """The best by Q1 of N perturbed actions, generated from the same N latents in every step of an episode: so the policy is
    a function of trial, update and episode."""
    (_, episodes, _), samples = observations.shape, agent.hyper.act_samples
    size = agent.specs["decoder"].sizes[-1]
    noise = agent.noise("evaluation", episodes, samples, 2 * size).flatten(1, 2)
    repeated = observations.repeat_interleave(samples, dim=1)  # [K, E N, O]
    actions = perturb(agent, agent.actor, repeated, generate(agent, repeated, noise))
    best = agent.critic(repeated, actions, copy=0).unflatten(1, (episodes, samples)).argmax(2, keepdim=True)  # [K, E, 1, 1]
    return actions.unflatten(1, (episodes, samples)).take_along_dim(best, dim=2).squeeze(2)
