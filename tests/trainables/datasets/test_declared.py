"""The environment that a dataset declares, wrappers, time limit and eval_env included, is the one that is played."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gymnasium
import minari
import numpy as np
import pytest
from gymnasium import wrappers

from service.storage import paths
from tests.trainables.datasets.cases import BEACON, declare, record
from trainables import environments, plugins
from trainables.datasets.table import load_table
from trainables.datasets.table_evaluator import evaluator_of
from trainables.errors import UserError
from trainables.evaluation import rollout
from trainables.reports import Evaluated
from trainables.run import run_stack
from trainables.trial import Stack, Trial

PENDULUM = "Pendulum-v1"
DATASET = "test/declared/small-v0"
Wrap = Callable[[Any], Any]


@pytest.fixture(autouse=True)
def fresh(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "minari"))


def by_minari(action: Any) -> tuple[float, int]:
    """Return and length of an episode of one action in the environment that Minari recovers."""
    env = minari.load_dataset(DATASET).recover_environment(eval_env=True)
    env.reset(seed=5)
    total, steps, over = 0.0, 0, False
    while not over:
        _, reward, terminated, truncated, _ = env.step(action)
        total, steps, over = total + float(reward), steps + 1, terminated or truncated
    env.close()
    return total, steps


def by_us(action: Any) -> float:
    evaluator = evaluator_of(load_table(DATASET), [[5]])
    played = evaluator.run(lambda seen: np.broadcast_to(action, (1, 1, *action.shape)))
    evaluator.close()
    return float(played[0, 0])


@pytest.mark.parametrize(
    "wrap",
    [
        lambda env: wrappers.RescaleAction(env, -1, 1),
        wrappers.TimeAwareObservation,
        lambda env: wrappers.TimeLimit(env, 50),
        lambda env: wrappers.RescaleAction(wrappers.ClipReward(env, -1, 0), -3, 3),
        lambda env: wrappers.RecordEpisodeStatistics(wrappers.StickyAction(env, 0.5)),
        lambda env: wrappers.TimeLimit(wrappers.RescaleAction(env, -1, 1), 50),
    ],
    ids=["rescaled", "time-aware", "shorter", "two", "sticky", "rescaled and shorter"],
)
def test_the_declared_environment_is_played(wrap: Wrap) -> None:
    record(DATASET, wrap(gymnasium.make(PENDULUM)))
    action = np.full(1, 0.4, np.float32)
    total, steps = by_minari(action)
    assert by_us(action) == pytest.approx(total, abs=1e-9)
    assert load_table(DATASET).horizon == max(steps, 50)


def test_the_environment_for_evaluation_is_played_where_one_is_declared() -> None:
    record(DATASET, gymnasium.make(PENDULUM), eval_env=gymnasium.make(PENDULUM, g=3.0, max_episode_steps=30))
    action = np.full(1, 0.4, np.float32)
    assert by_us(action) == pytest.approx(by_minari(action)[0], abs=1e-9)
    table = load_table(DATASET)
    assert table.environment == PENDULUM + ' {"g": 3.0, "max_episode_steps": 30}'
    assert "recorded in Pendulum-v1, played in its eval_env_spec" in table.note


def test_dict_observations_flattened_by_a_wrapper_are_played() -> None:
    record(DATASET, wrappers.FlattenObservation(gymnasium.make(BEACON)))
    action = np.array([0.1, 0.3], np.float32)
    assert load_table(DATASET).observation_size == 6
    assert by_us(action) == by_minari(action)[0]


def test_scores_are_normalized_where_returns_mean_the_same() -> None:
    record(DATASET, wrappers.RescaleAction(gymnasium.make(PENDULUM), -1, 1))
    plain, rescaled = environments.reference(PENDULUM), load_table(DATASET).reference
    assert plain is not None
    assert (plain.random, plain.expert) == (rescaled.random, rescaled.expert)
    declare(DATASET, max_episode_steps=50)
    assert not load_table(DATASET).reference.known
    declare(DATASET, max_episode_steps=200, additional_wrappers=[{"name": "X", "entry_point": "x:ClipReward", "kwargs": {}}])
    with pytest.raises(UserError, match="only modules that you name are imported: --import x"):
        evaluator_of(load_table(DATASET), [[0]])


def test_a_runner_with_another_time_limit_stays_on_the_fast_path() -> None:
    record(DATASET, gymnasium.make("HalfCheetah-v5", max_episode_steps=40))
    environment = load_table(DATASET).environment
    assert environment == 'HalfCheetah-v5 {"max_episode_steps": 40}'
    assert environments.runner(environment)
    assert environments.observation_names(environment, 17)
    action = np.full(6, 0.3, np.float32)
    assert by_us(action) == pytest.approx(by_minari(action)[0], rel=1e-6)


def test_a_trained_policy_is_exported_for_and_filmed_in_the_declared_environment(tmp_path: Path) -> None:
    record(DATASET, wrappers.FlattenObservation(wrappers.RescaleAction(gymnasium.make(BEACON, max_episode_steps=9), -2, 2)))
    trial = Trial(dataset=DATASET, algorithm="bc", updates=5, evaluations=1, episodes=2, hyper={"hidden": (8, 8), "batch_size": 16})
    (last,) = [report for report in run_stack(Stack((trial,)), tmp_path, execution="dense") if isinstance(report, Evaluated)]
    folder = paths.policy(tmp_path, trial.key).parent
    about = json.loads((folder / "policy.json").read_text())
    assert environments.read(about["environment"])[1] == {
        "additional_wrappers": [
            {"entry_point": "gymnasium.wrappers:RescaleAction", "kwargs": {"max_action": 2, "min_action": -2}},
            {"entry_point": "gymnasium.wrappers:FlattenObservation", "kwargs": {}},
        ],
        "max_episode_steps": 9,
    }
    pictures: list[Any] = []
    filmed = list(rollout.play(folder, trial, 2, lambda picture, rate: pictures.append(picture)))
    assert [episode.total for episode in filmed] == last.episodes[0]["returns"]
    assert [episode.steps for episode in filmed] == [9, 9]
    assert len(pictures) >= 18


@pytest.mark.parametrize(
    ("wrapper", "said"),
    [
        ({"entry_point": "gymnasium.wrappers:NormalizeObservation", "kwargs": {"epsilon": 1e-8}}, "NormalizeObservation .* statistics"),
        ({"entry_point": "gymnasium.wrappers.common:Autoreset", "kwargs": {}}, "Autoreset .* no end"),
        ({"entry_point": "gymnasium.wrappers:RescaleAction", "kwargs": None}, "RescaleAction .* not recorded"),
        ({"entry_point": "gymnasium.wrappers:RescaleAction", "kwargs": {"least": 1}}, "RescaleAction .* made with .*least"),
        ({"entry_point": "gymnasium.wrappers:NoSuchWrapper", "kwargs": {}}, "NoSuchWrapper"),
        ({"entry_point": "json:JSONDecoder", "kwargs": {}}, "json:JSONDecoder is not a gymnasium.Wrapper"),
        ({"entry_point": "gymnasium.wrappers:TimeAwareObservation", "kwargs": {}}, r"\(3, 1\) numbers, Pendulum.*TimeAware.* of \(4, 1\)"),
    ],
)
def test_what_cannot_be_made_is_refused_by_its_name(wrapper: dict[str, Any], said: str) -> None:
    record(DATASET, gymnasium.make(PENDULUM))
    declare(DATASET, additional_wrappers=[{"name": "as recorded", **wrapper}])
    with pytest.raises(UserError, match=said):
        evaluator_of(load_table(DATASET), [[0]])


LIMITED = [family for family in environments.families() if hasattr(plugins.load("environments", family), "TIME_LIMIT")]


@pytest.mark.parametrize("family", LIMITED)
def test_time_limits_are_gymnasiums(family: str) -> None:
    for name in environments.families()[family]:
        spec = environments.make(name).spec
        assert spec is not None
        assert environments.declared({"id": name, "max_episode_steps": spec.max_episode_steps}) == (name, spec.max_episode_steps)


def test_a_package_that_is_missing_is_named_with_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    record(DATASET, gymnasium.make(PENDULUM))
    declare(DATASET, id="PointMaze_UMaze-v3", entry_point="gymnasium_robotics.envs.maze.point_maze:PointMazeEnv")
    monkeypatch.setitem(sys.modules, "gymnasium_robotics", None)
    monkeypatch.delitem(gymnasium.registry, "PointMaze_UMaze-v3", raising=False)
    with pytest.raises(UserError, match=r"PointMaze_UMaze-v3' needs a package that is not installed: pip install 'winnow-rl\[robotics\]'"):
        load_table(DATASET)


def test_a_maze_of_gymnasium_robotics_is_named_by_its_package() -> None:
    import gymnasium_robotics

    gymnasium.register_envs(gymnasium_robotics)
    maze = gymnasium.make("PointMaze_UMaze-v3", continuing_task=True)
    record(DATASET, maze, episodes=1, eval_env=gymnasium.make("PointMaze_UMaze-v3", continuing_task=False, max_episode_steps=30))
    table = load_table(DATASET)
    name, settings = environments.read(table.environment)
    assert name == "gymnasium_robotics:PointMaze_UMaze-v3"
    assert {"continuing_task", "max_episode_steps", "additional_wrappers"} == settings.keys()
    assert table.observation_size == 8
    evaluator_of(table, [[0]]).close()
