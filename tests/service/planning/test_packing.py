from __future__ import annotations

from search_spaces.sweep import Sweep, expand
from service.planning.packing import RETRIES, pack, retry
from trainables.trial import shape_of

GRID = expand(
    Sweep(
        datasets=("winnow/hopper/medium-v0", "winnow/walker2d/medium-v0"), algorithms=("bc", "td3_bc"), pruners=("dense", "snip"),
        sparsities=(0.5, 0.9), seeds=(0, 1, 2), hyper={"alpha": (1.0, 2.5), "hidden": ((64, 64), (256, 256))},
    )
)  # fmt: skip


PRUNED = [trial for trial in GRID if shape_of(trial) == shape_of(GRID[0]) and trial.pruner != "dense"]


def test_every_trial_is_in_exactly_one_stack_of_its_shape() -> None:
    stacks = pack(GRID, 8)
    assert sorted(trial.key for stack in stacks for trial in stack.trials) == sorted(trial.key for trial in GRID)
    assert all(len({shape_of(trial) for trial in stack.trials}) == 1 for stack in stacks)
    assert max(len(stack) for stack in stacks) <= 8


def test_a_group_is_split_evenly() -> None:
    assert len(PRUNED) == 6
    assert [len(stack) for stack in pack(PRUNED, 5)] == [3, 3]
    assert [len(stack) for stack in pack(PRUNED, 4)] == [3, 3]
    assert [len(stack) for stack in pack(PRUNED, 6)] == [6]
    assert [len(stack) for stack in pack(PRUNED, 1)] == [1] * 6


def test_trials_that_auto_would_compute_in_different_ways_do_not_share_a_stack() -> None:
    group = [trial for trial in GRID if shape_of(trial) == shape_of(GRID[0])]
    assert [{trial.pruner for trial in stack.trials} for stack in pack(group, 9)] == [{"dense"}, {"snip"}]
    for place in (("cuda", "auto"), ("cpu", "dense")):
        assert [len(stack) for stack in pack(group, 9, computed_by=place)] == [9]


def test_on_a_gpu_trials_of_like_sparsity_share_a_stack() -> None:
    group = [trial for trial in GRID if shape_of(trial) == shape_of(GRID[0])]
    assert [trial.sparsity for trial in group] != sorted(trial.sparsity for trial in group)
    stacks = pack(group, 3, computed_by=("cuda", "auto"))
    assert [[trial.sparsity for trial in stack.trials] for stack in stacks] == [[0.0] * 3, [0.5] * 3, [0.9] * 3]


def test_trials_that_go_on_from_different_updates_do_not_share_a_stack() -> None:
    group = PRUNED
    progress = {group[0].key: 5_000, group[3].key: 5_000, group[5].key: 10_000}
    stacks = pack(group, 32, progress)
    assert sorted(sorted({progress.get(trial.key, 0) for trial in stack.trials}) for stack in stacks) == [[0], [5_000], [10_000]]


def test_the_first_stack_holds_the_first_trial_and_no_trials_make_no_stack() -> None:
    assert pack(GRID, 4)[0].lead == GRID[0]
    assert pack([], 4) == ()


def test_a_trial_that_failed_in_company_is_held_to_smaller_stacks() -> None:
    held = {trial.key: 1 for trial in PRUNED[:2]}
    assert sorted(len(stack) for stack in pack(PRUNED, 6, limits=held)) == [1, 1, 4]
    once_larger = {trial.key: 6 for trial in PRUNED}
    assert [len(stack) for stack in pack(PRUNED, 2, limits=once_larger)] == [2, 2, 2], "stacks are smaller now than the one that failed"


def test_the_policy_of_retries() -> None:
    assert [retry(size, "out_of_memory", 1) for size in (32, 3, 2, 1)] == [16, 1, 1, None]
    assert [retry(size, "user_error", 1) for size in (32, 1)] == [1, None]
    assert [retry(size, "error", 1) for size in (32, 1)] == [1, None]
    assert [retry(32, "infrastructure", failures) for failures in (1, RETRIES, RETRIES + 1)] == [32, 32, None]
    assert retry(1, "infrastructure", 1) == 1
    assert retry(32, "superseded", 1) is None
