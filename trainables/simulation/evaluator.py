"""Evaluation: all episodes of all members of a stack in one loop, with one batched forward per time step.

The environments are stepped without gymnasium's wrappers (their time limit is kept here), as trainables/simulation/stepping.py does it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from trainables import environments
from trainables.errors import UserError
from trainables.simulation import contract
from trainables.simulation.stepping import Gymnasium, Planar, Simulation

Act = Callable[[npt.NDArray[np.float32]], npt.NDArray[Any]]
Quantities = dict[str, npt.NDArray[np.float64]]  # what an episode is described by -> [K, E]


class Evaluator:
    """Plays E episodes for each of K members; `seeds[k][e]` resets episode e of member k, the same at each `run`.

    An episode's return depends on its seed and its member's actions alone, not on which other members or episodes are there.
    Raises UserError for an environment that has no time limit or whose observations or actions are not plain vectors.
    """

    def __init__(self, environment: str, seeds: Sequence[Sequence[int]]) -> None:
        if not seeds or not seeds[0] or any(len(row) != len(seeds[0]) for row in seeds):
            raise UserError(f"evaluation seeds must be K rows of E numbers each; there are rows of {[len(row) for row in seeds]}")
        self.environment = environment
        self._seeds = [[int(seed) for seed in row] for row in seeds]
        first = environments.make(environment)
        spec = first.spec
        if spec is None or spec.max_episode_steps is None:
            raise UserError(f"environment {environment!r} has no time limit (max_episode_steps), so its episodes need not end")
        try:
            seen, taken = first.observation_space, first.action_space
        except Exception as error:  # a class without them, or whose code raises anything
            raise contract.failed(environment, "observation_space or action_space", error) from None
        low, high = getattr(taken, "low", None), getattr(taken, "high", None)
        shape = seen.shape
        if low is None or high is None or low.ndim != 1 or shape is None or len(shape) != 1:
            raise UserError(f"environment {environment!r} maps {seen} to {taken}; both must be flat boxes")
        self.horizon = spec.max_episode_steps
        self.observation_size, self.action_size = shape[0], low.shape[0]
        self.action_low, self.action_high = low, high
        self.dict_space = _dict_space(first)  # what observations are flattened from; None where they are vectors anyway
        count, runner = len(seeds) * len(seeds[0]), environments.runner(environment)
        self._simulation: Simulation = (
            Planar(first, runner, count) if runner else Gymnasium(first, lambda: environments.make(environment), count)
        )

    @property
    def shape(self) -> tuple[int, int]:
        """(K, E)."""
        return len(self._seeds), len(self._seeds[0])

    def run(self, act: Act, seeds: Sequence[Sequence[int]] | None = None) -> npt.NDArray[np.float64]:
        """Undiscounted returns [K, E] of one episode per seed: its own seeds, or as many others in `seeds`; see `play`."""
        return self.play(act, seeds)["returns"]

    def play(self, act: Act, seeds: Sequence[Sequence[int]] | None = None) -> Quantities:
        """What is known of each episode, [K, E] by quantity: `returns`, undiscounted, and, where the environment reports successes,
        `successes`: 1 if it did at any time step, else 0, or a share of tasks; nan of an episode of which it says nothing. One episode
        per seed, its own or as many others.

        `act` maps observations [K, E, O] (float32, one array reused between calls) to actions [K, E, A], which are clipped to
        the action space. It always gets the whole batch; rows of episodes that ended keep their last observation. An episode
        in which an action is not finite (a diverged member) has the return nan, and so its success.
        """
        members, episodes = self.shape
        count = members * episodes
        observations = np.zeros((members, episodes, self.observation_size), np.float32)
        rows = observations.reshape(count, -1)
        self._simulation.reset([seed for row in seeds or self._seeds for seed in row], rows)
        returns, alive = np.zeros(count), np.arange(count)
        for _ in range(self.horizon):
            rewards, ended = self._simulation.step(alive, np.asarray(act(observations)).reshape(count, -1), rows)
            returns += rewards
            if ended.any():
                alive = alive[~ended[alive]]
                if not len(alive):
                    break
        played = {"returns": returns.reshape(members, episodes)}
        if not np.isnan(successes := self._simulation.successes).all():
            played["successes"] = successes.reshape(members, episodes).copy()
        return played

    def rehearse(self) -> list[str]:
        """What to know about the environment after one time step in it; raises UserError for what its code does wrong."""
        return self._simulation.rehearse(self.observation_size) if isinstance(self._simulation, Gymnasium) else []

    def close(self) -> None:
        """Free the environments."""
        self._simulation.close()


def _dict_space(env: Any) -> Any:
    """The Dict space that gymnasium's FlattenObservation flattens, if the environment is in one."""
    while env is not env.unwrapped:
        if type(env).__name__ == "FlattenObservation" and hasattr(env.env.observation_space, "spaces"):
            return env.env.observation_space
        env = env.env
    return None
