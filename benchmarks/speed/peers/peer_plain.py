"""The other peer: the algorithms as single-file implementations such as CORL's write them, in plain torch; timed on demand.

CORL is not on the package registry, so this is a program of our own that computes what its files compute, in their way: one module and
one torch.optim.Adam for each network, two critics one after the other, a replay buffer of tensors that is indexed with numpy's draws,
soft updates parameter by parameter, losses logged as numbers. Sizes and hyperparameters are CORL's.

    python peer_plain.py TABLE.npz     then on standard input, a line each: {"algorithm": "td3_bc", "updates": 200}

The answer is one line, the seconds that these updates took. One learner of each algorithm lives through all lines.
"""

from __future__ import annotations

import copy
import json
import sys
import time
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

BATCH, DISCOUNT, TAU = 256, 0.99, 0.005


def mlp(inputs: int, outputs: int, *last: nn.Module) -> nn.Sequential:
    return nn.Sequential(nn.Linear(inputs, 256), nn.ReLU(), nn.Linear(256, 256), nn.ReLU(), nn.Linear(256, outputs), *last)


def adam(*networks: nn.Module) -> torch.optim.Adam:
    return torch.optim.Adam([parameter for network in networks for parameter in network.parameters()], lr=3e-4)


def step(optimizers: list[torch.optim.Adam], loss: Tensor) -> None:
    for optimizer in optimizers:
        optimizer.zero_grad()
    loss.backward()
    for optimizer in optimizers:
        optimizer.step()


def soft_update(target: nn.Module, source: nn.Module) -> None:
    for to, parameter in zip(target.parameters(), source.parameters(), strict=True):
        to.data.copy_((1 - TAU) * to.data + TAU * parameter.data)


class Buffer:
    """All transitions as tensors."""

    def __init__(self, table: dict[str, np.ndarray]) -> None:
        kept = np.flatnonzero(table["timeouts"] == 0)
        kept = kept[kept < len(table["rewards"]) - 1]
        columns = (
            table["observations"][kept], table["actions"][kept], table["rewards"][kept, None], table["observations"][kept + 1],
            table["terminals"][kept, None],
        )  # fmt: skip
        self.columns = [torch.tensor(column, dtype=torch.float32) for column in columns]

    def sample(self) -> list[Tensor]:
        indices = np.random.randint(0, len(self.columns[0]), size=BATCH)
        return [column[indices] for column in self.columns]


class BC:
    def __init__(self, observation: int, action: int) -> None:
        self.actor = mlp(observation, action, nn.Tanh())
        self.optimizer = adam(self.actor)

    def train(self, batch: list[Tensor]) -> dict[str, float]:
        observations, actions, *_ = batch
        loss = functional.mse_loss(self.actor(observations), actions)
        step([self.optimizer], loss)
        return {"actor_loss": loss.item()}


class TD3BC:
    def __init__(self, observation: int, action: int) -> None:
        self.actor = mlp(observation, action, nn.Tanh())
        self.critic_1, self.critic_2 = (mlp(observation + action, 1) for _ in range(2))
        self.targets = copy.deepcopy([self.actor, self.critic_1, self.critic_2])
        self.actor_optimizer, self.critic_optimizers = adam(self.actor), [adam(self.critic_1), adam(self.critic_2)]
        self.updates = 0

    def train(self, batch: list[Tensor]) -> dict[str, float]:
        self.updates += 1
        observations, actions, rewards, next_observations, terminals = batch
        actor_target, *critic_targets = self.targets
        with torch.no_grad():
            noise = (torch.randn_like(actions) * 0.2).clamp(-0.5, 0.5)
            next_actions = (actor_target(next_observations) + noise).clamp(-1, 1)
            both = torch.cat([next_observations, next_actions], 1)
            target = rewards + (1 - terminals) * DISCOUNT * torch.min(*(critic(both) for critic in critic_targets))
        both = torch.cat([observations, actions], 1)
        loss = functional.mse_loss(self.critic_1(both), target) + functional.mse_loss(self.critic_2(both), target)
        logged = {"critic_loss": loss.item()}
        step(self.critic_optimizers, loss)
        if self.updates % 2 == 0:
            chosen = self.actor(observations)
            q = self.critic_1(torch.cat([observations, chosen], 1))
            loss = -2.5 / q.abs().mean().detach() * q.mean() + functional.mse_loss(chosen, actions)
            logged["actor_loss"] = loss.item()
            step([self.actor_optimizer], loss)
            for network, network_target in zip((self.actor, self.critic_1, self.critic_2), self.targets, strict=True):
                soft_update(network_target, network)
        return logged


class IQL:
    def __init__(self, observation: int, action: int) -> None:
        self.actor, self.value = mlp(observation, action, nn.Tanh()), mlp(observation, 1)
        self.log_std = nn.Parameter(torch.zeros(action))
        self.critics = nn.ModuleList([mlp(observation + action, 1), mlp(observation + action, 1)])
        self.target = copy.deepcopy(self.critics).requires_grad_(False)
        self.value_optimizer, self.critic_optimizer = adam(self.value), adam(self.critics)
        self.actor_optimizer = torch.optim.Adam([*self.actor.parameters(), self.log_std], lr=3e-4)
        self.schedule = torch.optim.lr_scheduler.CosineAnnealingLR(self.actor_optimizer, 1_000_000)

    def train(self, batch: list[Tensor]) -> dict[str, float]:
        observations, actions, rewards, next_observations, terminals = batch
        with torch.no_grad():
            next_value = self.value(next_observations)
            both = torch.cat([observations, actions], 1)
            target_q = torch.min(*(critic(both) for critic in self.target))
        advantage = target_q - self.value(observations)
        value_loss = torch.mean(torch.abs(0.7 - (advantage < 0).float()) * advantage**2)
        logged = {"value_loss": value_loss.item()}
        step([self.value_optimizer], value_loss)
        target = rewards + (1 - terminals) * DISCOUNT * next_value
        critic_loss = sum(functional.mse_loss(critic(both), target) for critic in self.critics) / 2
        logged["critic_loss"] = critic_loss.item()
        step([self.critic_optimizer], critic_loss)
        soft_update(self.target, self.critics)
        weight = torch.exp(3 * advantage.detach()).clamp(max=100)
        policy = torch.distributions.Normal(self.actor(observations), torch.exp(self.log_std.clamp(-20, 2)))
        actor_loss = torch.mean(-weight * policy.log_prob(actions).sum(-1, keepdim=True))
        logged["actor_loss"] = actor_loss.item()
        step([self.actor_optimizer], actor_loss)
        self.schedule.step()
        return logged


LEARNERS: dict[str, Callable[[int, int], BC | TD3BC | IQL]] = {"bc": BC, "td3_bc": TD3BC, "iql": IQL}


def main() -> None:
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    table = dict(np.load(sys.argv[1]))
    buffer = Buffer(table)
    learners: dict[str, BC | TD3BC | IQL] = {}
    for line in sys.stdin:
        task = json.loads(line)
        name = task["algorithm"]
        if name not in learners:
            learners[name] = LEARNERS[name](table["observations"].shape[1], table["actions"].shape[1])
        begun = time.perf_counter()
        for _ in range(task["updates"]):
            learners[name].train(buffer.sample())
        print(json.dumps(time.perf_counter() - begun), flush=True)


if __name__ == "__main__":
    main()
