"""Prune d3rlpy's TD3+BC before d3rlpy trains it: pruning at initialization works with any offline-RL code and leaves its objective alone.

    make .venv-peer/installed                                   # d3rlpy 2.8.1 in a separate virtual environment
    PYTHONPATH=. .venv-peer/bin/python examples/d3rlpy_td3_bc.py --density 0.05 --updates 2000

Only `prune_at_init` comes from Winnow. The losses that score the networks are d3rlpy's, and so is the training. The data are random
actions in Pendulum-v1, so that the example needs no download: replace them by your MDPDataset.
"""

from __future__ import annotations

import argparse

import d3rlpy
import gymnasium
import numpy as np
import torch
from d3rlpy.logging import NoopAdapterFactory
from d3rlpy.torch_utility import TorchMiniBatch

from trainables.library import prune_at_init


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--density", type=float, default=0.05)
    parser.add_argument("--pruner", default="snip")
    parser.add_argument("--updates", type=int, default=2000)
    given = parser.parse_args()
    torch.set_num_threads(1)
    d3rlpy.seed(0)

    dataset = pendulum(episodes=20)
    algorithm = d3rlpy.algos.TD3PlusBCConfig(batch_size=256).create(device="cpu:0")
    algorithm.build_with_dataset(dataset)
    impl, config = algorithm.impl, algorithm.config

    batch = TorchMiniBatch.from_batch(
        dataset.sample_transition_batch(256), gamma=config.gamma, compute_returns_to_go=algorithm.need_returns_to_go, device="cpu:0"
    )
    masks = prune_at_init(
        {"actor": impl.policy, "critic": impl.q_function},
        {
            "actor": lambda batch: impl.compute_actor_loss(batch, impl.policy(batch.observations)).actor_loss,
            "critic": lambda batch: impl.compute_critic_loss(batch, impl.compute_target(batch)).critic_loss,
        },
        [batch],
        given.density,
        given.pruner,
        targets={"actor": impl.modules.targ_policy, "critic": impl.modules.targ_q_funcs},
    )
    before = {name: kept(module) for name, module in networks(impl).items()}

    algorithm.fit(dataset, n_steps=given.updates, n_steps_per_epoch=given.updates, logger_adapter=NoopAdapterFactory(), show_progress=False)
    for name, module in networks(impl).items():
        now = kept(module)
        print(f"{name} keeps {now} of {weights(module)} weights ({100 * now / weights(module):.2f} %), before training {before[name]}")
        if now > before[name]:
            raise SystemExit(f"removed weights of {name} grew back")
    print(f"masks: actor {100 * masks.density('actor'):.2f} %, critic {100 * masks.density('critic'):.2f} %")


def pendulum(episodes: int) -> d3rlpy.dataset.MDPDataset:
    """Random actions, 200 time steps per episode."""
    env = gymnasium.make("Pendulum-v1")
    env.action_space.seed(0)
    observations, actions, rewards, timeouts = [], [], [], []
    for episode in range(episodes):
        observation, over = env.reset(seed=episode)[0], False
        while not over:
            action = env.action_space.sample()
            observations.append(observation)
            actions.append(action / 2)  # torques within -2 and 2 to -1 and 1, the range of d3rlpy's policies
            observation, reward, terminated, truncated, _ = env.step(action)
            over = terminated or truncated
            rewards.append(reward)
            timeouts.append(over)
    env.close()
    ends = np.array(timeouts, np.float32)
    return d3rlpy.dataset.MDPDataset(np.array(observations), np.array(actions), np.array(rewards)[:, None], np.zeros_like(ends), ends)


def networks(impl: object) -> dict[str, torch.nn.Module]:
    targets = {"target actor": impl.modules.targ_policy, "target critic": impl.modules.targ_q_funcs}
    return {"actor": impl.policy, "critic": impl.q_function, **targets}


def layers(module: torch.nn.Module) -> list[torch.Tensor]:
    return [layer.weight.detach() for layer in module.modules() if isinstance(layer, torch.nn.Linear)]


def kept(module: torch.nn.Module) -> int:
    """The number of weights that are not 0."""
    return sum(int((weight != 0).sum()) for weight in layers(module))


def weights(module: torch.nn.Module) -> int:
    return sum(weight.numel() for weight in layers(module))


if __name__ == "__main__":
    main()
