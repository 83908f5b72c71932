"""Dict observations: one flattening in the table, evaluation, the files of a trial, and rollouts."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces
from gymnasium.wrappers import FlattenObservation

from service.storage import paths
from tests.trainables.datasets.cases import BEACON, record, seek
from trainables import environments
from trainables.datasets import local
from trainables.datasets.table import load_table, names_of
from trainables.datasets.table_evaluator import evaluator_of
from trainables.errors import UserError
from trainables.evaluation import rollout
from trainables.policy.policy import load_policy
from trainables.reports import Evaluated
from trainables.run import run_stack
from trainables.trial import Stack, Trial

DATASET = "test/dict/small-v0"
NAMES = tuple(f"{part} {index}" for part in ("achieved_goal", "desired_goal", "observation") for index in (0, 1))


@pytest.fixture(autouse=True)
def fresh(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "minari"))


@pytest.mark.parametrize("data_format", ["hdf5", "arrow", "parquet"])
def test_rows_are_those_of_gymnasiums_flattening(data_format: str) -> None:
    record(DATASET, gymnasium.make(BEACON), data_format=data_format)
    record("test/dict/flat-v0", FlattenObservation(gymnasium.make(BEACON)))
    table, flat = load_table(DATASET), load_table("test/dict/flat-v0")
    np.testing.assert_array_equal(table.rows, flat.rows)
    assert table.environment == flat.environment
    assert table.hash == flat.hash
    assert table.observation_names == NAMES
    assert names_of(table)[:6] == list(NAMES)
    assert np.ptp(table.rows[:12, 2]) == np.ptp(table.rows[:12, 3]) == 0, "a beacon stands still in an episode"
    np.testing.assert_allclose(table.rows[:, 0], table.rows[:, 4] + 10, rtol=1e-6)
    evaluator_of(table, [[0]]).close()


def test_a_trial_is_trained_evaluated_exported_and_filmed(tmp_path: Path) -> None:
    record(DATASET, gymnasium.make(BEACON), seek, episodes=30)
    trial = Trial(dataset=DATASET, algorithm="bc", updates=300, evaluations=1, episodes=4, hyper={"hidden": (32, 32), "batch_size": 64})
    (last,) = [report for report in run_stack(Stack((trial,)), tmp_path, execution="dense") if isinstance(report, Evaluated)]
    folder = paths.policy(tmp_path, trial.key).parent
    pictures: list[Any] = []
    filmed = list(rollout.play(folder, trial, 4, lambda picture, rate: pictures.append(picture)))
    assert [episode.total for episode in filmed] == last.episodes[0]["returns"]
    assert len(pictures) == 4 * 12

    exported = load_policy(folder)
    environment = environments.make(exported.about["environment"])
    observation, _ = environment.reset(seed=1)
    assert exported(observation).shape == (2,)
    assert np.abs(exported(observation) - np.clip(5 * (observation[2:4] - observation[4:6]), -1, 1)).max() < 0.8


class Ordered(gymnasium.Env[Any, Any]):
    """A Dict within a Dict, in an order of its own, with a Box of two dimensions."""

    order = ("z", "a")

    def __init__(self) -> None:
        inner = spaces.Dict({"right": spaces.Box(-1, 1, (1,)), "left": spaces.Box(-1, 1, (2, 2))})
        parts = {"z": spaces.Box(-1, 1, (1,)), "a": inner}
        self.observation_space = spaces.Dict([(name, parts[name]) for name in self.order])
        self.action_space = spaces.Box(-1, 1, (1,), np.float32)

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        super().reset(seed=seed)
        self.observation_space.seed(seed)
        return self.observation_space.sample(), {}

    def step(self, action: Any) -> Any:
        return self.observation_space.sample(), 0.0, False, False, {}


def test_the_order_is_the_spaces_own(monkeypatch: pytest.MonkeyPatch) -> None:
    spec = gymnasium.envs.registration.EnvSpec("Ordered-v0", entry_point=f"{__name__}:Ordered", max_episode_steps=5)
    monkeypatch.setitem(gymnasium.registry, "Ordered-v0", spec)
    record(DATASET, gymnasium.make("Ordered-v0"))
    record("test/dict/flat-v0", FlattenObservation(gymnasium.make("Ordered-v0")))
    table = load_table(DATASET)
    assert table.observation_names == ("z 0", *(f"a.left {index}" for index in range(4)), "a.right 0")
    np.testing.assert_array_equal(table.rows, load_table("test/dict/flat-v0").rows)
    evaluator_of(table, [[0]]).close()
    monkeypatch.setattr(Ordered, "order", ("a", "z"))
    with pytest.raises(UserError, match="the same order is wanted"):
        evaluator_of(table, [[0]])


def test_parts_in_another_order_are_another_table() -> None:
    """Whoever corrects the order in metadata.json gets the columns that its environment shows, not those of the prepared table."""
    record(DATASET, gymnasium.make(BEACON))
    first = load_table(DATASET)
    path = local.folder(DATASET) / "data" / "metadata.json"
    metadata = json.loads(path.read_text())
    space = json.loads(metadata["observation_space"])
    space["subspaces"] = dict(reversed(space["subspaces"].items()))
    path.write_text(json.dumps(metadata | {"observation_space": json.dumps(space)}))
    second = load_table(DATASET)
    assert second.observation_names != first.observation_names
    moved = [first.observation_names.index(name) for name in second.observation_names]
    np.testing.assert_array_equal(second.rows[:, : second.observation_size], first.rows[:, moved])
    assert second.hash != first.hash


def test_what_cannot_be_flattened_is_named() -> None:
    record(DATASET, gymnasium.make(BEACON))
    path = local.folder(DATASET) / "data" / "metadata.json"
    metadata = json.loads(path.read_text())
    space = json.loads(metadata["observation_space"])
    space["subspaces"]["desired_goal"] = {"type": "Discrete", "n": 3, "start": 0}
    path.write_text(json.dumps(metadata | {"observation_space": json.dumps(space)}))
    with pytest.raises(UserError, match="desired_goal of its observation space is Discrete; only Boxes can be flattened"):
        load_table(DATASET)


def test_spaces_that_the_metadata_leave_out_are_the_environments() -> None:
    record(DATASET, gymnasium.make(BEACON))
    before = load_table(DATASET)
    path = local.folder(DATASET) / "data" / "metadata.json"
    path.write_text(json.dumps({name: value for name, value in json.loads(path.read_text()).items() if not name.endswith("_space")}))
    assert load_table(DATASET).observation_names == before.observation_names
