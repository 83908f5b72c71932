"""TD3+BC in a single file, in the style of CORL, pruned before training; checkpoints continue, and the policy becomes a smaller module.

    PYTHONPATH=. python examples/corl_td3_bc.py --density 0.05 --updates 2000 --checkpoint run.pt
    PYTHONPATH=. python examples/corl_td3_bc.py --density 0.05 --updates 4000 --checkpoint run.pt     # continues

What is Winnow's is marked (1) to (4). The data are random actions in Pendulum-v1, so that the example needs no download: replace `pendulum`
by your dataset.
"""

from __future__ import annotations

import argparse
import copy
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import torch
import torch.nn as nn
import torch.nn.functional as F

from trainables.library import Masks, prune_at_init


@dataclass
class TrainConfig:
    density: float = 0.05  # of the weights of actor and critics that are kept
    pruner: str = "snip"
    seed: int = 0
    updates: int = 2000
    checkpoint: str = ""  # written at the end; continued from, if it is there
    episodes: int = 20  # of the dataset
    batch_size: int = 256
    discount: float = 0.99
    tau: float = 0.005
    learning_rate: float = 3e-4
    alpha: float = 2.5
    policy_noise: float = 0.2
    noise_clip: float = 0.5
    policy_freq: int = 2


class ReplayBuffer:
    """A fixed dataset; observations are normalized."""

    def __init__(self, data: dict[str, np.ndarray], seed: int) -> None:
        self.mean, self.std = data["observations"].mean(0), data["observations"].std(0) + 1e-3
        for name in ("observations", "next_observations"):
            data[name] = (data[name] - self.mean) / self.std
        self.tensors = [torch.as_tensor(data[name], dtype=torch.float32) for name in data]
        self.generator = torch.Generator().manual_seed(seed)

    def sample(self, size: int) -> list[torch.Tensor]:
        rows = torch.randint(len(self.tensors[0]), (size,), generator=self.generator)
        return [tensor[rows] for tensor in self.tensors]


class Actor(nn.Module):
    def __init__(self, state_dim: int, action_dim: int) -> None:
        super().__init__()
        self.net = nn.Sequential(
            nn.Linear(state_dim, 256), nn.ReLU(), nn.Linear(256, 256), nn.ReLU(), nn.Linear(256, action_dim), nn.Tanh()
        )

    def forward(self, state: torch.Tensor) -> torch.Tensor:
        return self.net(state)


class Critic(nn.Module):
    def __init__(self, state_dim: int, action_dim: int) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Linear(state_dim + action_dim, 256), nn.ReLU(), nn.Linear(256, 256), nn.ReLU(), nn.Linear(256, 1))

    def forward(self, state: torch.Tensor, action: torch.Tensor) -> torch.Tensor:
        return self.net(torch.cat([state, action], 1)).squeeze(1)


class TD3BC:
    def __init__(self, config: TrainConfig, state_dim: int, action_dim: int) -> None:
        self.config, self.total_it = config, 0
        self.actor = Actor(state_dim, action_dim)
        self.critics = nn.ModuleList([Critic(state_dim, action_dim), Critic(state_dim, action_dim)])
        self.actor_target, self.critics_target = copy.deepcopy(self.actor), copy.deepcopy(self.critics)
        self.actor_optimizer = torch.optim.Adam(self.actor.parameters(), lr=config.learning_rate)
        self.critic_optimizer = torch.optim.Adam(self.critics.parameters(), lr=config.learning_rate)
        self.generator = torch.Generator().manual_seed(config.seed)
        self.masks = Masks()

    def networks(self) -> dict[str, dict[str, nn.Module]]:
        """(1) What is pruned, and the targets that follow."""
        return {
            "modules": {"actor": self.actor, "critic": self.critics},
            "targets": {"actor": self.actor_target, "critic": self.critics_target},
        }

    def prune(self, batch: list[torch.Tensor]) -> None:
        """(2) Before the first update: each network is scored by the loss that it will be trained with."""
        losses = {"actor": lambda batch: self.actor_loss(batch), "critic": lambda batch: self.critic_loss(batch)}
        self.masks = prune_at_init(loss=losses, batches=[batch], density=self.config.density, pruner=self.config.pruner, **self.networks())

    def critic_loss(self, batch: list[torch.Tensor]) -> torch.Tensor:
        state, action, reward, next_state, done = batch
        with torch.no_grad():
            noise = torch.randn(action.shape, generator=self.generator) * self.config.policy_noise
            next_action = self.actor_target(next_state) + noise.clamp(-self.config.noise_clip, self.config.noise_clip)
            next_q = torch.stack([critic(next_state, next_action.clamp(-1, 1)) for critic in self.critics_target]).min(0).values
            target = reward + self.config.discount * (1 - done) * next_q
        return sum((F.mse_loss(critic(state, action), target) for critic in self.critics), torch.zeros(()))

    def actor_loss(self, batch: list[torch.Tensor]) -> torch.Tensor:
        state, action, *_ = batch
        pi = self.actor(state)
        q = self.critics[0](state, pi)
        return -self.config.alpha / q.abs().mean().detach() * q.mean() + F.mse_loss(pi, action)

    def train(self, batch: list[torch.Tensor]) -> None:
        self.total_it += 1
        self.step(self.critic_optimizer, self.critic_loss(batch))
        if self.total_it % self.config.policy_freq == 0:
            self.step(self.actor_optimizer, self.actor_loss(batch))
            with torch.no_grad():
                for network, target in ((self.actor, self.actor_target), (self.critics, self.critics_target)):
                    for parameter, slow in zip(network.parameters(), target.parameters(), strict=True):
                        slow.lerp_(parameter, self.config.tau)

    def step(self, optimizer: torch.optim.Optimizer, loss: torch.Tensor) -> None:
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    def parts(self) -> dict[str, Any]:
        names = ("actor", "critics", "actor_target", "critics_target", "actor_optimizer", "critic_optimizer", "masks")  # (3) masks, too
        return {name: getattr(self, name) for name in names}

    def state_dict(self) -> dict[str, Any]:
        return {name: part.state_dict() for name, part in self.parts().items()} | {
            "total_it": self.total_it,
            "noise": self.generator.get_state(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        for name, part in self.parts().items():
            part.load_state_dict(state[name])
        self.masks.attach(**self.networks())  # (3) raises an error if the weights and the masks are not of one run
        self.total_it = state["total_it"]
        self.generator.set_state(state["noise"])


def pendulum(episodes: int) -> dict[str, np.ndarray]:
    """Transitions of random actions, scaled to [-1, 1]."""
    env = gymnasium.make("Pendulum-v1")
    env.action_space.seed(0)
    rows = []
    for episode in range(episodes):
        observation, over = env.reset(seed=episode)[0], False
        while not over:
            action = env.action_space.sample()
            after, reward, terminated, truncated, _ = env.step(action)
            rows.append((observation, action / 2, reward, after, float(terminated)))
            observation, over = after, terminated or truncated
    env.close()
    names = ("observations", "actions", "rewards", "next_observations", "terminals")
    return {name: np.array(column, np.float32) for name, column in zip(names, zip(*rows, strict=True), strict=True)}


def train(config: TrainConfig) -> TD3BC:
    torch.manual_seed(config.seed)
    buffer = ReplayBuffer(pendulum(config.episodes), config.seed)
    trainer = TD3BC(config, state_dim=buffer.tensors[0].shape[1], action_dim=buffer.tensors[1].shape[1])
    path = Path(config.checkpoint)
    if config.checkpoint and path.exists():
        checkpoint = torch.load(path, weights_only=True)
        trainer.load_state_dict(checkpoint["trainer"])
        buffer.generator.set_state(checkpoint["minibatches"])
    else:
        trainer.prune(buffer.sample(config.batch_size))
    while trainer.total_it < config.updates:
        trainer.train(buffer.sample(config.batch_size))
    if config.checkpoint:
        torch.save({"trainer": trainer.state_dict(), "minibatches": buffer.generator.get_state()}, path)
    return trainer


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for field in fields(TrainConfig):
        parser.add_argument(f"--{field.name}", type=type(field.default), default=field.default)
    config = TrainConfig(**vars(parser.parse_args()))
    torch.set_num_threads(1)
    trainer = train(config)
    trainer.masks.check(trainer.actor_optimizer, trainer.critic_optimizer)
    print(f"{trainer.total_it} updates with {trainer.masks}")
    policy = trainer.masks.fold(smaller=True)["actor"]  # (4) plain torch, without the units that pruning left dead
    print(f"policy: {' -> '.join(str(layer.out_features) for layer in policy.modules() if isinstance(layer, nn.Linear))} units")


if __name__ == "__main__":
    main()
