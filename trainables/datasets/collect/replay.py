"""A learner's own replay buffer, shipped as the actions it took and the state of the simulation every few steps.

Simulating those few steps again gives back observations and rewards: 38 bytes a transition of HalfCheetah instead of 96. Not more of
them: MuJoCo is chaotic, the observation leaves out how far the body has come, and within a hundred steps that rounding alone makes
another trajectory.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from trainables.datasets.collect.policy import Array
from trainables.errors import UserError

SPAN = 10  # steps simulated from one stored state: they differ from what the learner saw by less than 1e-8
TOLERANCE = 1e-6
CLIPPED = {"Hopper": 10.0, "Walker2d": 10.0}  # gymnasium clips the velocities that these show: no state can be read from such a one

States = npt.NDArray[np.float64]
Counts = npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Replay:
    """Episodes in the order in which they ended, as spans of a few steps.

    `actions` [N, A] as the environment took them; `states` [S, nq + nv], MuJoCo's positions and velocities at the start of each span;
    `spans` [S], the steps of each; `episodes` [E], the spans of each; `terminated` [E], whether it ended by itself.
    """

    actions: Array
    states: States
    spans: Counts
    episodes: Counts
    terminated: npt.NDArray[np.bool_]

    @property
    def lengths(self) -> Counts:
        """Transitions of each episode, [E]."""
        return np.add.reduceat(self.spans, _starts(self.episodes))

    def thinned(self, transitions: int) -> Replay:
        """Whole episodes, evenly spread over the training, with at most `transitions` transitions in all, but at least one episode."""
        lengths = self.lengths
        count = len(lengths)
        while count > 1 and lengths[_spread(len(lengths), count)].sum() > transitions:
            count -= 1
        chosen = _spread(len(lengths), count)
        first = _starts(self.episodes)
        spans = np.concatenate([np.arange(first[i], first[i] + self.episodes[i]) for i in chosen])
        begins = _starts(self.spans)
        actions = np.concatenate([self.actions[begins[i] : begins[i] + self.spans[i]] for i in spans])
        return Replay(actions, self.states[spans], self.spans[spans], self.episodes[chosen], self.terminated[chosen])

    def tensors(self) -> dict[str, npt.NDArray[Any]]:
        """What is shipped, by name."""
        return dict(vars(self))

    @classmethod
    def load(cls, path: Path) -> Replay:
        """Read a shipped file."""
        from safetensors.numpy import load_file

        return cls(**load_file(path))

    def play(self, env: Any) -> Iterator[tuple[Array, Array, Array, bool]]:
        """Observations [T + 1, O], actions [T, A], rewards [T] and whether it terminated, of each episode; `env` is unwrapped."""
        span = step = 0
        for count, terminated in zip(self.episodes, self.terminated, strict=True):
            parts = []
            for index in range(span, span + count):
                actions = self.actions[step : step + self.spans[index]]
                parts.append((*simulate(env, self.states[index], actions), actions))
                step += len(actions)
            span += count
            observations = np.concatenate([*(seen[:-1] for seen, *_ in parts), parts[-1][0][-1:]])
            actions, rewards = (np.concatenate([part[i] for part in parts]) for i in (2, 1))
            yield observations, actions, rewards, bool(terminated)


def simulate(env: Any, state: States, actions: Array) -> tuple[Array, Array]:
    """Observations [T + 1, O] and rewards [T] of a MuJoCo environment that is set to `state`; `env` is unwrapped."""
    env.reset(seed=0)
    env.set_state(state[: env.model.nq].copy(), state[env.model.nq :].copy())
    observations = np.empty((len(actions) + 1, env.observation_space.shape[0]), np.float32)
    rewards = np.empty(len(actions), np.float32)
    observations[0] = env._get_obs()
    for step, action in enumerate(actions):
        observations[step + 1], rewards[step], *_ = env.step(action)
    return observations, rewards


def read_buffer(path: Path) -> Any:
    """The buffer that stable-baselines3 has saved (the extra `[collect]`): give it none but those that a training here has left."""
    try:
        from stable_baselines3.common.save_util import load_from_pkl
    except ImportError:
        raise UserError(f"reading {path} needs the extra: pip install 'winnow-rl[collect]'") from None
    return load_from_pkl(path)


def of_buffer(buffer: Any, env: Any, steps: int) -> Replay:
    """The first `steps` environment steps of a buffer of stable-baselines3's; episodes that were going on then are left out.

    Raises UserError where the buffer no longer holds its first steps, and where simulating them again gives other observations.
    """
    rows = steps // buffer.n_envs
    if buffer.full or buffer.pos < rows:
        held = "only its latest steps" if buffer.full else f"{buffer.pos * buffer.n_envs:,} steps"
        raise UserError(f"the replay buffer holds {held}, not the first {steps:,}")
    low, high = env.action_space.low, env.action_space.high
    ended: list[tuple[int, Replay]] = []
    for place in range(buffer.n_envs):
        first = 0
        for last in np.flatnonzero(buffer.dones[:rows, place]):
            rows_of = slice(first, last + 1)
            # The buffer's actions are scaled to [-1, 1]; this is the arithmetic by which the learner handed them to the environment.
            actions = (low + 0.5 * (buffer.actions[rows_of, place] + 1.0) * (high - low)).astype(np.float32)
            episode = _episode(env, buffer.observations[rows_of, place], actions, not buffer.timeouts[last, place])
            if last % 7 == 0 or first == 0:
                _check(env, episode, buffer.next_observations[rows_of, place], f"the replay buffer, row {last}")
            ended.append((int(last), episode))
            first = int(last) + 1
    ended.sort(key=lambda each: each[0])
    return Replay(**{name: np.concatenate([getattr(episode, name) for _, episode in ended]) for name in vars(ended[0][1])})


def _episode(env: Any, observations: npt.NDArray[Any], actions: Array, terminated: bool) -> Replay:
    """One episode from its observations [T, O] before each action [T, A]."""
    starts = [0]
    hidden = env.model.nq + env.model.nv - observations.shape[1]
    limit = CLIPPED.get(env.spec.id.partition("-")[0], np.inf)
    shown = np.abs(observations[:, env.model.nq - hidden :]).max(1) < limit
    for step in range(1, len(actions)):
        if step - starts[-1] >= SPAN and shown[step]:
            starts.append(step)
    # The positions that are left out say how far the body has come, which changes nothing.
    states = np.concatenate([np.zeros((len(starts), hidden)), observations[starts].astype(np.float64)], axis=1)
    return Replay(actions, states, np.diff([*starts, len(actions)]), np.array([len(starts)]), np.array([terminated]))


def _check(env: Any, episode: Replay, following: npt.NDArray[Any], where: str) -> None:
    observations = next(episode.play(env))[0]
    off = float(np.abs(observations[1:] - following).max())
    if off > TOLERANCE * max(1.0, float(np.abs(following).max())):
        raise UserError(f"{where}: simulated again, the episode's observations differ by up to {off:.2g}")


def _starts(counts: Counts) -> Counts:
    return np.concatenate([[0], np.cumsum(counts)[:-1]])


def _spread(total: int, count: int) -> Counts:
    return np.linspace(0, total - 1, count).round().astype(np.int64)
