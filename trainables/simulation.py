"""Many environments of one kind, stepped in one loop. Two ways with the same numbers, to the last bit:

Gymnasium   any environment, through its own `step`, which for MuJoCo's runners costs almost as much in Python as the physics
Planar      gymnasium's planar runners straight on MuJoCo: physics one by one, observations and rewards of all at once
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from trainables.environments import Runner

Array = npt.NDArray[Any]


class Simulation(Protocol):
    """n environments; `rows` [n, O] float32 is the caller's and holds the last observation of each."""

    def reset(self, seeds: Sequence[int], rows: Array) -> None:
        """Begin an episode in each environment."""
        ...

    def step(self, alive: Iterable[int], actions: Array, rows: Array) -> tuple[Array, Array]:
        """Take actions [n, A] in the environments `alive`. Rewards float64 [n] and whether the episode ended [n], valid for these."""
        ...

    def close(self) -> None:
        """Free the environments."""
        ...


class Gymnasium:
    """`make` builds an environment; the first one is there already."""

    def __init__(self, first: Any, make: Callable[[], Any], count: int) -> None:
        made = [first, *(make() for _ in range(count - 1))]
        # Wrappers that an environment is registered with belong to it.
        self.environments = [env if env.spec.additional_wrappers else env.unwrapped for env in made]
        self.rewards, self.ended = np.zeros(count), np.zeros(count, np.bool_)

    def reset(self, seeds: Sequence[int], rows: Array) -> None:
        for row, environment, seed in zip(rows, self.environments, seeds, strict=True):
            row[:] = environment.reset(seed=seed)[0]

    def step(self, alive: Iterable[int], actions: Array, rows: Array) -> tuple[Array, Array]:
        for i in alive:
            rows[i], self.rewards[i], terminated, truncated, _ = self.environments[i].step(actions[i])
            self.ended[i] = terminated or truncated
        return self.rewards, self.ended

    def close(self) -> None:
        for environment in self.environments:
            environment.close()


class Planar:
    """One gymnasium environment draws the initial states; the episodes have a MuJoCo state each and share its model."""

    def __init__(self, environment: Any, runner: Runner, count: int) -> None:
        import mujoco

        self.advance, self.environment, self.runner = mujoco.mj_step, environment.unwrapped, runner
        self.model, self.frames, self.seconds = self.environment.model, self.environment.frame_skip, self.environment.dt
        self.states: list[tuple[Any, Array, Array, Array]] = []
        self.never = np.zeros(count, np.bool_)
        self.qpos, self.qvel = np.zeros((count, self.model.nq)), np.zeros((count, self.model.nv))

    def reset(self, seeds: Sequence[int], rows: Array) -> None:
        self.states.clear()
        for i, seed in enumerate(seeds):
            rows[i] = self.environment.reset(seed=seed)[0]
            state = copy.copy(self.environment.data)
            self.qpos[i], self.qvel[i] = state.qpos, state.qvel
            # With views of MuJoCo's memory: asking for them at every step would cost more than copying from them.
            self.states.append((state, state.ctrl, state.qpos, state.qvel))

    def step(self, alive: Iterable[int], actions: Array, rows: Array) -> tuple[Array, Array]:
        x_before = self.qpos[:, 0].copy()
        advance, model, frames = self.advance, self.model, self.frames
        for i in alive:
            state, control, qpos, qvel = self.states[i]
            control[:] = actions[i]
            advance(model, state, frames)
            self.qpos[i] = qpos
            self.qvel[i] = qvel
        self._observe(rows)
        return self._judge((self.qpos[:, 0] - x_before) / self.seconds, actions)

    def _observe(self, rows: Array) -> None:
        """All positions but x, then the velocities."""
        positions, limit = self.model.nq - 1, self.runner.velocity_limit
        rows[:, :positions] = self.qpos[:, 1:]
        rows[:, positions:] = self.qvel if limit is None else self.qvel.clip(-limit, limit)

    def _judge(self, velocity: Array, actions: Array) -> tuple[Array, Array]:
        """Rewards for velocities along x [n] and actions [n, A], in the order in which gymnasium computes them; and the ends."""
        runner = self.runner
        cost = runner.control_cost * np.square(actions).sum(1)
        if not runner.terminates:
            return velocity - cost, self.never
        healthy = _inside(self.qpos[:, 1], runner.height) & _inside(self.qpos[:, 2], runner.angle)
        if runner.state:
            healthy &= _inside(self.qpos[:, 2:], runner.state).all(1) & _inside(self.qvel, runner.state).all(1)
        return velocity + runner.healthy_reward * healthy - cost, ~healthy

    def close(self) -> None:
        self.environment.close()


def _inside(values: Array, bounds: tuple[float, float]) -> Array:
    return (bounds[0] < values) & (values < bounds[1])
