"""A task of one's own, and a sweep on it, in one file. As a script it records the task's data."""

from __future__ import annotations

from typing import Any, ClassVar

import gymnasium
import numpy as np

from search_spaces.sweep import Sweep

DATASET = "mine/reach-v0"


class Reach(gymnasium.Env):  # type: ignore[misc]
    """Neither `__init__` nor `render_mode`: as little as a class can have."""

    observation_space: ClassVar[Any] = gymnasium.spaces.Box(-1, 1, (2,), np.float32)
    action_space: ClassVar[Any] = gymnasium.spaces.Box(-1, 1, (1,), np.float32)

    def reset(self, *, seed: Any = None, options: Any = None) -> Any:
        super().reset(seed=seed)
        self.state = self.np_random.uniform(-1, 1, 2).astype(np.float32)
        return self.state, {}

    def step(self, action: Any) -> Any:
        self.state = np.clip(self.state + 0.1 * action, -1, 1).astype(np.float32)
        return self.state, -float(np.abs(self.state).sum()), False, False, {}


gymnasium.register("Reach-v0", entry_point=f"{__name__}:Reach", max_episode_steps=20)
SWEEP = Sweep(datasets=(DATASET,), algorithms=("bc",), pruners=("steepest",), sparsities=(0.5,), updates=100, evaluations=2, episodes=2)


def record() -> None:
    import minari
    from minari.data_collector import EpisodeBuffer

    env, episodes = gymnasium.make("Reach-v0"), []
    env.action_space.seed(0)
    for number in range(20):
        observations, steps = [env.reset(seed=number)[0]], []
        for _ in range(20):
            action = env.action_space.sample()
            observation, reward, terminated, truncated, _ = env.step(action)
            observations.append(observation)
            steps.append((action, reward, terminated, truncated))
        columns = [np.array(column) for column in zip(*steps, strict=True)]
        episodes.append(EpisodeBuffer(number, None, None, np.array(observations), *columns, None))
    about = dict.fromkeys(("author", "author_email", "code_permalink", "algorithm_name", "description"), "a test's")
    spaces = {"observation_space": env.observation_space, "action_space": env.action_space}
    minari.create_dataset_from_buffers(DATASET, buffer=episodes, env=env.spec, eval_env=env.spec, **spaces, **about)


if __name__ == "__main__":
    record()
