"""Updates repeated from a tape are the updates, and what a tape cannot follow is not repeated."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.stacks import World, assert_same, small_trial
from trainables import plugins
from trainables.agent import Agent, Batch
from trainables.algorithms import td3_bc
from trainables.errors import UserError
from trainables.tensors.streams import BLOCK
from trainables.tensors.tape import Tape
from trainables.training.updates import COMPARE_EVERY, WARM_UP, Updates
from trainables.trial import TRAINING_CHOICES

FIRST, STOP = BLOCK - 12, BLOCK + 14  # the draws' block is filled again in between


def world(algorithm: str = "td3_bc", execution: str = "sparse", network: str = "mlp") -> World:
    trials = [small_trial(algorithm, "snip", sparsity, seed, network=network) for sparsity, seed in ((0.7, 1), (0.5, 0))]
    return World(trials, execution).start()


def repeated(updates: Updates) -> list[bool]:
    """Of each pattern of updates, whether it is repeated."""
    return [repeat is not None for repeat, _ in updates.recordings.values()]


@pytest.mark.parametrize(
    ("algorithm", "execution", "network"),
    [
        *itertools.product(plugins.names("algorithms"), ("sparse", "dense"), ("mlp",)),
        *itertools.product(("bc", "td3_bc", "iql"), ("compact", "fused"), ("mlp",)),
        *itertools.product(("bc", "td3_bc", "iql", "cql"), ("sparse", "dense"), TRAINING_CHOICES["network"][1:]),
    ],
)
def test_repeated_updates_are_the_updates(algorithm: str, execution: str, network: str) -> None:
    made, taped = world(algorithm, execution, network), world(algorithm, execution, network)
    wanted = made.train(FIRST, STOP)
    updates = Updates(taped.agent, taped.data)
    losses = updates.run(FIRST, STOP - 1) | updates.run(STOP - 1, STOP)
    assert repeated(updates) in ([True], [True, True])
    assert_same(taped.rows(), made.rows(), algorithm)
    assert taped.counts() == made.counts()
    assert_same({name: losses[name] for name in wanted[-1]}, wanted[-1], algorithm)


def test_a_schedule_is_computed_ahead_but_not_beyond_the_end() -> None:
    agent = world("iql").agent
    agent.trainings, factors = [0, 20, 40], []
    for update in (0, 10, 20, 39):
        agent.at(update)
        factors.append(float(agent.cosine()))
    assert factors == pytest.approx([1, 0.5, 1, 0.5 * (1 + math.cos(math.pi * 0.95))])


def test_a_network_that_is_built_anew_is_recorded_anew() -> None:
    made, taped = world(), world()
    updates = Updates(taped.agent, taped.data)
    for one, train in ((made, made.train), (taped, updates.run)):
        train(0, 20)
        rows, counts = one.rows(), one.counts()
        one.resume(one.masks, rows, counts)
        train(20, 40)
    assert repeated(updates) == [True, True]
    assert_same(taped.rows(), made.rows())


def test_other_use_of_the_networks_in_between_changes_nothing() -> None:
    made, taped = world(), world()
    made.train(0, 30)
    updates = Updates(taped.agent, taped.data)
    for update in range(30):
        updates.run(update, update + 1)
        observations = torch.randn(2, 77, 5, generator=torch.Generator().manual_seed(update))
        taped.agent.critic(observations, taped.agent.actor(observations)).sum().backward()
        with torch.no_grad():
            taped.agent.actor(observations)
    assert_same(taped.rows(), made.rows())


class Altered(ModuleType):
    """TD3+BC with a critic's loss that is multiplied by what `factor` returns."""

    def __init__(self, factor: Callable[[Agent, Tensor], Any]) -> None:
        super().__init__("altered")
        self.__dict__.update({name: value for name, value in vars(td3_bc).items() if name != "update"})
        self.factor = factor

    def update(self, agent: Agent, batch: Batch) -> dict[str, Tensor]:
        loss = td3_bc.critic_loss(agent, batch)
        loss = loss * self.factor(agent, batch.rewards)
        agent.minimize(critic=loss)
        return {"critic_loss": loss}


@pytest.mark.parametrize(
    ("why", "factor"),
    [
        ("aten::_local_scalar_dense", lambda agent, rewards: 1 + float(rewards.mean())),
        ("aten::equal", lambda agent, rewards: 2 if torch.equal(rewards, rewards.abs()) else 1 + rewards[0, 0] ** 2),
        ("aten::nonzero", lambda agent, rewards: 1 + rewards[:, rewards[0].nonzero().squeeze(-1)].mean()),
        ("aten::index.Tensor", lambda agent, rewards: 1 + rewards[rewards > 0].mean()),
        ("aten::masked_select", lambda agent, rewards: 1 + rewards.masked_select(rewards > 0).mean()),
        ("agent.update", lambda agent, rewards: 2 if agent.update % 10 == 0 else 1),
        ("", lambda agent, rewards: 1 + rewards.numpy()[0, 0] ** 2),  # no operation of torch: only the comparison tells
    ],
)
def test_what_would_be_frozen_is_made_anew(why: str, factor: Callable[[Agent, Tensor], Any]) -> None:
    made, taped = world(), world()
    made.algorithm = taped.algorithm = made.agent.algorithm = taped.agent.algorithm = Altered(factor)
    made.train(0, 30)
    updates = Updates(taped.agent, taped.data)
    updates.run(0, 30)
    assert repeated(updates) == [False]
    assert_same(taped.rows(), made.rows())
    tape = Tape()
    with tape:
        taped.algorithm.update(taped.agent, taped.data.draw(taped.agent.streams, 32))
    assert tape.frozen == ([why] if why else [])


ELSEWHERE: dict[str, Any] = {}  # values that are neither the algorithm's file's nor the agent's


def from_elsewhere(agent: Agent, rewards: Tensor) -> Any:
    value = ELSEWHERE["factor"]
    return value() if callable(value) else value


def test_what_changes_with_every_update_is_seen_by_the_first_comparison() -> None:
    made, taped = world(), world()
    made.algorithm = made.agent.algorithm = taped.agent.algorithm = Altered(from_elsewhere)
    ELSEWHERE["factor"] = iter(range(1, 1000)).__next__
    made.train(0, 12)
    ELSEWHERE["factor"] = iter(range(1, 1000)).__next__
    updates = Updates(taped.agent, taped.data)
    updates.run(0, WARM_UP + 1)
    ELSEWHERE["factor"] = iter(range(WARM_UP + 2, 1000)).__next__
    updates.run(WARM_UP + 1, 12)
    assert repeated(updates) == [False]
    assert_same(taped.rows(), made.rows())


def test_what_changes_later_is_an_error_before_anything_of_it_is_told() -> None:
    taped = world()
    taped.agent.algorithm = Altered(from_elsewhere)
    updates = Updates(taped.agent, taped.data)
    ELSEWHERE["factor"] = 1.0
    updates.run(0, COMPARE_EVERY)
    updates.run(COMPARE_EVERY, 2 * COMPARE_EVERY)
    ELSEWHERE["factor"] = 2.0
    with pytest.raises(UserError, match=r"algorithm 'td3_bc' does something else in update 1199 .*; ask agent.every"):
        updates.run(2 * COMPARE_EVERY, 3 * COMPARE_EVERY)


def test_each_pattern_of_updates_is_compared_again(monkeypatch: pytest.MonkeyPatch) -> None:
    taped = world()
    updates = Updates(taped.agent, taped.data)
    compared: list[int] = []
    plain = updates._compared
    monkeypatch.setattr(updates, "_compared", lambda *given: (compared.append(taped.agent.update), plain(*given))[1])
    updates.run(0, COMPARE_EVERY - 1)
    updates.run(COMPARE_EVERY - 1, COMPARE_EVERY + 5)
    assert compared == [9, 10, COMPARE_EVERY + 3, COMPARE_EVERY + 4]
    assert repeated(updates) == [True, True]


def counted() -> Callable[[Agent, Tensor], Any]:
    """1 in the first 20 calls, then 100: by a counter in a closure."""
    calls = [0]

    def factor(agent: Agent, rewards: Tensor) -> float:
        calls[0] += 1
        return 1.0 if calls[0] <= 20 else 100.0

    return factor


def counted_on_the_agent(agent: Agent, rewards: Tensor) -> float:
    agent.calls = agent.__dict__.get("calls", 0) + 1
    return 1.0 if agent.calls <= 20 else 100.0


def counted_in_the_file(agent: Agent, rewards: Tensor) -> float:
    module = agent.algorithm
    module.calls = module.__dict__.get("calls", 0) + 1
    return 1.0 if module.calls <= 20 else 100.0


def another_tensor(agent: Agent, rewards: Tensor) -> Tensor:
    agent.hyper.alpha = agent.hyper.alpha * 0.9
    return agent.hyper.alpha.mean()


def grown_in_a_tensor(agent: Agent, rewards: Tensor) -> Tensor:
    if "grown" not in vars(agent):
        agent.grown = torch.ones(1)
    return agent.grown.mul_(1.01).clone()


KEPT = (counted_on_the_agent, counted_in_the_file, another_tensor, grown_in_a_tensor)


@pytest.mark.parametrize(
    "factor", [counted, *(lambda kept=kept: kept for kept in KEPT)], ids=["closure", *(kept.__name__ for kept in KEPT)]
)
def test_what_an_algorithm_keeps_of_its_own_is_made_anew(factor: Callable[[], Callable[[Agent, Tensor], Any]]) -> None:
    made, taped = world(), world()
    for each in (made, taped):
        each.algorithm = each.agent.algorithm = Altered(factor())
    made.train(0, 40)
    updates = Updates(taped.agent, taped.data)
    updates.run(0, 40)
    assert repeated(updates) == [False]
    assert_same(taped.rows(), made.rows())


def test_trusted_updates_in_a_row_are_one_call(monkeypatch: pytest.MonkeyPatch) -> None:
    made, taped = world(), world()
    made.train(0, BLOCK + 20)
    updates = Updates(taped.agent, taped.data)
    updates.run(0, 20)
    asked: list[int] = []
    at = taped.agent.at
    monkeypatch.setattr(taped.agent, "at", lambda update: (asked.append(update), at(update))[1])
    losses = updates.run(20, BLOCK + 20)
    assert asked == [20, BLOCK - 1, BLOCK, BLOCK + 19], "Python sets the first and the last update of those whose draws are there"
    assert losses.keys() == {"critic_loss", "actor_loss"}
    assert_same(taped.rows(), made.rows())
    assert taped.counts() == made.counts()


def test_updates_in_a_row_end_after_the_one_in_which_leaving_is_asked() -> None:
    taped = world()
    updates = Updates(taped.agent, taped.data)
    updates.run(0, 21)
    assert updates.cycle
    updates.leave.asked = True
    assert updates.cycle.run(21, 40)[0] == 22
    updates.leave.asked = False
    assert updates.cycle.run(22, 40)[0] == 40


def test_two_threads_record_each_their_own() -> None:
    made, taped, other = world(), world(), world("iql")
    made.train(0, 20)
    updates = Updates(taped.agent, taped.data)
    updates.run(0, WARM_UP)
    tape = Tape()
    with tape, ThreadPoolExecutor(1) as pool:
        pool.submit(Updates(other.agent, other.data).run, 0, 12).result()
    assert not tape.calls
    updates.run(WARM_UP, 20)
    assert_same(taped.rows(), made.rows())


def test_indexing_by_numbers_is_repeated() -> None:
    taped = world()
    taped.agent.algorithm = Altered(lambda agent, rewards: 1 + rewards[:, torch.arange(3)].mean())
    updates = Updates(taped.agent, taped.data)
    updates.run(0, 12)
    assert repeated(updates) == [True]
