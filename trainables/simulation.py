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
        self.states: list[tuple[Any, Array]] = []
        self.parts: list[Array] = []
        self.now = np.zeros((count, self.model.nq + self.model.nv))  # positions and velocities, x first
        self.never = np.zeros(count, np.bool_)

    def reset(self, seeds: Sequence[int], rows: Array) -> None:
        self.states.clear()
        self.parts.clear()
        for i, seed in enumerate(seeds):
            rows[i] = self.environment.reset(seed=seed)[0]
            state = copy.copy(self.environment.data)
            # Views of MuJoCo's memory: asking for them at every step would cost more than copying from them.
            self.states.append((state, state.ctrl))
            self.parts += state.qpos, state.qvel
        np.concatenate(self.parts, out=self.now.reshape(-1))

    def step(self, alive: Iterable[int], actions: Array, rows: Array) -> tuple[Array, Array]:
        advance, model, frames, states = self.advance, self.model, self.frames, self.states
        x_before, controls = self.now[:, 0].copy(), actions.astype(np.float64)
        for i in alive:
            state, control = states[i]
            control[...] = controls[i]
            advance(model, state, frames)
        np.concatenate(self.parts, out=self.now.reshape(-1))
        self._observe(rows)
        return self._judge((self.now[:, 0] - x_before) / self.seconds, actions)

    def _observe(self, rows: Array) -> None:
        """Everything but x, velocities clipped."""
        positions, limit = self.model.nq, self.runner.velocity_limit
        rows[:] = self.now[:, 1:]
        if limit is not None:
            rows[:, positions - 1 :] = self.now[:, positions:].clip(-limit, limit)

    def _judge(self, velocity: Array, actions: Array) -> tuple[Array, Array]:
        """Rewards for velocities along x [n] and actions [n, A], in the order in which gymnasium computes them; and the ends."""
        runner = self.runner
        cost = runner.control_cost * np.square(actions).sum(1)
        if not runner.terminates:
            return velocity - cost, self.never
        healthy = _inside(self.now[:, 1], runner.height) & _inside(self.now[:, 2], runner.angle)
        if runner.state:
            healthy &= _inside(self.now[:, 2:], runner.state).all(1)
        return velocity + runner.healthy_reward * healthy - cost, ~healthy

    def close(self) -> None:
        self.environment.close()


def _inside(values: Array, bounds: tuple[float, float]) -> Array:
    return (bounds[0] < values) & (values < bounds[1])
