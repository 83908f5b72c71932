"""The peer of XQL: OfflineRLLib's (PyPI `offlinerllib` 0.1.5), dense, trained with our settings. Runs in the peers' virtual environment.

    python peer_xql.py TABLE.npz xql UPDATES SEED HYPER POLICY.pt     # writes the greedy policy, a function of raw observations

HYPER is the JSON of our trial's hyperparameters, and `reward_scale`. What stays its own: the policy's mean is clipped to the action box,
where ours passes through tanh, and the initial weights of the value's normalized layers.
"""

from __future__ import annotations

import json
import sys
from typing import Any

import numpy as np
import torch
from offlinerllib.module.actor import ClippedGaussianActor
from offlinerllib.module.critic import Critic, DoubleCritic
from offlinerllib.module.net.mlp import MLP
from offlinerllib.policy.model_free import XQLPolicy
from torch import Tensor, nn


class Greedy(nn.Module):
    """The mean of the policy, clipped to the action box."""

    def __init__(self, actor: nn.Module) -> None:
        super().__init__()
        self.body = nn.Sequential(actor.backend, actor.output_layer)

    def forward(self, observations: Tensor) -> Tensor:
        return self.body(observations).clamp(-1, 1)


def learner(sizes: tuple[int, int], updates: int, hyper: dict[str, Any]) -> XQLPolicy:
    """Ours, in OfflineRLLib's words (trainables/algorithms/xql.py says where each number is from)."""
    (observations, actions), hidden = sizes, list(hyper["hidden"])
    width = hidden[-1]
    bounds = {"logstd_min": hyper["log_std_min"], "logstd_max": hyper["log_std_max"]}
    actor = ClippedGaussianActor(MLP(observations, hidden_dims=hidden), width, actions, conditioned_logstd=False, **bounds)
    critic = DoubleCritic(nn.Identity(), observations + actions, hidden_dims=hidden)
    value = Critic(MLP(observations, hidden_dims=hidden, norm_layer=nn.LayerNorm), width)
    policy = XQLPolicy(
        actor, critic, value, loss_temperature=hyper["temperature"], aw_temperature=hyper["beta"], max_clip=hyper["max_clip"],
        tau=hyper["tau"], discount=hyper["discount"],
    )  # fmt: skip
    policy.configure_optimizers(hyper["actor_learning_rate"], hyper["critic_learning_rate"], hyper["critic_learning_rate"], updates)
    return policy


def main() -> None:
    torch.set_num_threads(1)
    place, _, updates, seed, text, to = sys.argv[1:]  # as peer_scores.py
    hyper = json.loads(text)
    torch.manual_seed(int(seed))
    draw = np.random.default_rng(int(seed))
    table = {name: np.array(values, np.float32) for name, values in np.load(place).items()}
    table["rewards"] *= hyper["reward_scale"]
    columns = {n: v.reshape(len(v), -1) for n, v in table.items() if n != "timeouts"}
    sizes = columns["observations"].shape[1], columns["actions"].shape[1]
    policy = learner(sizes, int(updates), hyper)
    policy.train()
    for _ in range(int(updates)):
        rows = draw.integers(len(columns["rewards"]), size=hyper["batch_size"])
        policy.update({name: column[rows] for name, column in columns.items()})
    policy.eval()
    torch.jit.trace(Greedy(policy.actor), torch.zeros(2, sizes[0])).save(to)


if __name__ == "__main__":
    main()
