"""Small datasets of real environments in unusual shapes, and an environment with Dict observations to record them in."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import gymnasium
import minari
import numpy as np
from gymnasium import spaces
from minari.data_collector import EpisodeBuffer

from trainables.datasets import local

ABOUT = dict.fromkeys(("author", "author_email", "code_permalink", "algorithm_name", "description"), "a test's")


class Beacon(gymnasium.Env[Any, Any]):
    """A point in a square that is to reach a beacon: Dict observations, a reward of 1 near it, and `success` in its info."""

    metadata = {"render_modes": ["rgb_array"], "render_fps": 10}  # noqa: RUF012 - gymnasium's

    def __init__(self, render_mode: str | None = None, near: float = 0.2) -> None:
        self.render_mode, self.near = render_mode, near
        everywhere = spaces.Box(-np.inf, np.inf, (2,), np.float64)
        self.observation_space = spaces.Dict(dict.fromkeys(("observation", "achieved_goal", "desired_goal"), everywhere))
        self.action_space = spaces.Box(-1, 1, (2,), np.float32)

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self.point, self.beacon = self.np_random.uniform(-1, 1, (2, 2))
        return self._seen(), {"success": False}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        self.point = self.point + 0.2 * np.asarray(action, np.float64)
        there = bool(np.linalg.norm(self.point - self.beacon) < self.near)
        return self._seen(), float(there), False, False, {"success": there}

    def render(self) -> Any:
        picture = np.zeros((20, 20, 3), np.uint8)
        picture[tuple(np.clip(10 + 5 * self.point, 0, 19).astype(int))] = 255
        return picture

    def _seen(self) -> dict[str, Any]:
        return {"observation": self.point.copy(), "achieved_goal": self.point + 10, "desired_goal": self.beacon.copy()}


BEACON = "Beacon-v0"
gymnasium.register(BEACON, entry_point=f"{__name__}:Beacon", max_episode_steps=12)


def seek(observation: Any) -> Any:
    """An action towards the beacon; works on Dict observations."""
    return np.clip(5 * (observation["desired_goal"] - observation["observation"]), -1, 1).astype(np.float32)


def record(dataset: str, env: Any, act: Callable[[Any], Any] | None = None, episodes: int = 3, limit: int = 10**6, **more: Any) -> str:
    """Record episodes in `env`, of at most `limit` steps, under random actions or those of `act`; returns the dataset's id."""
    env.action_space.seed(0)
    buffers = []
    for number in range(episodes):
        observation, _ = env.reset(seed=number)
        seen, steps, over = [observation], [], False
        while not over and len(steps) < limit:
            action = act(observation) if act else env.action_space.sample()
            observation, reward, terminated, truncated, _ = env.step(action)
            seen.append(observation)
            steps.append((action, reward, terminated, truncated))
            over = terminated or truncated
        actions, rewards, terminations, truncations = (np.array(values) for values in zip(*steps, strict=True))
        buffers.append(EpisodeBuffer(number, None, None, _stacked(seen), actions, rewards, terminations, truncations, None))
    minari.create_dataset_from_buffers(dataset, buffers, **(ABOUT | {"env": env, "eval_env": env} | more))
    return dataset


def _stacked(seen: list[Any]) -> Any:
    return {name: _stacked([each[name] for each in seen]) for name in seen[0]} if isinstance(seen[0], dict) else np.array(seen)


def declare(dataset: str, **changes: Any) -> None:
    """Change fields of the EnvSpecs in a dataset's metadata."""
    path = local.folder(dataset) / "data" / "metadata.json"
    metadata = json.loads(path.read_text())
    for name in ("env_spec", "eval_env_spec"):
        metadata[name] = json.dumps(json.loads(metadata[name]) | changes)
    path.write_text(json.dumps(metadata))
