from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
import numpy.typing as npt
import pytest

from trainables.errors import UserError
from trainables.simulation.evaluator import Evaluator

Array = npt.NDArray[Any]


def weights(members: int) -> Array:
    """[K, O, A] for Hopper, another linear policy for each member."""
    return np.random.default_rng(0).normal(size=(members, 11, 3)).astype(np.float32)


def linear(w: Array) -> Any:
    """Each episode by itself, so that rounding cannot depend on the batch."""

    def act(observations: Array) -> Array:
        return np.array([[np.tanh(o @ w[k]) for o in observations[k]] for k in range(len(w))])

    return act


def by_the_book(environment: str, seed: int, policy: Any) -> tuple[float, int]:
    """One episode through gymnasium's own wrappers: return and length."""
    env = gymnasium.make(environment)
    observation, _ = env.reset(seed=seed)
    total, steps, over = 0.0, 0, False
    while not over:
        observation, reward, terminated, truncated, _ = env.step(policy(np.asarray(observation, np.float32)))
        total, steps, over = total + float(reward), steps + 1, terminated or truncated
    env.close()
    return total, steps


def test_returns_equal_gymnasiums_own_loop_including_the_last_reward() -> None:
    w = weights(2)
    seeds = [[1, 2, 3], [4, 5, 6]]
    found = Evaluator("Hopper-v5", seeds).run(linear(w))
    expected = [[by_the_book("Hopper-v5", seed, lambda o, k=k: np.tanh(o @ w[k]))[0] for seed in seeds[k]] for k in range(2)]
    assert found.dtype == np.float64
    np.testing.assert_array_equal(found, expected)


def test_the_time_limit_is_kept_and_its_last_reward_counts() -> None:
    calls = 0

    def act(observations: Array) -> Array:
        nonlocal calls
        calls += 1
        return np.zeros((1, 1, 1), np.float32)

    found = Evaluator("Pendulum-v1", [[7]]).run(act)
    total, steps = by_the_book("Pendulum-v1", 7, lambda o: np.zeros(1, np.float32))
    assert calls == steps == 200
    assert found[0, 0] == total


def test_a_run_repeats_itself_and_reuses_the_environments() -> None:
    evaluator = Evaluator("Hopper-v5", [[0, 1]])
    first = evaluator.run(linear(weights(1)))
    other = evaluator.run(lambda o: np.ones((1, 2, 3), np.float32))  # leaves the environments in another state
    assert (first != other).all()
    np.testing.assert_array_equal(evaluator.run(linear(weights(1))), first)


def test_other_seeds_are_other_episodes_once() -> None:
    evaluator = Evaluator("Hopper-v5", [[0, 1]])
    own = evaluator.run(linear(weights(1)))
    np.testing.assert_array_equal(evaluator.run(linear(weights(1)), [[5, 6]]), Evaluator("Hopper-v5", [[5, 6]]).run(linear(weights(1))))
    np.testing.assert_array_equal(evaluator.run(linear(weights(1))), own)


def test_an_episode_does_not_depend_on_the_others() -> None:
    w = weights(3)
    together = Evaluator("Hopper-v5", [[10, 11], [20, 21], [30, 31]]).run(linear(w))
    for k in range(3):
        np.testing.assert_array_equal(Evaluator("Hopper-v5", [[10 * k + 10, 10 * k + 11]]).run(linear(w[k : k + 1]))[0], together[k])
    np.testing.assert_array_equal(Evaluator("Hopper-v5", [[21]]).run(linear(w[1:2]))[0, 0], together[1, 1])


def test_the_batch_keeps_its_shape_when_episodes_end() -> None:
    shapes, frozen = set(), []

    def act(observations: Array) -> Array:
        shapes.add((observations.shape, observations.dtype))
        frozen.append(observations.copy())
        actions = np.zeros((1, 2, 3))
        actions[0, 1] = 1.0  # falls at another time than the first
        return actions

    Evaluator("Hopper-v5", [[0, 0]]).run(act)
    assert shapes == {((1, 2, 11), np.dtype(np.float32))}
    lengths = [by_the_book("Hopper-v5", 0, lambda o, a=a: np.full(3, a, np.float32))[1] for a in (0.0, 1.0)]
    assert lengths[0] != lengths[1]
    assert len(frozen) == max(lengths)
    ended = int(np.argmin(lengths))
    np.testing.assert_array_equal(frozen[-1][0, ended], frozen[min(lengths)][0, ended])


def test_actions_are_clipped_to_the_box() -> None:
    evaluator = Evaluator("Hopper-v5", [[3]])
    np.testing.assert_array_equal(
        evaluator.run(lambda o: np.full((1, 1, 3), 9.0)),
        evaluator.run(lambda o: np.full((1, 1, 3), 1.0)),
    )


def test_a_diverged_member_gets_nan_and_disturbs_no_other(capfd: pytest.CaptureFixture[str]) -> None:
    w = weights(2)
    alone = Evaluator("Hopper-v5", [[5, 6]]).run(linear(w[1:]))
    calls = 0

    def act(observations: Array) -> Array:
        nonlocal calls
        calls += 1
        actions = linear(w)(observations)
        if calls > 2:
            actions[0] = np.nan
        return actions

    found = Evaluator("Hopper-v5", [[1, 2], [5, 6]]).run(act)
    assert np.isnan(found[0]).all()
    np.testing.assert_array_equal(found[1], alone[0])
    assert capfd.readouterr() == ("", "")


def test_a_finished_episode_keeps_its_return_when_its_member_diverges_later() -> None:
    evaluator = Evaluator("Hopper-v5", [[0], [0]])
    short = by_the_book("Hopper-v5", 0, lambda o: np.ones(3, np.float32))
    calls = 0

    def act(observations: Array) -> Array:
        nonlocal calls
        calls += 1
        actions = np.zeros((2, 1, 3), np.float32)
        actions[0] = np.nan if calls > short[1] else 1.0
        return actions

    assert evaluator.run(act)[0, 0] == short[0]


@pytest.mark.parametrize(
    ("environment", "seeds", "said"),
    [
        ("CartPole-v1", [[0]], "flat boxes"),
        ("Hopper-v5", [], "K rows"),
        ("Hopper-v5", [[0, 1], [2]], "K rows"),
        ("Hoper-v5", [[0]], "Hopper-v5"),
    ],
)
def test_what_cannot_be_evaluated_is_said(environment: str, seeds: list[list[int]], said: str) -> None:
    with pytest.raises(UserError, match=said):
        Evaluator(environment, seeds)
