"""OGBench's npz files, recorded here in their layouts."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest

from trainables.datasets.__main__ import main
from trainables.datasets.table import load_table
from trainables.datasets.table_evaluator import evaluator_of

NAME = "og/pendulum/some-v0"
Write = Callable[..., Path]


def trajectories() -> dict[str, Any]:
    """Two trajectories of Pendulum, of 7 and 5 transitions; the value ends in the middle of the first, and at the end of the second."""
    env, parts = gymnasium.make("Pendulum-v1"), []
    for seed, steps in ((0, 7), (1, 5)):
        env.action_space.seed(seed)
        observation, _ = env.reset(seed=seed)
        for step in range(steps):
            action = env.action_space.sample()
            following, reward, *_ = env.step(action)
            mask = 0.0 if (seed, step) in ((0, 3), (1, 4)) else 1.0
            parts.append((observation, action, following, reward, float(step == steps - 1), mask))
            observation = following
    env.close()
    names = ("observations", "actions", "next_observations", "rewards", "terminals", "masks")
    return {name: np.array(values, np.float32) for name, values in zip(names, zip(*parts, strict=True), strict=True)}


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Write:
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "minari"))

    def written(**changes: Any) -> Path:
        fields = {name: value for name, value in (trajectories() | changes).items() if value is not None}
        np.savez_compressed(tmp_path / "some.npz", **fields)
        return tmp_path / "some.npz"

    return written


def take(file: Path) -> int:
    return main(["import", str(file), "--environment", "Pendulum-v1", "--name", NAME])


def check(capsys: pytest.CaptureFixture[str]) -> None:
    table, wanted = load_table(NAME), trajectories()
    assert table.episode_lengths.tolist() == [7, 5]
    observations, actions, rewards, following, terminal = np.split(np.asarray(table.rows), [3, 4, 5, 8], axis=1)
    assert np.flatnonzero(terminal).tolist() == [3, 11], "where the mask is 0, also inside a trajectory"
    for got, name in ((observations, "observations"), (actions, "actions"), (following, "next_observations")):
        np.testing.assert_array_equal(got, wanted[name])
    np.testing.assert_array_equal(rewards[:, 0], wanted["rewards"])
    assert "12 transitions in 2 episodes" in capsys.readouterr().out


def test_ends_of_trajectories_and_of_the_value_are_kept_apart(write: Write, capsys: pytest.CaptureFixture[str]) -> None:
    assert take(write()) == 0
    check(capsys)


def test_a_compact_file_has_the_last_observation_in_a_row_of_its_own(write: Write, capsys: pytest.CaptureFixture[str]) -> None:
    fields, rows = trajectories(), [*range(7), 6, *range(7, 12), 11]
    compact = {name: fields[name][rows] for name in ("actions", "rewards", "masks", "terminals")}
    compact["observations"] = fields["observations"][rows]
    compact["observations"][[7, 13]] = fields["next_observations"][[6, 11]]
    compact["valids"] = np.ones(14)
    compact["valids"][[7, 13]] = 0
    assert take(write(**compact, next_observations=None)) == 0
    check(capsys)


@pytest.mark.parametrize(
    ("valids", "said"),
    [(np.ones(12), "valids is 1 in the last row, which no next observation follows"), (np.zeros(12), "holds no transition: valids is 0")],
)
def test_a_compact_file_without_what_follows(write: Write, valids: Any, said: str, capsys: pytest.CaptureFixture[str]) -> None:
    file = write(valids=valids, next_observations=None)
    assert take(file) == 2
    error = capsys.readouterr().err
    assert said in error
    assert error.count("\n") == 1


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"rewards": None, "masks": None}, "it is for reaching any goal, and Pendulum-v1 has no single task"),
        ({"masks": None}, "it has no masks; it has: observations, actions"),
        ({"next_observations": None}, "it has no next_observations or valids"),
        ({"masks": np.full(12, 0.5)}, "masks holds 12 of 12 values that are neither 0 nor 1"),
        ({"actions": np.full((12, 1), 9.0)}, "12 of 12 actions lie outside"),
        ({"rewards": np.zeros(11)}, "observations has 12 rows, but rewards 11"),
        ({"terminals": np.zeros(12)}, "in 1 rows, the first of them 6"),
        ({"observations": np.full((12, 3), np.nan)}, "not finite"),
    ],
)
def test_what_is_wrong_is_said(write: Write, changes: dict[str, Any], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    file = write(**changes)
    assert take(file) == 2
    error = capsys.readouterr().err
    assert said in error
    assert error.count("\n") == 1
    assert not (file.parent / "minari").exists()


def test_a_torn_file_is_one_line(write: Write, capsys: pytest.CaptureFixture[str]) -> None:
    file = write()
    file.write_bytes(file.read_bytes()[:300])
    assert take(file) == 2
    assert "cannot be read as an npz file" in capsys.readouterr().err


def test_a_published_file_is_rewarded_by_ogbench(write: Write, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """In the layout of its files: no rewards, positions, and the observation after the last transition in a row of its own."""
    pytest.importorskip(
        "ogbench", reason="it brings dm_control, which wants a newer mujoco than the pinned one; install both with --no-deps"
    )
    monkeypatch.setenv("WINNOW_IMPORT", "ogbench")
    name = "ogbench:pointmaze-medium-singletask-v0"
    env = gymnasium.make(name.partition(":")[2])
    parts = []
    for seed in range(3):
        env.action_space.seed(seed)
        observation, _ = env.reset(seed=seed)
        for step in range(21):
            action = env.action_space.sample()
            parts.append((observation, action, float(step == 20), env.unwrapped.data.qpos.copy()))  # type: ignore[attr-defined]
            observation, *_ = env.step(action)
    fields = dict(zip(("observations", "actions", "terminals", "qpos"), map(np.array, zip(*parts, strict=True)), strict=True))
    file = write(**fields, rewards=None, masks=None, next_observations=None)
    assert main(["import", str(file), "--environment", name, "--name", "og/pointmaze/some-v0"]) == 0
    table = load_table("og/pointmaze/some-v0")
    assert table.episode_lengths.tolist() == [20, 20, 20]
    assert table.environment.endswith(":pointmaze-medium-singletask-v0")
    evaluator_of(table, [[0]]).close()
    assert set(np.unique(table.rows[:, 4])) <= {-1.0, 0.0}
