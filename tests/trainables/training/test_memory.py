from __future__ import annotations

from dataclasses import replace

import pytest

from trainables.training import memory
from trainables.trial import LARGEST, Trial


@pytest.fixture
def trial(hopper: str) -> Trial:
    return Trial(dataset=hopper, algorithm="td3_bc", updates=10, evaluations=1, hyper={"hidden": (64, 64), "batch_size": 64})


def test_a_member_takes_at_least_its_state_and_more_with_larger_batches_and_networks(trial: Trial) -> None:
    weights = {"actor": 11 * 64 + 64 * 64 + 64 * 3, "critic": 2 * (14 * 64 + 64 * 64 + 64)}
    state = 4 * sum(count * 5 for count in weights.values())  # online, target, two moments, gradient
    found = memory.member_bytes(trial)
    assert state < found < 100 * state
    larger = [replace(trial, hyper=trial.hyper | change) for change in ({"batch_size": 512}, {"hidden": (256, 256)})]
    assert all(memory.member_bytes(other) > 2 * found for other in larger)


def test_what_is_done_every_few_updates_counts(trial: Trial, monkeypatch: pytest.MonkeyPatch) -> None:
    """TD3+BC's actor learns in the second update of two, and that one is the larger."""
    every = memory._counted(trial, 0)[0], memory._counted(trial, 1)[0]
    assert memory.member_bytes(trial) == every[1] > 1.05 * every[0]
    asked: list[int] = []
    plain = memory._counted
    monkeypatch.setattr(memory, "_counted", lambda trial, update: (asked.append(update), plain(trial, update))[1])
    monkeypatch.setattr(memory, "_known", {})
    for other in (trial, replace(trial, seed=5, pruner="snip", sparsity=0.5), replace(trial, hyper=trial.hyper | {"alpha": 1.0})):
        memory.member_bytes(other)
    assert asked == [0, 1], "trials of one shape are counted once"


def test_more_room_fits_more_members_up_to_what_keeps_a_gpu_busy(trial: Trial) -> None:
    one = memory.member_bytes(trial)
    counts = [memory.members_that_fit(trial, room) for room in (0, 12 * one, 24 * one, 10**13)]
    assert counts[0] == 1
    assert 1 < counts[1] < counts[2] < 20
    assert counts[3] == LARGEST
