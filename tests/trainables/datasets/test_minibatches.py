from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from tests.stacks import made_up_table
from trainables.datasets.minibatches import Minibatches
from trainables.errors import UserError
from trainables.tensors.streams import Streams


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
