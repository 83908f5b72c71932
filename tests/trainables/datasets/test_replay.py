"""A learner's replay buffer, shipped as actions and states: simulating them again gives back what the learner saw."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from tests.trainables.datasets.test_collect import write_run
from trainables import environments
from trainables.datasets.collect import policy, tiers
from trainables.datasets.collect.record import record
from trainables.datasets.collect.replay import SPAN, Replay, of_buffer
from trainables.datasets.collect.ship import ship
from trainables.datasets.table import load_table
from trainables.errors import UserError

Array = npt.NDArray[Any]


@dataclass
class Buffer:
    """The fields of stable-baselines3's buffer that are read: rows are steps, columns environments."""

    observations: Array
    next_observations: Array
    actions: Array
    rewards: Array
    dones: Array
    timeouts: Array
    pos: int
    full: bool = False
    n_envs: int = 2


def filled(environment: str, rows: int, limit: int = 60) -> Buffer:
    """Two environments under random actions; episodes are cut after `limit` steps, as a time limit would."""
    columns: list[list[tuple[Any, ...]]] = []
    for place in range(2):
        env = environments.make(environment).unwrapped
        rng = np.random.default_rng(place)
        observation, steps, column = env.reset(seed=place)[0], 0, []
        for _ in range(rows):
            action = rng.uniform(-1, 1, env.action_space.shape[0]).astype(np.float32)
            following, reward, terminated, *_ = env.step((-1 + 0.5 * (action + 1.0) * 2).astype(np.float32))
            steps += 1
            cut = steps == limit and not terminated
            column.append((observation, following, action, reward, float(terminated or cut), float(cut)))
            observation, steps = (env.reset()[0], 0) if terminated or cut else (following, steps)
        columns.append(column)
    fields = [np.stack([np.array([step[i] for step in column]) for column in columns], axis=1) for i in range(6)]
    return Buffer(*fields, pos=rows)


@pytest.mark.parametrize("environment", ["HalfCheetah-v5", "Hopper-v5", "Walker2d-v5"])
def test_what_is_simulated_again_is_what_the_learner_saw(environment: str, tmp_path: Path) -> None:
    buffer = filled(environment, 150)
    env = environments.make(environment).unwrapped
    replay = of_buffer(buffer, env, 300)
    ends = sorted((int(row), place) for place in range(2) for row in np.flatnonzero(buffer.dones[:, place]))
    assert len(replay.episodes) == len(ends) > 3
    assert replay.terminated.tolist() == [not buffer.timeouts[row, place] for row, place in ends]
    assert replay.spans.max() < 3 * SPAN  # Walker2d's velocities are shown clipped, and no span can begin there
    for (row, place), (observations, actions, rewards, _) in zip(ends, replay.play(env), strict=True):
        rows = slice(row + 1 - len(actions), row + 1)
        np.testing.assert_allclose(observations[:-1], buffer.observations[rows, place], atol=1e-6, rtol=1e-6)
        np.testing.assert_allclose(observations[-1], buffer.next_observations[row, place], atol=1e-6, rtol=1e-6)
        np.testing.assert_allclose(rewards, buffer.rewards[rows, place], atol=1e-5, rtol=1e-5)


def test_thinning_takes_whole_episodes_from_the_whole_training(tmp_path: Path) -> None:
    replay = of_buffer(filled("HalfCheetah-v5", 400), environments.make("HalfCheetah-v5").unwrapped, 800)
    assert replay.lengths.tolist() == [60] * 12
    few = replay.thinned(250)
    assert few.lengths.tolist() == [60] * 4
    np.testing.assert_array_equal(few.actions[:60], replay.actions[:60])
    np.testing.assert_array_equal(few.actions[-60:], replay.actions[-60:])
    assert replay.thinned(1).lengths.tolist() == [60]
    assert len(replay.thinned(10_000).episodes) == 12


def test_a_buffer_that_cannot_be_played_again_is_refused(tmp_path: Path) -> None:
    env = environments.make("Hopper-v5").unwrapped
    buffer = filled("Hopper-v5", 60)
    with pytest.raises(UserError, match="holds 120 steps, not the first 1,000"):
        of_buffer(buffer, env, 1_000)
    buffer.full = True
    with pytest.raises(UserError, match="only its latest steps"):
        of_buffer(buffer, env, 120)
    buffer.full = False
    buffer.actions[0] += 0.1
    with pytest.raises(UserError, match="observations differ by up to"):
        of_buffer(buffer, env, 120)


def test_version_one_is_shipped_and_recorded_with_the_learners_own_buffer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(policy, "FOLDER", tmp_path / "policies")
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "minari"))
    monkeypatch.setenv("WINNOW_CACHE", str(tmp_path / "cache"))
    run = write_run(tmp_path / "run", 30)
    with pytest.raises(UserError, match=r"holds no replay\.pkl"):
        ship(run, version=1)
    (run / "replay.pkl").touch()
    monkeypatch.setitem(sys.modules, "stable_baselines3.common.save_util", None)  # as if it were not installed
    with pytest.raises(UserError, match=r"needs the extra: pip install 'winnow-rl\[collect\]'"):
        ship(run, version=1)
    monkeypatch.setattr("trainables.datasets.collect.ship.read_buffer", lambda path: filled("Hopper-v5", 500))
    monkeypatch.setattr("trainables.datasets.collect.ship.of_buffer", lambda buffer, env, steps: of_buffer(buffer, env, 1_000))
    path = ship(run, version=1)
    assert path == tmp_path / "policies" / "v1" / "hopper.json"
    card = json.loads(path.read_text())
    assert tiers.all_ids() == [f"winnow/hopper/{tier}-v1" for tier in ("medium", "medium-replay", "medium-expert", "expert")]
    about = card["tiers"]["medium-replay"]
    replay = Replay.load(path.parent / about["replay"])
    assert (len(replay.episodes), int(replay.lengths.sum())) == (about["episodes"], about["transitions"])
    record("winnow/hopper/medium-replay-v1")
    table = load_table("winnow/hopper/medium-replay-v1")
    assert len(table) == about["transitions"]
    assert table.episode_lengths.tolist() == replay.lengths.tolist()
    record("winnow/hopper/expert-v1", 300)
    assert len(load_table("winnow/hopper/expert-v1")) == 300
