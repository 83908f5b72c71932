from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from tests.stacks import World, assert_same, made_up_table, member_of, small_trial
from trainables import plugins
from trainables.datasets.minibatches import Minibatches, followed, minibatches_of, reward_span, span_factor
from trainables.datasets.table import Table
from trainables.errors import UserError
from trainables.tensors.streams import Streams
from trainables.trial import Stack


@pytest.mark.parametrize("normalize", [True, False])
def test_a_minibatch_is_rows_of_the_table_normalized_and_scaled(normalize: bool) -> None:
    low, high = np.array([-2, 0], np.float32), np.array([2, 3], np.float32)  # bounds need not lie around 0
    table = replace(made_up_table(), action_low=low, action_high=high)
    streams = Streams([3, 4])
    streams.update = 77
    batch = Minibatches(table, normalize).draw(streams, 64)
    index = streams.integers("minibatch", 64, len(table)).numpy()
    for member in range(2):
        rows = np.asarray(table.rows, np.float64)[index[member]]
        s, a, r, s2, t = np.split(rows, [5, 7, 8, 13], axis=1)
        mean, std = (np.asarray(v, np.float64) for v in (table.mean, table.std))
        if normalize:
            s, s2 = ((v - mean) / (std + 1e-3) for v in (s, s2))
        a = 2 * (a - low) / (high - low) - 1
        wanted = {"observations": s, "actions": a, "rewards": r[:, 0], "next_observations": s2, "terminals": t[:, 0]}
        for name, values in wanted.items():
            np.testing.assert_allclose(getattr(batch, name)[member], values, rtol=1e-5, atol=1e-5, err_msg=name)
    assert set(batch.terminals.unique().tolist()) == {0.0, 1.0}


@pytest.mark.parametrize(("algorithm", "hyper"), [("iql", {}), ("td3_bc", {"n_step": 3}), ("cal_ql", {})])
def test_a_shift_and_a_scale_of_rewards_are_those_of_a_table_with_other_rewards(algorithm: str, hyper: dict[str, Any]) -> None:
    """In one-step and n-step targets, and in returns."""
    table = several_episodes()
    place = table.observation_size + table.action_size
    other = np.array(table.rows)
    other[:, place] = 0.5 * other[:, place] - 1
    module = plugins.load("algorithms", algorithm)
    given = small_trial(algorithm, hyper=hyper)
    changed = replace(given, reward_shift=-1, reward_scale=0.5)
    assert changed.key != given.key
    assert "reward_shift=-1:reward_scale=0.5" in changed.name
    batches = [
        minibatches_of(module, Stack((trial,)), own).draw(Streams([0]), 32)
        for trial, own in ((changed, table), (given, replace(table, rows=other)))
    ]
    compared = 0
    for name in ("rewards", "rewards_ahead", "observations", "terminals"):
        ours, theirs = (getattr(batch, name) for batch in batches)
        if ours is not None:
            torch.testing.assert_close(ours, theirs)
            compared += 1
    assert compared == (4 if hyper else 3)
    if algorithm == "cal_ql":
        discount = torch.tensor([[given.hyper_values()["discount"]]], dtype=torch.float32)
        ours, theirs = (batch.returns(discount) for batch in batches)
        torch.testing.assert_close(ours, theirs)


def test_rewards_at_their_defaults_are_left_out_and_bad_ones_refused() -> None:
    plain = small_trial("iql")
    assert replace(plain, reward_shift=0, reward_scale=1).key == plain.key
    assert not {"reward_shift", "reward_scale"} & plain.to_json().keys()
    assert replace(plain, reward_shift=-1).to_json()["reward_shift"] == -1
    assert replace(plain, reward_shift=-1).key == replace(plain, reward_shift=-1.0).key
    for name, value in (("reward_scale", 0), ("reward_scale", -1.0), ("reward_shift", np.inf), ("reward_shift", "1")):
        with pytest.raises(UserError, match=name):
            replace(plain, **{name: value})


def test_members_with_one_seed_see_the_same_transitions_and_others_do_not() -> None:
    batch = Minibatches(made_up_table(), True).draw(Streams([3, 3, 4]), 64)
    assert torch.equal(batch.observations[0], batch.observations[1])
    assert not torch.equal(batch.observations[0], batch.observations[2])


@pytest.mark.parametrize("ends", [0.0, 1.0], ids=["cut off", "ended"])
def test_episodes_of_one_step_have_no_next_action(ends: float) -> None:
    """Unless the environment ended them: then there is nothing to act on, and none is needed."""
    table = made_up_table()
    rows = table.rows.copy()
    rows[:, -1] = ends
    table = replace(table, rows=rows, episode_lengths=np.ones(len(rows), np.int64))
    assert Minibatches(table, True).draw(Streams([0]), 4).next_actions is None
    if ends:
        assert Minibatches(table, True, next_actions=True).draw(Streams([0]), 4).next_actions is not None
        return
    with pytest.raises(UserError, match=r"^dataset 'test/made-up-v0': none of its 500 transitions has .*: awac, bc, ") as caught:
        Minibatches(table, True, next_actions=True)
    assert "rebrac" not in str(caught.value)


def test_a_cut_off_episode_counts_as_ended_where_it_is_asked_for() -> None:
    table = replace(made_up_table(), episode_lengths=np.full(5, 100))
    streams = Streams([3])
    index = streams.integers("minibatch", 256, len(table))[0]
    plain, ended = Minibatches(table, True).draw(streams, 256), Minibatches(table, True, timeouts="terminal").draw(streams, 256)
    last = (index + 1) % 100 == 0
    assert 0 < int(last.sum()) < 256
    assert torch.equal(ended.terminals[0], torch.maximum(plain.terminals[0], last.float()))
    assert torch.equal(ended.observations, plain.observations)


def test_the_last_transition_of_a_cut_off_episode_is_drawn_where_it_needs_no_next_action() -> None:
    table = replace(made_up_table(), episode_lengths=np.full(5, 100))
    table.rows[:, -1] = 0
    last = torch.from_numpy(np.array(table.rows[99::100, : table.observation_size]))
    for timeouts, drawn in (("bootstrap", False), ("terminal", True)):
        data = Minibatches(table, False, next_actions=True, timeouts=timeouts)
        batch = data.draw(Streams([3]), 512)
        found = (batch.observations[0].unsqueeze(1) == last).all(-1).any(1)
        assert bool(found.any()) == drawn
        assert torch.equal(batch.terminals[0], found.float())
        assert batch.next_actions is not None


def test_returns_are_discounted_to_the_end_of_the_episode_or_a_terminal_with_each_members_discount() -> None:
    table = replace(made_up_table(), episode_lengths=np.array([1, 70, 129, 300]))
    streams, discounts = Streams([3, 4, 5]), (0.99, 0.5, 0.99)
    last, rewards, terminals = np.cumsum(table.episode_lengths) - 1, table.rows[:, 7], table.rows[:, -1]
    batch = Minibatches(table, True, discounts=discounts).draw(streams, 64)
    assert batch.returns is not None
    found = batch.returns(torch.tensor(discounts).unsqueeze(1))
    index = streams.integers("minibatch", 64, len(table)).numpy()
    for member, discount in enumerate(discounts):
        for column, row in enumerate(index[member]):
            wanted, factor = 0.0, 1.0
            while True:
                wanted += factor * float(rewards[row])
                if terminals[row] or row in last:
                    break
                row, factor = row + 1, factor * discount
            assert float(found[member, column]) == pytest.approx(wanted, rel=1e-5, abs=1e-6)
    assert Minibatches(table, True).draw(streams, 64).returns is None


def test_rewards_are_scaled_so_that_returns_span_as_much_as_is_asked_for() -> None:
    table = several_episodes()
    returns = [float(part.sum()) for part in np.split(table.rows[:, 7].astype(np.float64), np.cumsum(table.episode_lengths)[:-1])]
    table = replace(table, episode_returns=np.array(returns, np.float32))
    factor = 1000 / (max(returns) - min(returns))
    for n in (1, 3):
        trials = (replace(small_trial(name, hyper={"n_step": n}), dataset="test/hopper/made-up-v0") for name in ("xql", "iql"))
        scaled, plain = (World([trial], table=table) for trial in trials)
        found, wanted = (world.data.draw(world.agent.streams, 64) for world in (scaled, plain))
        torch.testing.assert_close(found.rewards, factor * wanted.rewards)
        if n > 1:
            torch.testing.assert_close(found.rewards_ahead, factor * wanted.rewards_ahead)
    spans = [
        reward_span(plugins.load("algorithms", "xql"), f"D4RL/{name}-v2") for name in ("halfcheetah/medium", "antmaze/umaze", "pen/human")
    ]
    assert spans == [1000, 0, 0], "as in the authors' code"
    assert reward_span(plugins.load("algorithms", "xql"), "Mine/HalfCheetah/medium-v0") == 1000, "however it is written"
    assert reward_span(SimpleNamespace(REWARD_SPAN=10), "mine/maze-v0") == 10
    alike = replace(table, episode_returns=np.ones(3, np.float32))
    assert span_factor(alike, 1000) == 1


N_STEP = tuple(name for name in plugins.names("algorithms") if "n_step" in plugins.hyper_defaults(name))


def several_episodes() -> Table:
    """Episodes of 1 to 9 steps, cut off or ended by the environment."""
    lengths = np.random.default_rng(1).integers(1, 10, 300)
    table = made_up_table(rows=int(lengths.sum()))
    return replace(table, episode_lengths=lengths)


def ahead(table: Table, row: int, n: int, discount: float, timeouts: str, next_actions: bool) -> tuple[float, int, float]:
    """The return of up to n steps from a row, the row of the last, and what the value after it counts: step by step."""
    last = {int(end) - 1 for end in np.cumsum(table.episode_lengths)}
    terminal = table.rows[:, -1] > 0
    total = 0.0
    for step in range(n):
        total += discount**step * float(table.rows[row, 7])
        unfollowed = next_actions and timeouts == "bootstrap" and row + 1 in last and not terminal[row + 1]
        if terminal[row] or row in last or unfollowed or step == n - 1:
            break
        row += 1
    ended = terminal[row] or (timeouts == "terminal" and row in last)
    return total, row, 0.0 if ended else discount ** (step + 1)


@pytest.mark.parametrize("timeouts", ["bootstrap", "terminal"])
@pytest.mark.parametrize("algorithm", ["td3_bc", "rebrac"])
@pytest.mark.parametrize("n", [2, 3, 20])
def test_n_step_targets_are_those_of_a_loop_over_the_episode(n: int, algorithm: str, timeouts: str) -> None:
    """Where an episode ends earlier, they have fewer steps; one that was cut off bootstraps from its last next observation."""
    table, size = several_episodes(), 200
    trials = [small_trial(algorithm, seed=seed, hyper={"n_step": n, "discount": discount}) for seed, discount in ((3, 0.9), (4, 0.7))]
    world = World(trials, table=table)
    following = algorithm == "rebrac"
    data = Minibatches(table, world.algorithm.NORMALIZE, next_actions=following, timeouts=timeouts)
    data.look_ahead(n)
    batch, streams = data.draw(world.agent.streams, size), world.agent.streams
    lacking = following and timeouts == "bootstrap"  # next actions, of the last transitions of episodes that were cut off
    picked = followed(table) if lacking else np.arange(len(table))
    index = picked[streams.integers("minibatch", size, len(picked)).numpy()]
    value = torch.randn(2, size, generator=torch.Generator().manual_seed(0))
    found = world.agent.td_target(batch, value)
    whole = Minibatches(table, world.algorithm.NORMALIZE)._columns(torch.arange(len(table)).unsqueeze(0))
    taken = set()
    for member, discount in enumerate((0.9, 0.7)):
        for place, row in enumerate(index[member]):
            total, last, factor = ahead(table, int(row), n, discount, timeouts, following)
            wanted = total + factor * float(value[member, place])
            assert float(found[member, place]) == pytest.approx(wanted, rel=1e-5, abs=1e-5)
            assert torch.equal(batch.observations[member, place], whole[0][0, row])
            assert torch.equal(batch.next_observations[member, place], whole[3][0, last])
            if lacking and not table.rows[last, -1]:
                assert torch.equal(batch.next_actions[member, place], whole[1][0, last + 1])  # type: ignore[index]
            taken.add(last - int(row) + 1)
    assert taken == set(range(1, min(n, 9) + 1)) - ({9} if lacking else set())


@pytest.mark.parametrize("algorithm", N_STEP)
def test_an_algorithm_with_n_step_learns_from_n_step_targets(algorithm: str) -> None:
    """Its critic's loss is the one of single steps with that return, and with a terminal that leaves as much of the value."""
    table = several_episodes()
    world = World([small_trial(algorithm, hyper={"n_step": 3, "discount": 0.9})], table=table)
    batch = world.data.draw(world.agent.streams, 64)
    assert batch.rewards_ahead is not None
    assert batch.steps is not None
    single = replace(
        batch,
        rewards=world.agent.td_target(batch, torch.zeros(1, 64)),
        terminals=1 - (1 - batch.terminals) * 0.9 ** (batch.steps - 1),
        rewards_ahead=None,
        steps=None,
    )
    loss = world.algorithm.LOSSES["critic"]
    torch.testing.assert_close(loss(world.agent, batch), loss(world.agent, single))
    one = replace(batch, rewards_ahead=None, steps=None)
    assert not torch.allclose(loss(world.agent, batch), loss(world.agent, one), rtol=1e-3)


@pytest.mark.parametrize("execution", ["dense", "sparse"])
def test_n_step_targets_are_the_same_in_a_stack_as_alone(execution: str) -> None:
    trials = [
        small_trial("td3_bc", "snip", 0.6, seed, hyper={"n_step": 3, "batch_size": 33, "discount": 0.9 + seed / 50}) for seed in range(3)
    ]
    together = World(trials, execution, several_episodes()).start()
    together.train(0, 5)
    for member, trial in enumerate(trials):
        alone = World([trial], execution, several_episodes()).start()
        alone.train(0, 5)
        assert_same(member_of(together.rows(), member), alone.rows())


def test_a_step_of_one_reads_as_without() -> None:
    table = several_episodes()
    trial = small_trial("td3_bc")
    assert trial.key == small_trial("td3_bc", hyper={"n_step": 1}).key
    data = Minibatches(table, True)
    data.look_ahead(1)
    batch = data.draw(Streams([3]), 32)
    assert batch.steps is None
    assert batch.rewards_ahead is None


@pytest.mark.parametrize(
    ("algorithm", "n", "says"),
    [
        ("td3_bc", 0, "td3_bc's n_step 0 is outside [1, inf)"),
        ("td3_bc", -3, "td3_bc's n_step -3 is outside [1, inf)"),
        ("td3_bc", 1.5, "td3_bc's n_step 1.5 is not of the same type as its default 1"),
        ("bc", 3, "no hyperparameter of bc 'n_step'; there are: "),
    ],
)
def test_what_is_no_number_of_steps_is_refused(algorithm: str, n: float, says: str) -> None:
    with pytest.raises(UserError) as caught:
        small_trial(algorithm, hyper={"n_step": n})
    assert str(caught.value).startswith(says)
    assert "\n" not in str(caught.value)
