"""The runners played straight on MuJoCo against gymnasium's own `step`: equal to the last bit."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from trainables import environments, plugins
from trainables.simulation.stepping import Gymnasium, Planar

RUNNERS = [
    name for family in plugins.names("environments") for name in environments.families()[family] if environments.runner(name) is not None
]
SEEDS = [3, 1, 4, 1]
PUSHES = [("qpos", 1, 0.1), ("qpos", 1, 2.5), ("qpos", 2, 1.5), ("qpos", 2, -1.5), ("qvel", 3, 400.0), ("qvel", 0, 500.0)]
each_runner = pytest.mark.parametrize("name", RUNNERS)


class Both:
    """The same episodes in both ways, their observations in `rows`."""

    def __init__(self, name: str, language: str = "c") -> None:
        runner = environments.runner(name)
        assert runner is not None
        first, count = environments.make(name), len(SEEDS)
        self.planar = Planar(environments.make(name), runner, count)
        self.gymnasium = Gymnasium(first, lambda: environments.make(name), count)
        observations, actions = first.observation_space.shape, first.action_space.shape
        assert observations is not None
        assert actions is not None
        self.actions = (count, *actions)
        self.rows = [np.zeros((count, *observations), np.float32) for _ in range(2)]
        self.alive = np.arange(count)
        for simulation, rows in zip((self.planar, self.gymnasium), self.rows, strict=True):
            simulation.reset(SEEDS, rows)
        assert self.planar.advance is not None
        if language == "python":
            self.planar.advance = None
        np.testing.assert_array_equal(*self.rows)

    def step(self, actions: npt.NDArray[np.float32]) -> list[Any]:
        """Rewards and ends, the same both ways; episodes that ended are not stepped again and keep their observation."""
        found = [
            [part[self.alive].copy() for part in simulation.step(self.alive, actions, rows)]
            for simulation, rows in zip((self.planar, self.gymnasium), self.rows, strict=True)
        ]
        for mine, theirs in zip(*found, strict=True):
            assert mine.dtype == theirs.dtype
            np.testing.assert_array_equal(mine, theirs)
        np.testing.assert_array_equal(*self.rows)
        self.alive = self.alive[~found[0][1]]
        return found[0]

    def push(self, array: str, index: int, value: float) -> None:
        """Change a number of every state: `qpos` or `qvel`."""
        for state in self.planar.states:
            getattr(state, array)[index] = value
        self.planar.look()
        for environment in self.gymnasium.environments:
            getattr(environment.data, array)[index] = value


def test_the_three_runners_are_played_straight() -> None:
    assert RUNNERS == ["HalfCheetah-v5", "Hopper-v5", "Walker2d-v5"]
    assert environments.runner("Hopper-v4") is None, "v4 rewards the fall otherwise"
    assert environments.runner("Pendulum-v1") is None


@each_runner
@pytest.mark.parametrize("language", ["c", "python"])
def test_whole_episodes_are_equal_to_the_last_bit(name: str, language: str) -> None:
    both, draw = Both(name, language), np.random.default_rng(0)
    total = 0
    for _ in range(250):
        total += len(both.alive)
        both.step(draw.uniform(-1, 1, both.actions).astype(np.float32))
        if not len(both.alive):
            break
    assert total > 60
    assert (len(both.alive) == len(SEEDS)) == (name == "HalfCheetah-v5"), "who can fall did"


@each_runner
def test_a_second_reset_begins_the_same_episodes_anew(name: str) -> None:
    both, draw = Both(name), np.random.default_rng(0)
    first = [rows.copy() for rows in both.rows]
    actions = draw.uniform(-1, 1, both.actions).astype(np.float32)
    rewards = both.step(actions)[0]
    both.alive = np.arange(len(SEEDS))
    for simulation, rows, again in zip((both.planar, both.gymnasium), both.rows, first, strict=True):
        simulation.reset(SEEDS, rows)
        np.testing.assert_array_equal(rows, again)
    np.testing.assert_array_equal(both.step(actions)[0], rewards)


@each_runner
@pytest.mark.parametrize(("array", "index", "value"), PUSHES)
def test_every_bound_is_gymnasiums(name: str, array: str, index: int, value: float) -> None:
    both = Both(name)
    both.push(array, index, value)
    for _ in range(3):
        if len(both.alive):
            both.step(np.full(both.actions, 0.5, np.float32))


@each_runner
def test_the_numbers_are_gymnasiums(name: str) -> None:
    runner, env = environments.runner(name), environments.make(name).unwrapped
    assert runner is not None
    found = {
        "control_cost": env._ctrl_cost_weight,
        "healthy_reward": getattr(env, "_healthy_reward", 0.0),
        "terminates": getattr(env, "_terminate_when_unhealthy", False),
        "height": getattr(env, "_healthy_z_range", (-np.inf, np.inf)),
        "angle": getattr(env, "_healthy_angle_range", (-np.inf, np.inf)),
        "state": getattr(env, "_healthy_state_range", None),
    }
    assert {field: getattr(runner, field) for field in found} == found
    assert env._forward_reward_weight == 1


@pytest.mark.parametrize("removed", [True, False])
def test_the_kitchens_success_is_the_share_of_the_datasets_tasks(removed: bool) -> None:
    """`removed`: whether the environment strikes a completed task off its list; in the hub's datasets it does not."""
    tasks = ["microwave", "kettle", "light switch", "slide cabinet"]
    settings = {"tasks_to_complete": tasks, "remove_task_when_completed": removed, "terminate_on_tasks_completed": False}
    kitchen = environments.make(environments.flattened(environments.written("gymnasium_robotics:FrankaKitchen-v1", settings)))
    simulation, rows = Gymnasium(kitchen, lambda: kitchen, 1), np.zeros((1, kitchen.observation_space.shape[0]), np.float32)
    positions: Any = kitchen.unwrapped.data.qpos  # type: ignore[attr-defined]
    still, alive = np.zeros((1, 9)), np.array([0])

    def after(**moved: float) -> float:
        for joint, position in moved.items():
            positions[int(joint.removeprefix("joint"))] = position
        simulation.step(alive, still, rows)
        return float(simulation.successes[0])

    simulation.reset([0], rows)
    assert np.isnan(simulation.successes[0])
    assert after() == 0
    assert after(joint19=0.37) == 0.25, "the cabinet is open"
    assert after(joint22=-0.75) == 0.5, "so is the microwave"
    assert after(joint19=0.0, joint22=0.0) == 0.5, "and they count when they are shut again"
    simulation.reset([1], rows)
    assert after() == 0
    simulation.close()
