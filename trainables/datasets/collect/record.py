"""Record a tier with the shipped policies: plain numpy and MuJoCo, seeded, written as a Minari dataset whole or not at all."""

from __future__ import annotations

import importlib.metadata
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from trainables import environments
from trainables.datasets import local, minari_write
from trainables.datasets.collect import policy, tiers
from trainables.datasets.collect.policy import Array, Policy
from trainables.datasets.collect.replay import Replay

if TYPE_CHECKING:
    from minari.data_collector import EpisodeBuffer

Progress = Callable[[int, int], None]  # transitions recorded, transitions in all


@dataclass(frozen=True, eq=False)
class Episode:
    """Observations [T+1, O], actions [T, A], rewards [T]; `snapshot` played it from `seed`; it ended by itself if `terminated`.

    An episode of a replay buffer has neither seed nor snapshot."""

    seed: int | None
    snapshot: int | None
    observations: Array
    actions: Array
    rewards: Array
    terminated: bool


def record(dataset: str, transitions: int = 100_000, seed: int = 0, force: bool = False, progress: Progress | None = None) -> Path:
    """Record `winnow/<family>/<tier>-v<version>` below Minari's local root and return its folder.

    An existing dataset is kept unless `force`. No partial dataset is ever visible: it is written under a hidden name, then renamed.
    Raises UserError for an id that cannot be recorded, or a folder that cannot be written.
    """
    family, tier, version = tiers.parse(dataset)
    card = policy.card(family, version)
    parts = tiers.segments(tier, card, transitions)
    if local.exists(dataset) and not force:
        return local.folder(dataset)
    env = environments.make(card["environment"])
    if name := tiers.replay_of(tier, card):
        replay = Replay.load(policy.folder(version) / name).thinned(transitions)
        about = _about("replay", card, {"tier": tier, "transitions": int(replay.lengths.sum())})
        return minari_write.write(dataset, env, about, _buffers(_replayed(env.unwrapped, replay, progress)), force)
    rng = np.random.default_rng([seed, zlib.crc32(dataset.encode())])
    about = _about(tier, card, {"tier": tier, "seed": seed, "segments": tiers.to_json(parts)})
    return minari_write.write(dataset, env, about, _buffers(_play(env, parts, policy.load(family, version), rng, progress)), force)


def _replayed(env: Any, replay: Replay, progress: Progress | None) -> Iterator[Episode]:
    done, total = 0, int(replay.lengths.sum())
    for observations, actions, rewards, terminated in replay.play(env):
        done += len(actions)
        if progress is not None:
            progress(done, total)
        yield Episode(None, None, observations, actions, rewards, terminated)


def _play(
    env: Any, parts: list[tiers.Segment], policies: dict[int, Policy], rng: np.random.Generator, progress: Progress | None
) -> Iterator[Episode]:
    """Episodes of all segments in order; the last episode of a segment is cut (a truncation) where its transitions are full."""
    total, done, horizon = sum(part.transitions for part in parts), 0, env.spec.max_episode_steps
    for part in parts:
        left = part.transitions
        while left:
            episode = _episode(env.unwrapped, part.snapshot, policies, min(horizon, left), rng)
            left -= len(episode.rewards)
            done += len(episode.rewards)
            if progress is not None:
                progress(done, total)
            yield episode


def _episode(env: Any, snapshot: int | None, policies: dict[int, Policy], limit: int, rng: np.random.Generator) -> Episode:
    """One episode of at most `limit` transitions; all its random numbers are drawn before it starts."""
    low, high = env.action_space.low, env.action_space.high
    size, seed = low.shape[0], int(rng.integers(2**31))
    noise = rng.standard_normal((limit, size), np.float32) if snapshot is not None else rng.random((limit, size), np.float32) * 2 - 1
    observations = np.empty((limit + 1, env.observation_space.shape[0]), np.float32)
    actions, rewards = np.empty((limit, size), np.float32), np.empty(limit, np.float32)
    observations[0] = env.reset(seed=seed)[0]
    steps, terminated, unit = 0, False, is_unit(low, high)
    while steps < limit and not terminated:
        action = noise[steps] if snapshot is None else policies[snapshot].act(observations[steps], noise[steps])
        actions[steps] = action if unit else from_unit(action, low, high)
        observations[steps + 1], rewards[steps], terminated, _, _ = env.step(actions[steps])
        steps += 1
    return Episode(seed, snapshot, observations[: steps + 1], actions[:steps], rewards[:steps], bool(terminated))


def is_unit(low: npt.NDArray[Any], high: npt.NDArray[Any]) -> bool:
    """Whether the box of actions is [-1, 1], as in all of MuJoCo's locomotion."""
    return bool((low == -1).all() and (high == 1).all())


def from_unit(actions: Array, low: npt.NDArray[Any], high: npt.NDArray[Any]) -> Array:
    """Stretch actions in [-1, 1] to the box; the box [-1, 1] leaves them as they are to the last bit."""
    if is_unit(low, high):
        return actions
    return np.asarray(low + (high - low) * (actions + 1) / 2, np.float32)


def _about(meaning: str, card: dict[str, Any], behaviour: dict[str, Any]) -> dict[str, Any]:
    """The dataset's metadata: Minari's own fields, and `behaviour`, from which it can be recorded again."""
    reference, tier = environments.reference(card["environment"]), behaviour["tier"]
    assert reference is not None  # policies are shipped for families only, and each family has a file
    return {
        "algorithm_name": "uniform" if meaning == "random" else f"{card['algorithm']} ({card['library']})",
        "description": f"{card['environment']}, tier {tier}: {tiers.MEANING[meaning]}. Not D4RL's or Farama's data: other policies.",
        "requirements": [f"{name}=={importlib.metadata.version(name)}" for name in ("gymnasium", "mujoco")],
        "ref_min_score": reference.random,
        "ref_max_score": reference.expert,
        "num_episodes_average_score": 100,
        "behaviour": behaviour,
    }


def _buffers(episodes: Iterator[Episode]) -> Iterator[EpisodeBuffer]:
    from minari.data_collector import EpisodeBuffer

    for episode in episodes:
        yield EpisodeBuffer(
            seed=episode.seed,
            options={"snapshot": -1 if episode.snapshot is None else episode.snapshot},
            observations=episode.observations,
            actions=episode.actions,
            rewards=episode.rewards,
            terminations=_last(len(episode.rewards), episode.terminated),
            truncations=_last(len(episode.rewards), not episode.terminated),
        )


def _last(steps: int, flag: bool) -> npt.NDArray[np.bool_]:
    """All False, but for the last, which is `flag`."""
    flags = np.zeros(steps, np.bool_)
    flags[-1] = flag
    return flags
