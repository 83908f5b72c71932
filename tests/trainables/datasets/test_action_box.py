"""Actions outside the box, boxes wider than the environment's, and episodes too short for next actions."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium.wrappers import RescaleAction

from tests.trainables.datasets.cases import record
from trainables.datasets.__main__ import main
from trainables.datasets.table import load_table
from trainables.datasets.table_evaluator import evaluator_of
from trainables.errors import UserError
from trainables.run import run_stack
from trainables.trial import Stack, Trial

DATASET = "test/box/small-v0"
BOX = gymnasium.spaces.Box(-2, 2, (1,), np.float32)


@pytest.fixture(autouse=True)
def fresh(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "minari"))


def pendulum() -> Any:
    return gymnasium.make("Pendulum-v1")


def test_actions_outside_the_box_are_counted(capsys: pytest.CaptureFixture[str]) -> None:
    draws = np.random.default_rng(0)
    record(DATASET, pendulum(), lambda seen: draws.uniform(-4, 4, 1).astype(np.float32))
    actions = load_table(DATASET).rows[:, 3]
    count = int((abs(actions) > 2.001).sum())
    assert 200 < count < 400
    said = f"{count} of 600 actions lie outside the action box [-2.0] to [2.0], by up to {abs(actions).max() - 2:.3g}: a policy"
    assert load_table(DATASET).note == f"{said} cannot take them"
    assert main(["check", DATASET]) == 0
    assert f"{count} of 600 actions" in capsys.readouterr().out


def test_how_far_the_furthest_of_all_dimensions_lies_outside_is_told() -> None:
    narrow = gymnasium.spaces.Box(np.float32([-1, -0.5]), np.float32([1, 0.5]))
    record(DATASET, gymnasium.make("Reacher-v5"), lambda seen: np.float32([0.25, 0.75]), action_space=narrow)
    assert "by up to 0.25: a policy cannot take them" in load_table(DATASET).note


def test_rounding_is_not_counted() -> None:
    record(DATASET, pendulum(), lambda seen: np.float32([2.0005]))
    assert load_table(DATASET).note == ""


def test_a_box_wider_than_the_environments_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    record(DATASET, pendulum(), action_space=gymnasium.spaces.Box(-10, 10, (1,), np.float32))
    with pytest.raises(
        UserError, match=r"action box \[-10.0\] to \[10.0\] is wider than that of Pendulum-v1, \[-2.0\] to \[2.0\], in 1 of 1"
    ):
        evaluator_of(load_table(DATASET), [[0]])
    assert main(["check", DATASET]) == 2
    assert "wider" in capsys.readouterr().err


@pytest.mark.parametrize(("low", "high"), [(-10, 2), (-2, 10)])
def test_a_box_that_is_wider_on_one_side_is_refused(low: float, high: float) -> None:
    record(DATASET, pendulum(), action_space=gymnasium.spaces.Box(low, high, (1,), np.float32))
    with pytest.raises(UserError, match="is wider than that of Pendulum-v1"):
        evaluator_of(load_table(DATASET), [[0]])


def test_a_wider_box_through_a_wrapper_and_a_narrower_one_are_right() -> None:
    record(DATASET, RescaleAction(pendulum(), -10, 10))
    evaluator_of(load_table(DATASET), [[0]]).close()
    record(
        "test/box/narrow-v0", pendulum(), lambda seen: np.zeros(1, np.float32), action_space=gymnasium.spaces.Box(-1, 1, (1,), np.float32)
    )
    evaluator_of(load_table("test/box/narrow-v0"), [[0]]).close()


def test_algorithms_that_need_next_actions_say_so_on_episodes_of_one_step() -> None:
    record(DATASET, pendulum(), limit=1, episodes=40)
    small = {"hidden": (8, 8), "batch_size": 16}
    given = {"dataset": DATASET, "updates": 2, "evaluations": 1, "episodes": 1, "hyper": small}
    with pytest.raises(UserError, match=r"none of its 40 transitions has a next action.*algorithms that need none: .*iql.*td3_bc"):
        list(run_stack(Stack((Trial(algorithm="rebrac", **given),))))
    assert list(run_stack(Stack((Trial(algorithm="td3_bc", **given),))))


def test_discrete_actions_are_refused_with_the_reason() -> None:
    record(DATASET, gymnasium.make("CartPole-v1"))
    with pytest.raises(UserError, match=r"its actions are discrete \(Discrete\), and all algorithms here .* continuous actions"):
        load_table(DATASET)
