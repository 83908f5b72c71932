"""PointMaze with Dict observations: records a dataset with a controller of its own, trains on it, and prints success rates.

    pip install 'winnow-rl[robotics]'
    python -m benchmarks.learning.pointmaze record --to FOLDER     # then MINARI_DATASETS_PATH=FOLDER
    python -m benchmarks.learning.pointmaze train                  # the table of docs/data.md

The controller walks the shortest path through the maze's cells and pushes the ball to the next one like a spring with friction, with noise.
Not the hub's data: its scores are not comparable with published ones.
"""

from __future__ import annotations

import argparse
import os
from collections import deque
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.tables import fill, markdown

PAGE = Path(__file__).parents[2] / "docs" / "data.md"
MAZE, DATASET = "PointMaze_UMaze-v3", "made/pointmaze/umaze-v0"
EPISODES, NOISE, SPRING, FRICTION = 200, 0.5, 10.0, 1.0
SEEDS = (0, 1, 2)


def way(maze: Any, start: tuple[int, int], goal: tuple[int, int]) -> tuple[int, int]:
    """The cell after `start` on a shortest path to `goal`, or `goal` itself."""
    before: dict[tuple[int, int], tuple[int, int]] = {goal: goal}
    queue = deque([goal])
    while queue and start not in before:
        row, column = queue.popleft()
        for cell in ((row + 1, column), (row - 1, column), (row, column + 1), (row, column - 1)):
            if maze.maze_map[cell[0]][cell[1]] != 1 and cell not in before:
                before[cell] = row, column
                queue.append(cell)
    return before[start]


def push(maze: Any, observation: Any, noise: np.random.Generator) -> Any:
    """A force [2] towards the goal, or towards the middle of the next cell on the way to it."""
    position, velocity, goal = observation["observation"][:2], observation["observation"][2:], observation["desired_goal"]
    here, there = (tuple(int(v) for v in maze.cell_xy_to_rowcol(xy)) for xy in (position, goal))
    target = goal if here == there else maze.cell_rowcol_to_xy(np.array(way(maze, here, there)))
    force = SPRING * (target - position) - FRICTION * velocity + NOISE * noise.normal(size=2)
    return np.clip(force, -1, 1).astype(np.float32)


def record(to: Path, episodes: int) -> None:
    """Write DATASET below `to` as Minari's hub has its mazes: HDF5, Dict observations, the environment and that for evaluation."""
    import gymnasium
    import gymnasium_robotics  # noqa: F401 - registers the mazes
    import minari
    from minari.data_collector import EpisodeBuffer

    to.mkdir(parents=True, exist_ok=True)
    os.environ["MINARI_DATASETS_PATH"] = str(to)
    env, noise = gymnasium.make(MAZE), np.random.default_rng(0)
    buffers, successes = [], 0
    for number in range(episodes):
        observation, _ = env.reset(seed=number)
        seen, steps, over, reached = [observation], [], False, False
        while not over:
            action = push(env.unwrapped.maze, observation, noise)  # type: ignore[attr-defined]
            observation, reward, terminated, truncated, info = env.step(action)
            seen.append(observation)
            steps.append((action, float(reward), terminated, truncated))
            over, reached = terminated or truncated, reached or info["success"]
        successes += reached
        actions, rewards, terminations, truncations = (np.array(values) for values in zip(*steps, strict=True))
        observations = {name: np.array([each[name] for each in seen]) for name in seen[0]}
        buffers.append(EpisodeBuffer(number, number, None, observations, actions, rewards, terminations, truncations, None))
    about = {"author": "Winnow", "author_email": "none", "code_permalink": "benchmarks/learning/pointmaze.py"}
    minari.create_dataset_from_buffers(
        DATASET, buffers, env=env, eval_env=env, algorithm_name="waypoints", description="A ball is pushed to its goal.", **about
    )
    mean = np.mean([buffer.rewards.sum() for buffer in buffers])
    print(f"{DATASET}: {episodes} episodes, mean return {mean:.1f}, {100 * successes / episodes:.0f} % reach the goal")


def train(updates: int, episodes: int) -> None:
    """The table of docs/data.md: success rates of IQL and TD3+BC, dense and SNIP 95 %, over SEEDS, all with the same number of updates."""
    from service.results import statistics
    from service.terminal.labels import algorithm_name, method_name
    from trainables.reports import Evaluated
    from trainables.run import run_stack
    from trainables.trial import Stack, Trial
    from trainables.trial.published import reward_shift

    rows = [["algorithm", "networks", "success rate of the seeds", "mean, 95 % interval", "return"]]
    for algorithm in ("iql", "td3_bc"):
        for pruner, sparsity in (("dense", 0.0), ("snip", 0.95)):
            plain = Trial(
                dataset=DATASET, algorithm=algorithm, pruner=pruner, sparsity=sparsity, updates=updates, evaluations=1,
                episodes=episodes, reward_shift=reward_shift(algorithm, DATASET),
            )  # fmt: skip
            stack = Stack(tuple(replace(plain, seed=seed) for seed in SEEDS))
            (last,) = [report for report in run_stack(stack) if isinstance(report, Evaluated)]
            rates = [100 * float(np.mean(own["successes"])) for own in last.episodes]
            returns = [float(np.mean(own["returns"])) for own in last.episodes]
            mean = statistics.mean_interval(np.array(rates))
            shown = ", ".join(f"{rate:.0f}" for rate in rates)
            cell = f"{mean.value:.0f} % [{mean.low:.0f}, {mean.high:.0f}]"
            rows.append([algorithm_name(algorithm), method_name(pruner, sparsity), shown, cell, f"{np.mean(returns):.0f}"])
            print(" | ".join(rows[-1]), flush=True)
    fill(PAGE, "pointmaze", markdown(rows))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    recorder = commands.add_parser("record")
    recorder.add_argument("--to", type=Path, required=True)
    recorder.add_argument("--episodes", type=int, default=EPISODES)
    trainer = commands.add_parser("train")
    trainer.add_argument("--updates", type=int, default=2000)
    trainer.add_argument("--episodes", type=int, default=20)
    given = parser.parse_args()
    if given.command == "record":
        record(given.to, given.episodes)
    else:
        train(given.updates, given.episodes)


if __name__ == "__main__":
    main()
