"""Train a behaviour policy online (the extra `[collect]`), keeping snapshots of the actor and the training curve."""

from __future__ import annotations

import importlib.metadata
import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from trainables import environments
from trainables.datasets.collect.policy import Policy
from trainables.errors import UserError, one_line, unknown

Tensors = dict[str, npt.NDArray[Any]]

# TQC (Kuznetsov 2020) with rl-baselines3-zoo's settings, but eight environments per 128 gradient steps and a smaller actor, so
# that a snapshot ships in 40 kB. Hopper drops more quantiles (zoo).
TQC: dict[str, Any] = {
    "train_freq": 32,
    "gradient_steps": 128,
    "batch_size": 128,
    "learning_rate": 3e-4,
    "learning_starts": 10_000,
    "policy_delay": 2,
    "buffer_size": 1_000_000,
    "top_quantiles_to_drop_per_net": 2,
    "gamma": 0.99,
    "tau": 0.005,
}
# PPO (Schulman 2017), about the zoo's for MuJoCo, the learning rate falling to 0; a tenth of TQC's time for an environment step.
PPO: dict[str, Any] = {
    "n_steps": 512,
    "batch_size": 128,
    "n_epochs": 10,
    "learning_rate": 2.5e-4,
    "gamma": 0.99,
    "gae_lambda": 0.95,
    "clip_range": 0.2,
    "max_grad_norm": 0.5,
}
LOG_STD_INIT = -1.0
ENVIRONMENTS = 8
SNAPSHOT_EVERY = {"tqc": 20_000, "ppo": 100_000}
SAVE_EVERY = 100_000  # all that resuming needs
TEST_EPISODES = 5
FIRST_REPLAY = "replay-first.pkl"


def train(environment: str, algorithm: str, steps: int, seed: int, folder: Path) -> None:
    """Train up to `steps` environment steps, going on from what `folder` holds; prints a line per snapshot on stderr.

    Leaves settings.json, curve.jsonl (five deterministic episodes a snapshot) and actor-<steps>.npz in `folder`. Raises UserError
    where the extra is not installed or the folder holds another training.
    """
    builders = {"ppo": _ppo, "tqc": _tqc}
    if algorithm not in builders:
        raise unknown("learner", algorithm, builders)
    os.environ["XLA_FLAGS"] = "--xla_cpu_multi_thread_eigen=false"  # one thread per training
    test = environments.make(environment)
    try:
        start = builders[algorithm](environment, steps, seed, folder)
    except ImportError as error:
        raise UserError(f"training needs the extra: pip install 'winnow-rl[collect]' ({one_line(error)})") from None
    model, tensors, save = start
    _forget_after(folder / "curve.jsonl", model.num_timesteps)
    if model.num_timesteps < steps:
        keeper = _keeper(folder, test, SNAPSHOT_EVERY[algorithm], tensors, save)
        model.learn(steps - model.num_timesteps, callback=keeper, reset_num_timesteps=model.num_timesteps == 0)


def _tqc(environment: str, steps: int, seed: int, folder: Path) -> tuple[Any, Callable[[Any], Tensors], Callable[[Any], None]]:
    import sbx
    from flax.traverse_util import flatten_dict
    from stable_baselines3.common.vec_env import DummyVecEnv

    choice = TQC | ({"top_quantiles_to_drop_per_net": 5} if environment.startswith("Hopper") else {})
    net_arch = {"pi": [128, 128], "qf": [256, 256]}
    _settle(folder, "TQC", "sbx-rl", environment, seed, choice | {"net_arch": net_arch})
    venv = DummyVecEnv([lambda: environments.make(environment)] * ENVIRONMENTS)
    if (folder / "model.zip").exists():
        model = sbx.TQC.load(folder / "model.zip", env=venv)
        model.load_replay_buffer(folder / "replay.pkl")
    else:
        model = sbx.TQC("MlpPolicy", venv, policy_kwargs={"net_arch": net_arch}, seed=seed, **choice)

    def tensors(model: Any) -> Tensors:
        return {name: np.asarray(value) for name, value in flatten_dict(model.policy.actor_state.params, sep="/").items()}

    def save(model: Any) -> None:
        model.save_replay_buffer(folder / "replay.tmp.pkl")
        model.save(folder / "model.tmp.zip")
        if model.replay_buffer.full and (folder / "replay.pkl").exists() and not (folder / FIRST_REPLAY).exists():
            os.replace(folder / "replay.pkl", folder / FIRST_REPLAY)  # the last one that begins with the first step
        os.replace(folder / "replay.tmp.pkl", folder / "replay.pkl")
        os.replace(folder / "model.tmp.zip", folder / "model.zip")

    return model, tensors, save


def _ppo(environment: str, steps: int, seed: int, folder: Path) -> tuple[Any, Callable[[Any], Tensors], Callable[[Any], None]]:
    import stable_baselines3
    import torch
    from stable_baselines3.common.vec_env import DummyVecEnv, VecNormalize

    torch.set_num_threads(1)
    shape = {"net_arch": [128, 128], "log_std_init": LOG_STD_INIT}
    fixed = {
        "schedule": "linear to 0",
        "total": steps,
        "activation": "relu",
        "normalize": "VecNormalize(observations and rewards, clip 10)",
    }
    _settle(folder, "PPO", "stable-baselines3", environment, seed, PPO | shape | fixed)
    venv = DummyVecEnv([lambda: environments.make(environment)] * ENVIRONMENTS)
    if (folder / "model.zip").exists():
        model = stable_baselines3.PPO.load(folder / "model.zip", env=VecNormalize.load(str(folder / "normalize.pkl"), venv), device="cpu")
    else:
        kwargs = shape | {"activation_fn": torch.nn.ReLU}
        normalized = VecNormalize(venv, gamma=PPO["gamma"])
        rate = PPO | {"learning_rate": lambda left: PPO["learning_rate"] * left}
        model = stable_baselines3.PPO("MlpPolicy", normalized, seed=seed, policy_kwargs=kwargs, device="cpu", **rate)

    def tensors(model: Any) -> Tensors:
        """The actor, with the normalization of observations folded into its first layer."""
        seen, network = model.env.obs_rms, model.policy.mlp_extractor.policy_net
        layers = [network[0], network[2], model.policy.action_net]
        weights = [layer.weight.detach().double().numpy() for layer in layers]
        biases = [layer.bias.detach().double().numpy() for layer in layers]
        scale = 1 / np.sqrt(seen.var + model.env.epsilon)
        biases[0] = biases[0] - weights[0] @ (seen.mean * scale)
        weights[0] = weights[0] * scale
        layers_by_name = {f"params/Dense_{i}/kernel": w.T.astype(np.float32) for i, w in enumerate(weights)}
        layers_by_name |= {f"params/Dense_{i}/bias": b.astype(np.float32) for i, b in enumerate(biases)}
        return layers_by_name | {"log_std": model.policy.log_std.detach().numpy().astype(np.float32)}

    def save(model: Any) -> None:
        model.env.save(str(folder / "normalize.tmp.pkl"))
        model.save(folder / "model.tmp.zip")
        os.replace(folder / "normalize.tmp.pkl", folder / "normalize.pkl")
        os.replace(folder / "model.tmp.zip", folder / "model.zip")

    return model, tensors, save


def _keeper(folder: Path, test: Any, every: int, tensors: Callable[[Any], Tensors], save: Callable[[Any], None]) -> Any:
    from stable_baselines3.common.callbacks import BaseCallback

    class Keeper(BaseCallback):  # type: ignore[misc]
        """Every `every` steps: test, keep the actor, add to the curve; every SAVE_EVERY: all that resuming needs."""

        def _on_training_start(self) -> None:
            self.done, self.started = self.num_timesteps, time.monotonic()

        def _on_step(self) -> bool:
            before, self.done = self.done, self.num_timesteps
            if before // every < self.done // every:
                self.snapshot()
            if before // SAVE_EVERY < self.done // SAVE_EVERY:
                save(self.model)
            return True

        def snapshot(self) -> None:
            actor = tensors(self.model)
            returns = [_episode(Policy.from_tensors(actor), test, 10_000 + episode) for episode in range(TEST_EPISODES)]
            with open(folder / "actor.tmp", "wb") as file:
                np.savez(file, **actor)  # type: ignore[arg-type]
            os.replace(folder / "actor.tmp", folder / f"actor-{self.done:08d}.npz")
            with open(folder / "curve.jsonl", "a") as lines:
                lines.write(json.dumps({"steps": self.done, "returns": returns}) + "\n")
            took = time.monotonic() - self.started
            print(f"{self.done} steps: return {np.mean(returns):.0f} +- {np.std(returns):.0f} ({took:.0f} s)", file=sys.stderr, flush=True)

    return Keeper()


def _episode(policy: Policy, env: Any, seed: int) -> float:
    """The return of the policy's mode, in the numpy form it is shipped in."""
    observation, _ = env.reset(seed=seed)
    total, ended = 0.0, False
    while not ended:
        observation, reward, terminated, truncated, _ = env.step(policy.act(np.asarray(observation, np.float32)))
        total += float(reward)
        ended = terminated or truncated
    return total


def _settle(folder: Path, algorithm: str, package: str, environment: str, seed: int, choice: dict[str, Any]) -> None:
    """Write settings.json, or compare with it where the folder holds a training already."""
    versions = {name: importlib.metadata.version(name) for name in ("mujoco", "gymnasium")}
    library = f"{package} {importlib.metadata.version(package)}"
    settings = {"algorithm": algorithm, "library": library, "env": environment, "seed": seed, "n_envs": ENVIRONMENTS, **choice, **versions}
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "settings.json"
    if path.exists():
        known = json.loads(path.read_text())
        differing = [name for name in settings if known.get(name) != settings[name]]
        if differing:
            differences = ", ".join(f"{name} {known.get(name)!r} there, {settings[name]!r} here" for name in differing)
            raise UserError(f"{folder} holds another training ({differences}); give another folder")
    path.write_text(json.dumps(settings, indent=1) + "\n")


def _forget_after(curve: Path, steps: int) -> None:
    """Drop the snapshots of the curve that will be taken again."""
    if curve.exists():
        kept = [line for line in curve.read_text().splitlines() if line.endswith("}") and json.loads(line)["steps"] <= steps]
        curve.write_text("".join(line + "\n" for line in kept))
