"""Many environments of one kind, stepped in one loop. Two implementations give the same numbers bit for bit:

Gymnasium   any environment, through its own `step`, which for MuJoCo's runners costs almost as much in Python as the physics
Planar      gymnasium's planar runners straight on MuJoCo: physics one by one, observations and rewards of all at once
"""

from __future__ import annotations

import copy
import ctypes
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from trainables.environments import Runner
from trainables.native import build
from trainables.simulation import contract

Array = npt.NDArray[Any]
Advance = Callable[[Array, Array, Array], None]  # (indices of the states, actions, observations to fill): one time step


SUCCESS = ("success", "is_success")
COMPLETED, REMAINING = "episode_task_completions", "tasks_to_complete"  # FrankaKitchen's


class Simulation(Protocol):
    """n environments; `rows` [n, O] float32 is the caller's and holds the last observation of each.

    `successes` [n] is 1 where the environment has reported a success in this episode, else 0; a share where an episode has several tasks;
    nan where it reports nothing of the kind."""

    successes: Array

    def reset(self, seeds: Sequence[int], rows: Array) -> None:
        """Begin an episode in each environment."""
        ...

    def step(self, alive: Array, actions: Array, rows: Array) -> tuple[Array, Array]:
        """Take actions [n, A], clipped to the action space, in the environments `alive` (indices, int64).

        Rewards float64 [n] and whether the episode ended [n]; 0 and False elsewhere. An action that is not finite is not taken: its
        reward is nan and its episode ends."""
        ...

    def close(self) -> None:
        """Free the environments."""
        ...


class Gymnasium:
    """`make` builds an environment; `first` is one that exists already. What their code does wrong is raised as UserError."""

    def __init__(self, first: Any, make: Callable[[], Any], count: int) -> None:
        self.name = str(first.spec.id)
        made = [first, *(make() for _ in range(count - 1))]
        # Wrappers that an environment is registered with belong to it.
        self.environments = [env if env.spec.additional_wrappers else env.unwrapped for env in made]
        self.space = first.action_space
        self.rewards, self.ended = np.zeros(count), np.zeros(count, np.bool_)
        self.successes = np.full(count, np.nan)

    def reset(self, seeds: Sequence[int], rows: Array) -> None:
        self.successes[:] = np.nan
        try:
            for row, environment, seed in zip(rows, self.environments, seeds, strict=True):
                row[:] = contract.begun(self.name, environment.reset(seed=seed), len(row))
        except Exception as error:  # an environment's code may raise anything
            raise contract.failed(self.name, "reset", error) from error

    def step(self, alive: Array, actions: Array, rows: Array) -> tuple[Array, Array]:
        rewards, ended = self.rewards, self.ended
        rewards[:], ended[:] = 0, False
        actions, finite = bounded(actions, self.space)
        result: Any = None
        try:
            for i in alive.tolist():
                if finite[i]:
                    result = None
                    result = self.environments[i].step(actions[i])
                    rows[i], rewards[i], terminated, truncated, info = result
                    ended[i] = terminated or truncated
                    success = succeeded(info)
                    if success is not None:
                        self.successes[i] = np.fmax(self.successes[i], success)
                else:
                    rewards[i], ended[i], self.successes[i] = np.nan, True, np.nan
        except Exception as error:  # an environment's code may raise anything
            if result is not None:
                contract.check_step(self.name, result, rows.shape[1])
            raise contract.failed(self.name, "step", error) from error
        return rewards, ended

    def rehearse(self, size: int) -> list[str]:
        """What to know about the environment, of observations of `size` numbers, after one time step; see contract.rehearse."""
        (action,), _ = bounded(np.zeros((1, *self.space.shape)), self.space)
        return list(contract.rehearse(self.environments[0], self.name, size, action))

    def close(self) -> None:
        try:
            for environment in self.environments:
                environment.close()
        except Exception as error:  # an environment's code may raise anything
            raise contract.failed(self.name, "close", error) from error


def succeeded(info: Mapping[str, Any]) -> bool | float | None:
    """Whether a step's info reports a success, by the names that gymnasium-robotics gives it; None where it says nothing of one.

    The kitchen has several tasks: the share of them that the episode has completed so far, as D4RL scores it (Fu et al. 2020: 100 is all
    of them, so four in its datasets)."""
    for name in SUCCESS:
        if name in info:
            return bool(info[name])
    if COMPLETED in info and REMAINING in info:
        completed = set(info[COMPLETED])
        return len(completed) / (len(completed | set(info[REMAINING])) or 1)  # by its settings, completed tasks may remain listed
    return None


def bounded(actions: Array, space: Any) -> tuple[Array, Array]:
    """Actions [n, A] in the space's type and bounds, and which of them are finite [n]."""
    actions = np.asarray(actions, space.dtype)
    finite: Any = np.isfinite(actions).all(1)
    return np.minimum(np.maximum(actions, space.low), space.high), finite


class Planar:
    """One gymnasium environment draws the initial states; the episodes have a MuJoCo state each and share its model."""

    def __init__(self, environment: Any, runner: Runner, count: int) -> None:
        self.environment, self.runner = environment.unwrapped, runner
        self.model, self.frames, self.seconds = self.environment.model, self.environment.frame_skip, self.environment.dt
        self.states: list[Any] = []
        self.now = np.zeros((count, self.model.nq + self.model.nv))  # positions and velocities, x first
        self.rewards, self.ended = np.zeros(count), np.zeros(count, np.bool_)
        self.successes = np.full(count, np.nan)
        self.advance: Advance | None = None

    def reset(self, seeds: Sequence[int], rows: Array) -> None:
        self.states.clear()
        for i, seed in enumerate(seeds):
            rows[i] = self.environment.reset(seed=seed)[0]
            self.states.append(copy.copy(self.environment.data))
        self.parts = [part for state in self.states for part in (state.qpos, state.qvel)]
        self.look()
        self.advance = _in_c(self)

    def look(self) -> None:
        """Read the positions and velocities of all states."""
        np.concatenate(self.parts, out=self.now.reshape(-1))

    def step(self, alive: Array, actions: Array, rows: Array) -> tuple[Array, Array]:
        self.rewards[:], self.ended[:] = 0, False
        if self.advance:
            self.advance(alive, actions, rows)
        else:
            self._step(alive, *bounded(actions, self.environment.action_space), rows)
        return self.rewards, self.ended

    def _step(self, alive: Array, actions: Array, finite: Array, rows: Array) -> None:
        """simulate.c in Python."""
        import mujoco

        self.rewards[alive], self.ended[alive] = np.nan, True
        alive, x_before = alive[finite[alive]], self.now[:, 0].copy()
        for i in alive.tolist():
            self.states[i].ctrl[:] = actions[i]
            mujoco.mj_step(self.model, self.states[i], self.frames)
        self.look()
        rewards, ended = self._judge((self.now[:, 0] - x_before) / self.seconds, actions)
        self.rewards[alive], self.ended[alive] = rewards[alive], ended[alive]
        self._observe(rows)

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
            return velocity - cost, np.zeros(len(self.now), np.bool_)
        healthy = _inside(self.now[:, 1], runner.height) & _inside(self.now[:, 2], runner.angle)
        if runner.state:
            healthy &= _inside(self.now[:, 2:], runner.state).all(1)
        return velocity + runner.healthy_reward * healthy - cost, ~healthy

    def close(self) -> None:
        self.environment.close()


def _in_c(planar: Planar) -> Advance | None:
    """simulate.c, working on the memory of the states: Python around the physics would add a quarter to its time. None where the
    kernels or MuJoCo's library are not available."""
    import mujoco

    library = next(Path(mujoco.__file__).parent.glob("libmujoco.so*"), None)
    if library is None or not build.available():
        return None
    settings, model, space = planar.runner, planar.model, planar.environment.action_space
    everything = (-math.inf, math.inf)
    runner = build.RunnerStruct(
        controls=model.nu, positions=model.nq, velocities=model.nv, frames=planar.frames, seconds=planar.seconds,
        terminates=settings.terminates, healthy_reward=settings.healthy_reward, control_cost=settings.control_cost,
        height=settings.height, angle=settings.angle, state=settings.state or everything,
        velocity_limit=settings.velocity_limit or math.inf, low=space.low.ctypes.data, high=space.high.ctypes.data,
    )  # fmt: skip
    states = planar.states
    arrays = ([getattr(state, name).ctypes.data for state in states] for name in ("ctrl", "qpos", "qvel"))
    tables = [np.array(addresses, np.uintp) for addresses in ([state._address for state in states], *arrays)]
    step = ctypes.cast(ctypes.CDLL(str(library)).mj_step, ctypes.c_void_p)
    simulate, first = build.library().winnow_simulate, (step, model._address, ctypes.addressof(runner))
    pointers, results = [table.ctypes.data for table in tables], (planar.rewards.ctypes.data, planar.ended.ctypes.data)
    now = planar.now.ctypes.data

    taken = np.empty((len(states), model.nu), np.float32)
    rest = (*pointers, taken.ctypes.data, now)
    seen: list[Any] = [None, None, 0, 0]  # asking an array for its address takes longer than the call does, and they seldom change

    def advanced(alive: Array, actions: Array, rows: Array) -> None:
        taken[:] = actions
        if alive is not seen[0] or rows is not seen[1]:
            seen[:] = alive, rows, alive.ctypes.data, rows.ctypes.data
        simulate(*first, len(alive), seen[2], *rest, seen[3], *results)

    advanced.kept = tables, runner, space  # type: ignore[attr-defined]  # it works on their memory
    return advanced


def _inside(values: Array, bounds: tuple[float, float]) -> Array:
    return (bounds[0] < values) & (values < bounds[1])
