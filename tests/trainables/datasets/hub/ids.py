"""Metadata of every dataset in the groups `mujoco` and `D4RL` of Minari's hub, as its files hold them, but for counts and sizes.

The ids are those of Minari's documentation (minari.farama.org, the pages of the two groups) in 2025; the settings of their environments are
from there and from the scripts that made them (Farama-Foundation/minari-dataset-generation-scripts); spaces are written as Minari's
serialization writes them. Where neither says how long an episode may be, it is the environment's own limit.
"""

from __future__ import annotations

import json
from typing import Any

Space = dict[str, Any]
R, G, W = "r", "g", 1  # where an agent begins, where its goal is, a wall
MAZES: dict[str, list[list[Any]]] = {
    "open": [[W, W, W, W, W, W, W], [W, R, 0, 0, 0, 0, W], [W, 0, 0, 0, 0, 0, W], [W, 0, 0, 0, 0, G, W], [W, W, W, W, W, W, W]],
    "umaze": [[W, W, W, W, W], [W, R, 0, 0, W], [W, W, W, 0, W], [W, G, 0, 0, W], [W, W, W, W, W]],
    "medium": [
        [W, W, W, W, W, W, W, W], [W, R, 0, W, W, 0, 0, W], [W, 0, 0, W, 0, 0, 0, W], [W, W, 0, 0, 0, W, W, W],
        [W, 0, 0, W, 0, 0, 0, W], [W, 0, W, 0, 0, W, 0, W], [W, 0, 0, 0, W, 0, G, W], [W, W, W, W, W, W, W, W],
    ],
    "large": [
        [W, W, W, W, W, W, W, W, W, W, W, W], [W, R, 0, 0, 0, W, 0, 0, 0, 0, 0, W], [W, 0, W, W, 0, W, 0, W, 0, W, 0, W],
        [W, 0, 0, 0, 0, 0, 0, W, 0, 0, 0, W], [W, 0, W, W, W, W, 0, W, W, W, 0, W], [W, 0, 0, W, 0, W, 0, 0, 0, 0, 0, W],
        [W, W, 0, W, 0, W, 0, W, 0, W, W, W], [W, 0, 0, W, 0, 0, 0, W, 0, G, 0, W], [W, W, W, W, W, W, W, W, W, W, W, W],
    ],
}  # fmt: skip
TASKS = {"bottom burner": 2, "kettle": 7, "light switch": 2, "microwave": 1, "slide cabinet": 1}  # of the kitchen, and their sizes


def box(size: int, bound: float = float("inf"), dtype: str = "float64") -> Space:
    return {"type": "Box", "dtype": dtype, "shape": [size], "low": [-bound] * size, "high": [bound] * size}


def subspaces(**parts: Space) -> Space:
    return {"type": "Dict", "subspaces": parts}


def spec(id: str, entry: str, limit: float | None, **settings: Any) -> str:
    """An EnvSpec as gymnasium writes it."""
    return json.dumps({
        "id": id, "entry_point": entry, "reward_threshold": None, "nondeterministic": False, "max_episode_steps": limit,
        "order_enforce": True, "disable_env_checker": False, "kwargs": settings, "additional_wrappers": [], "vector_entry_point": None,
    })  # fmt: skip


def metadata(observations: Space, actions: Space, env: str, **more: Any) -> dict[str, Any]:
    spaces = {"observation_space": json.dumps(observations), "action_space": json.dumps(actions)}
    return {"total_episodes": 100, "total_steps": 10_000, "data_format": "hdf5", "dataset_size": 12.5, "env_spec": env, **spaces, **more}


def mujoco() -> dict[str, dict[str, Any]]:
    """Gymnasium's v5 environments: sizes of observations and actions, the actions' bound, the time limit."""
    runners = ("simple", "medium", "expert")
    kinds = {
        "ant": ("Ant", 105, 8, 1.0, 1000, runners), "halfcheetah": ("HalfCheetah", 17, 6, 1.0, 1000, runners),
        "hopper": ("Hopper", 11, 3, 1.0, 1000, runners), "humanoid": ("Humanoid", 348, 17, 0.4, 1000, runners),
        "walker2d": ("Walker2d", 17, 6, 1.0, 1000, runners), "swimmer": ("Swimmer", 8, 2, 1.0, 1000, runners[1:]),
        "reacher": ("Reacher", 10, 2, 1.0, 50, runners[1:]), "pusher": ("Pusher", 23, 7, 2.0, 100, runners[1:]),
        "invertedpendulum": ("InvertedPendulum", 4, 1, 3.0, 1000, runners[1:]),
        "inverteddoublependulum": ("InvertedDoublePendulum", 9, 1, 1.0, 1000, runners[1:]),
    }  # fmt: skip
    found = {}
    for group, (name, seen, acted, bound, limit, tiers) in kinds.items():
        module = {
            "HalfCheetah": "half_cheetah",
            "InvertedPendulum": "inverted_pendulum",
            "InvertedDoublePendulum": "inverted_double_pendulum",
        }
        env = spec(f"{name}-v5", f"gymnasium.envs.mujoco.{module.get(name, name.lower())}_v5:{name}Env", limit)
        about = {"ref_min_score": -1.0, "ref_max_score": 1000.0, "requirements": ["mujoco==3.2.3", "gymnasium>=1.0.0"]}
        for tier in tiers:
            found[f"mujoco/{group}/{tier}-v0"] = metadata(box(seen), box(acted, bound, "float32"), env, **about)
    return found


def mazes() -> dict[str, dict[str, Any]]:
    """Recorded in an environment that goes on at the goal, evaluated in one from r to g."""
    found, place = {}, "gymnasium_robotics.envs.maze"
    names = {"open": "Open", "umaze": "UMaze", "medium": "Medium", "large": "Large"}
    point = subspaces(achieved_goal=box(2), desired_goal=box(2), observation=box(4))
    for maze, name in names.items():
        for dense in ("", "Dense"):
            common = {"reward_type": dense.lower() or "sparse", "continuing_task": True}
            id, entry = f"PointMaze_{name}{dense}-v3", f"{place}.point_maze:PointMazeEnv"
            bare = [[0 if cell in (R, G) else cell for cell in row] for row in MAZES[maze]]
            played = spec(id, entry, 300, maze_map=MAZES[maze], reset_target=False, **common)
            found[f"D4RL/pointmaze/{maze}{dense and '-dense'}-v2"] = metadata(
                point, box(2, 1.0, "float32"), spec(id, entry, 1e6, maze_map=bare, **common), eval_env_spec=played
            )
    ant = subspaces(achieved_goal=box(2), desired_goal=box(2), observation=box(27))
    tiers = {
        "umaze": "UMaze", "umaze-diverse": "UMaze", "medium-play": "Medium", "medium-diverse": "Medium_Diverse_GR", "large-play": "Large",
        "large-diverse": "Large_Diverse_GR",
    }  # fmt: skip
    for tier, name in tiers.items():
        maze = tier.partition("-")[0]
        id, entry, limit = f"AntMaze_{name}-v4", f"{place}.ant_maze_v4:AntMazeEnv", 700 if maze == "umaze" else 1000
        common = {"reward_type": "sparse", "continuing_task": True, "reset_target": False}
        specs = [spec(id, entry, limit, maze_map=MAZES[maze], **common)] * 2
        found[f"D4RL/antmaze/{tier}-v1"] = metadata(ant, box(8, 1.0, "float32"), specs[0], eval_env_spec=specs[1])
    return found


def hands() -> dict[str, dict[str, Any]]:
    found = {}
    sizes = {"door": (39, 28, 300), "hammer": (46, 26, 625), "pen": (45, 24, 200), "relocate": (39, 30, 530)}
    for task, (seen, acted, longest) in sizes.items():
        entry = f"gymnasium_robotics.envs.adroit_hand.adroit_{task}:AdroitHand{task.title()}Env"
        for tier, limit in (("human", longest), ("cloned", 200), ("expert", 100 if task == "pen" else 200)):
            env = spec(f"AdroitHand{task.title()}-v1", entry, limit, reward_type="dense")
            found[f"D4RL/{task}/{tier}-v2"] = metadata(box(seen), box(acted, 1.0, "float32"), env)
    return found


def kitchens() -> dict[str, dict[str, Any]]:
    found, entry = {}, "gymnasium_robotics.envs.franka_kitchen:KitchenEnv"
    four = ("microwave", "kettle", "light switch", "slide cabinet")
    for tier, limit, tasks in (("complete", 280, four), ("partial", 450, four), ("mixed", 450, (*four[:2], "bottom burner", four[2]))):
        goals = subspaces(**{task: box(TASKS[task]) for task in sorted(tasks)})
        seen = subspaces(achieved_goal=goals, desired_goal=goals, observation=box(59))
        settings = {"remove_task_when_completed": False, "terminate_on_tasks_completed": False, "tasks_to_complete": list(tasks)}
        found[f"D4RL/kitchen/{tier}-v2"] = metadata(seen, box(9, 1.0), spec("FrankaKitchen-v1", entry, limit, **settings))
    return found


def grids() -> dict[str, dict[str, Any]]:
    """Discrete actions: refused."""
    direction, mission = (
        {"type": "Discrete", "dtype": "int64", "start": 0, "n": 4},
        {"type": "Text", "max_length": 14, "min_length": 1, "charset": "abc"},
    )
    image = {"type": "Box", "dtype": "uint8", "shape": [7, 7, 3], "low": [[[0] * 3] * 7] * 7, "high": [[[255] * 3] * 7] * 7}
    seen = subspaces(direction=direction, image=image, mission=mission)
    acted = {"type": "Discrete", "dtype": "int64", "start": 0, "n": 7}
    env = spec("MiniGrid-FourRooms-v0", "minigrid.envs:FourRoomsEnv", None)
    return {f"D4RL/minigrid/{name}-v0": metadata(seen, acted, env) for name in ("fourrooms", "fourrooms-random")}


PLAYED = mujoco() | mazes() | hands() | kitchens()
REFUSED = grids()
