"""Prune stable-baselines3's TD3 before it learns, save it with its masks, and load both to go on.

    make .venv-peer/installed                                   # stable-baselines3 in a separate virtual environment
    PYTHONPATH=. .venv-peer/bin/python examples/sb3_td3.py --density 0.05 --updates 1000

The networks are scored by TD3's losses on transitions of random actions in Pendulum-v1. Training and saving are stable-baselines3's.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import gymnasium
import torch
import torch.nn.functional as F
from stable_baselines3 import TD3

from trainables.library import Masks, prune_at_init


def networks(model: TD3) -> dict[str, dict[str, torch.nn.Module]]:
    """What is pruned, and the targets that follow."""
    return {
        "modules": {"actor": model.actor, "critic": model.critic},
        "targets": {"actor": model.actor_target, "critic": model.critic_target},
    }


def prune(model: TD3, density: float, pruner: str) -> Masks:
    """By the losses of TD3, on minibatches of its replay buffer."""

    def actor_loss(data: object) -> torch.Tensor:
        return -model.critic.q1_forward(data.observations, model.actor(data.observations)).mean()

    def critic_loss(data: object) -> torch.Tensor:
        with torch.no_grad():
            next_actions = model.actor_target(data.next_observations)
            next_q = torch.cat(model.critic_target(data.next_observations, next_actions), dim=1).min(dim=1, keepdim=True).values
            target = data.rewards + (1 - data.dones) * model.gamma * next_q
        return sum(F.mse_loss(q, target) for q in model.critic(data.observations, data.actions))

    batches = [model.replay_buffer.sample(256)]
    return prune_at_init(
        loss={"actor": actor_loss, "critic": critic_loss}, batches=batches, density=density, pruner=pruner, **networks(model)
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--density", type=float, default=0.05)
    parser.add_argument("--pruner", default="snip")
    parser.add_argument("--updates", type=int, default=1000)
    given = parser.parse_args()
    torch.set_num_threads(1)

    # Random actions come first: no update is made before `learning_starts`.
    model = TD3("MlpPolicy", "Pendulum-v1", policy_kwargs={"net_arch": [256, 256]}, learning_starts=1000, seed=0, device="cpu")
    model.learn(1000)
    masks = prune(model, given.density, given.pruner)
    print(masks)
    model.learn(given.updates, reset_num_timesteps=False)
    masks.check(model.actor.optimizer, model.critic.optimizer)

    with tempfile.TemporaryDirectory() as folder:
        model.save(Path(folder) / "model.zip")
        model.save_replay_buffer(Path(folder) / "buffer.pkl")
        torch.save(masks.state_dict(), Path(folder) / "masks.pt")

        loaded = TD3.load(Path(folder) / "model.zip", env=gymnasium.make("Pendulum-v1"), device="cpu")
        loaded.load_replay_buffer(Path(folder) / "buffer.pkl")
        again = Masks().load_state_dict(torch.load(Path(folder) / "masks.pt", weights_only=True)).attach(**networks(loaded))
    loaded.learn(given.updates, reset_num_timesteps=False)
    again.check(loaded.actor.optimizer, loaded.critic.optimizer)
    for name, module in networks(loaded)["modules"].items():
        weights = [layer.weight.detach() for layer in module.modules() if isinstance(layer, torch.nn.Linear)]
        kept, total = sum(int((weight != 0).sum()) for weight in weights), sum(weight.numel() for weight in weights)
        print(f"{name} keeps {kept} of {total} weights ({100 * kept / total:.2f} %) after {loaded._n_updates} updates, saved and loaded")


if __name__ == "__main__":
    main()
