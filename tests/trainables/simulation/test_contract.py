"""Environments as people write them: each works, or what is wrong is one line with the call and what was wanted."""

from __future__ import annotations

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any, ClassVar

import gymnasium
import numpy as np
import pytest

from trainables import environments
from trainables.datasets.table_evaluator import check_playable
from trainables.errors import UserError
from trainables.evaluation.rollout import picture
from trainables.simulation.evaluator import Evaluator

NAME = "WinnowTest-v0"
START = np.array([0.5, -0.5], np.float32)


class Plain(gymnasium.Env):  # type: ignore[misc]
    """Neither `__init__` nor `render_mode` nor metadata."""

    observation_space: ClassVar[Any] = gymnasium.spaces.Box(-1, 1, (2,), np.float32)
    action_space: ClassVar[Any] = gymnasium.spaces.Box(-1, 1, (1,), np.float32)

    def reset(self, *, seed: Any = None, options: Any = None) -> Any:
        return START, {}

    def step(self, action: Any) -> Any:
        return START, 1.0, False, False, {}


def variant(**members: Any) -> type[Plain]:
    return type("Variant", (Plain,), members)


def raises(self: Any, *arguments: Any, **more: Any) -> Any:
    raise KeyError("goal")


def with_arguments(self: Any, size: int, goal: str) -> None:
    pass


@pytest.fixture
def register() -> Iterator[Any]:
    def known(kind: Any, **more: Any) -> str:
        gymnasium.register(NAME, entry_point=kind, max_episode_steps=5, **more)
        return NAME

    yield known
    gymnasium.registry.pop(NAME, None)


def play(name: str) -> Any:
    evaluator = Evaluator(name, [[0, 1]])
    try:
        return evaluator.play(lambda seen: np.zeros((*seen.shape[:2], 1), np.float32))
    finally:
        evaluator.close()


WORKS = {
    "plain": {},
    "reset without options": {"reset": lambda self, seed=None: (START, {})},
    "reset with any keywords": {"reset": lambda self, **more: (START, {})},
    "observations as lists": {"reset": lambda self, **more: ([0.5, -0.5], {}), "step": lambda self, a: ([0.5, -0.5], 1, 0, 0, {})},
    "a reward of numpy's": {"step": lambda self, a: (START, np.float64(1.0), np.bool_(False), np.bool_(False), {})},
    "float64 spaces": {"observation_space": gymnasium.spaces.Box(-1, 1, (2,), np.float64)},
}


@pytest.mark.parametrize("case", sorted(WORKS))
def test_what_a_class_may_leave_out(case: str, register: Any) -> None:
    register(variant(**WORKS[case]))
    table = _dataset()
    assert check_playable(table) == []
    assert play(NAME)["returns"].tolist() == [[5.0, 5.0]]


def _dataset() -> Any:
    low, high = np.array([-1.0], np.float32), np.array([1.0], np.float32)
    sizes = {"observation_size": 2, "action_size": 1, "observation_names": ()}
    return SimpleNamespace(dataset="mine/task-v0", environment=NAME, action_low=low, action_high=high, **sizes)


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "an old reset": ({"reset": lambda self, **more: START}, "its reset returned [0.5, -0.5], not (observation, info)"),
    "a reset without a seed": (
        {"reset": lambda self: (START, {})},
        "its reset raised TypeError: <lambda>() got an unexpected keyword argument 'seed'",
    ),
    "an old step": (
        {"step": lambda self, a: (START, 1.0, False, {})},
        "its step returned 4 values, not (observation, reward, terminated, truncated, info)",
    ),
    "a step of nothing": ({"step": lambda self, a: None}, "its step returned None, not (observation, reward,"),
    "a larger observation": (
        {"reset": lambda self, **more: (np.zeros(3), {})},
        "its reset returned the observation [0.0, 0.0, 0.0], not one of 2 numbers, as its observation_space says",
    ),
    "one number": ({"reset": lambda self, **more: (0.5, {})}, "its reset returned the observation 0.5, not one of 2 numbers"),
    "one number later": ({"step": lambda self, a: (0.5, 1.0, False, False, {})}, "its step returned the observation 0.5, not one of 2"),
    "a reward of two": (
        {"step": lambda self, a: (START, np.ones(2), False, False, {})},
        "its step returned the reward [1.0, 1.0], not a number",
    ),
    "no reward": ({"step": lambda self, a: (START, None, False, False, {})}, "its step returned the reward None, not a number"),
    "no info": ({"step": lambda self, a: (START, 1.0, False, False, None)}, "its step returned the info None, not a dict"),
    "nan": (
        {"step": lambda self, a: (START, float("nan"), False, False, {})},
        "its step returned numbers that are not finite: [0.5, -0.5, nan]",
    ),
    "code that raises": ({"step": raises}, "its step raised KeyError: 'goal' (test_contract.py, line "),
    "a close that raises": ({"close": raises}, "its close raised KeyError: 'goal' (test_contract.py, line "),
    "no space": ({"action_space": property(raises)}, "its observation_space or action_space raised KeyError: 'goal'"),
    "arguments that nobody gives": ({"__init__": with_arguments}, "missing 2 required positional arguments: 'size' and 'goal'"),
}


@pytest.mark.parametrize("case", sorted(REFUSED))
def test_what_is_wrong_is_one_line(case: str, register: Any) -> None:
    members, says = REFUSED[case]
    register(variant(**members))
    with pytest.raises(UserError) as told:
        check_playable(_dataset())
    assert says in str(told.value)
    assert str(told.value).startswith("dataset 'mine/task-v0': environment 'WinnowTest-v0'")
    assert "\n" not in str(told.value)


def test_a_class_that_is_no_environment_is_one_line(register: Any) -> None:
    register(type("Bare", (), {}))
    with pytest.raises(UserError, match=r"environment 'WinnowTest-v0' cannot be made: .*Env") as told:
        check_playable(_dataset())
    assert "\n" not in str(told.value)


def test_an_error_in_the_middle_of_an_episode_names_the_line_of_the_users_code(register: Any) -> None:
    def step(self: Any, action: Any) -> Any:
        self.steps = getattr(self, "steps", 0) + 1
        return (START, 1.0, False, False, {}) if self.steps < 3 else [][0]

    register(variant(step=step))
    assert check_playable(_dataset()) == []
    with pytest.raises(UserError, match=r"its step raised IndexError: list index out of range \(test_contract.py, line \d+\)$"):
        play(NAME)


def test_an_error_of_the_machine_stays_what_it_is(register: Any) -> None:
    """So that work that failed for it is tried again."""

    def step(self: Any, action: Any) -> Any:
        raise MemoryError

    register(variant(step=step))
    with pytest.raises(MemoryError):
        play(NAME)


def test_a_reset_that_does_not_take_its_seed_is_noted(register: Any) -> None:
    random = np.random.default_rng()
    register(variant(reset=lambda self, **more: (random.uniform(-1, 1, 2), {})))
    (note,) = check_playable(_dataset())
    assert note.startswith("WinnowTest-v0 begins other episodes at the same seed")


def test_a_class_without_render_mode_is_drawn_if_it_draws(register: Any) -> None:
    register(variant(render=lambda self: np.zeros((4, 6, 3), np.uint8)))
    env = environments.make(NAME, drawn=True)
    env.reset()
    assert picture(env, NAME).shape == (4, 6, 3)
    gymnasium.registry.pop(NAME)
    register(Plain)
    env = environments.make(NAME, drawn=True)
    env.reset()
    with pytest.raises(UserError, match=r"environment 'WinnowTest-v0' cannot be drawn here \(NotImplementedError\)"):
        picture(env, NAME)
