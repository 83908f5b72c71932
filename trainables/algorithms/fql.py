"""FQL: a one-step policy that seeks value and is distilled from a flow policy of the data (Park et al. 2025, arXiv 2502.02538)."""

from __future__ import annotations

from dataclasses import dataclass
from types import SimpleNamespace

import torch
from torch import Tensor

from trainables.agent import Agent, Batch
from trainables.nn import MLP

TITLE = "FQL"


@dataclass(frozen=True)
class Hyper:
    hidden: tuple[int, ...] = (512, 512, 512, 512)  # seohongpark/fql, all networks; it has GELU where these have ReLU
    batch_size: int = 256  # seohongpark/fql
    learning_rate: float = 3e-4  # seohongpark/fql, all networks
    discount: float = 0.99  # seohongpark/fql
    n_step: int = 1  # the same: steps of the TD target (docs/methods.md)
    tau: float = 0.005  # seohongpark/fql
    alpha: float = 10.0  # seohongpark/fql's default, of the distillation; the paper tunes it for each task, none of them MuJoCo's
    normalize_q: bool = False  # seohongpark/fql (normalize_q_loss); its README advises True for other tasks, with alpha in [0.03, 10]
    minimum: bool = False  # seohongpark/fql (q_agg): the smaller critic in the target, instead of the mean of both
    flow_steps: int = 10  # seohongpark/fql: of Euler's method from noise to an action


RANGES = {"alpha": "[0, inf)"}
NORMALIZE = False  # seohongpark/fql


def networks(observation_size: int, action_size: int, hyper: SimpleNamespace) -> dict[str, MLP]:
    both = observation_size + action_size
    return {
        "actor": MLP((both, *hyper.hidden, action_size)),  # noise -> action
        "flow": MLP((both + 1, *hyper.hidden, action_size)),  # velocity at a point on the way and its time
        "critic": MLP((both, *hyper.hidden, 1), copies=2, norm="after"),
    }


LEARNING_RATES = {"actor": "learning_rate", "flow": "learning_rate", "critic": "learning_rate"}
TARGETS = ("critic",)


def flow_loss(agent: Agent, batch: Batch) -> Tensor:
    """Flow matching: squared error of the velocity from noise x0 to the data's action, at a random time on the straight way, [K]."""
    noise = agent.noise("flow", *batch.actions.shape[1:])
    time = agent.uniform("flow time", batch.actions.shape[1], 1)
    place = torch.lerp(noise, batch.actions, time)
    return (agent.flow(batch.observations, place, time) - (batch.actions - noise)).square().mean((1, 2))


def integrate(agent: Agent, observations: Tensor, noise: Tensor) -> Tensor:
    """The flow policy's actions [K, B, A]: Euler's method along its velocities, from standard normals [K, B, A]."""
    steps, actions = agent.hyper.flow_steps, noise
    for step in range(steps):
        time = torch.full_like(noise[..., :1], step / steps)
        actions = actions + agent.flow(observations, actions, time) / steps
    return actions.clamp(-1, 1)


def critic_loss(agent: Agent, batch: Batch) -> Tensor:
    """Mean over the twin critics of the squared TD error towards their mean (or minimum) at the one-step policy's next action, [K]."""
    hyper = agent.hyper
    with torch.no_grad():
        noise = agent.noise("target policy", *batch.actions.shape[1:])
        next_actions = agent.actor(batch.next_observations, noise).clamp(-1, 1)
        next_q = agent.target.critic(batch.next_observations, next_actions).squeeze(-1)  # [K, 2, B]
        next_q = next_q.amin(1) if hyper.minimum else next_q.mean(1)
        target = agent.td_target(batch, next_q)
    q = agent.critic(batch.observations, batch.actions).squeeze(-1)
    return (q - target.unsqueeze(1)).square().mean((1, 2))


def actor_loss(agent: Agent, batch: Batch) -> Tensor:
    """alpha |mu(s, z) - flow(s, z)|^2 - lambda Q(s, mu(s, z)), Q the critics' mean; lambda is 1, or 1 / mean |Q| of the batch, [K]."""
    noise = agent.noise("policy", *batch.actions.shape[1:])
    with torch.no_grad():
        cloned = integrate(agent, batch.observations, noise)
    actions = agent.actor(batch.observations, noise)
    distillation = (actions - cloned).square().mean((1, 2))
    q = agent.critic.frozen(batch.observations, actions.clamp(-1, 1)).squeeze(-1).mean(1)  # [K, B]
    if agent.hyper.normalize_q:
        q = q / q.detach().abs().mean(1, keepdim=True)
    return agent.hyper.alpha.squeeze(-1) * distillation - q.mean(1)


LOSSES = {"actor": actor_loss, "flow": flow_loss, "critic": critic_loss}


def update(agent: Agent, batch: Batch) -> dict[str, Tensor]:
    # All losses see the networks from before this update, as in seohongpark/fql. It also tracks the critic from before it.
    flow, actor, critic = flow_loss(agent, batch), actor_loss(agent, batch), critic_loss(agent, batch)
    agent.minimize(flow=flow, actor=actor, critic=critic)
    agent.track("critic")
    return {"flow_loss": flow, "actor_loss": actor, "critic_loss": critic}


def act(agent: Agent, observations: Tensor) -> Tensor:
    """The one-step policy's actions from the same noise in every step of an episode: so the policy is a function of trial, update
    and episode. seohongpark/fql draws anew in each step."""
    noise = agent.noise("evaluation", observations.shape[1], agent.sizes[1])
    return agent.actor(observations, noise).clamp(-1, 1)
