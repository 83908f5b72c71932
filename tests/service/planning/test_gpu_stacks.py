"""How a run divides its GPUs: by trials, memory and what stacks have taken, unless somebody has typed it."""

from __future__ import annotations

from pathlib import Path

import pytest

from service.ledger.manifest import Manifest, read_all
from service.planning.gpu_stacks import UNKNOWN, GpuStacks, StackTiming, groups, stack_timings
from service.planning.options import TrainingOptions
from service.planning.update_cost import Kind
from trainables.trial import Trial

KIND = Kind(name="H100", device="cuda", most=128)
TRIAL = Trial(dataset="a/b/c-v0", algorithm="td3_bc", updates=50_000)
MANY = [(10_000, 50_000, TRIAL)]
HERE = {"cpu": 16.0, "H100": 2.0}


def divided(work: list[tuple[int, int, Trial]] = MANY, memory: int = 1000, **options: object) -> GpuStacks:
    found = GpuStacks(TrainingOptions(**options))  # type: ignore[arg-type]
    found.memory = lambda kind, trial, stacks: min(128, memory // stacks)
    found.divide(KIND, work, HERE, untried=True)
    return found


def test_a_gpu_has_as_many_stacks_as_get_more_done_and_a_stack_as_many_trials() -> None:
    found = divided()
    assert (found.stacks("H100"), found.share("H100"), found.members(KIND, TRIAL)) == (2, 0.5, 64)
    assert divided([(10_000, 10**6, TRIAL)]).stacks("H100") == 1
    assert divided([(6, 50_000, TRIAL)]).stacks("H100") == 1
    assert divided(tf32=True).members(KIND, TRIAL) == 128
    assert divided(memory=40).members(KIND, TRIAL) == 40
    assert GpuStacks(TrainingOptions()).members(KIND, TRIAL) == UNKNOWN, "nobody has asked a GPU"


def test_what_was_typed_wins() -> None:
    found = divided(gpu_fraction=0.3, stack_size=5)
    assert (found.stacks("H100"), found.share("H100"), found.members(KIND, TRIAL)) == (3, 0.3, 5)
    assert not found.divide(KIND, MANY, HERE)


@pytest.mark.parametrize(
    ("most", "slots"),
    [
        (None, {"H100": 6, "A100": 3, "cpu": 7}),
        (12, {"H100": 6, "A100": 3, "cpu": 3}),
        (8, {"H100": 6, "A100": 2, "cpu": 1}),
        (1, {"H100": 1, "A100": 1, "cpu": 1}),
    ],
)
def test_places_are_as_many_as_may_train_at_a_time_the_gpus_first(most: int | None, slots: dict[str, int]) -> None:
    """A pool that believed in more would leave work to cores that never get it."""
    found = GpuStacks(TrainingOptions(gpu_fraction=0.3, max_concurrent=most))
    assert found.slots({"cpu": 16.0, "H100": 2.0, "A100": 1.0}) == slots
    assert found.slots({"cpu": 6.0, "H100": 2.0})["cpu"] == 0, "a stack on a GPU needs a core"


def test_two_stacks_share_a_gpu_once_it_is_known_what_one_takes() -> None:
    found = GpuStacks(TrainingOptions())
    assert not found.divide(KIND, MANY, HERE)
    assert found.stacks("H100") == 1
    found.learn(StackTiming("H100", TRIAL, 32, 1, 50_000, 50.0))
    assert found.divide(KIND, MANY, HERE)
    assert found.stacks("H100") == 2


def test_reports_of_this_cluster_change_both() -> None:
    """Two at a time are no faster there than one after the other, starts included; and stacks fill it much earlier than an H100."""
    found = divided()
    for size, ratio in ((1, 1.0), (4, 1.0), (8, 1.2), (16, 2.4), (32, 4.8)):
        for stacks, more in ((1, 1.0), (2, 1.3)):
            for _ in range(10):
                seconds = ratio * more * stacks * 50_000 * 0.001
                found.learn(StackTiming("H100", TRIAL, size, stacks, 50_000, seconds))
    assert found.divide(KIND, MANY, HERE), "it has changed"
    assert found.stacks("H100") == 1
    assert found.members(KIND, TRIAL) in (8, 16)


def test_the_journals_have_what_stacks_took(tmp_path: Path) -> None:
    trials = [Trial(dataset="a/b/c-v0", algorithm="td3_bc", seed=seed, updates=1000) for seed in range(3)]
    manifest = Manifest(tmp_path, "smoke")
    manifest.plan(trials)
    manifest.record("leased", {trial.key: {"size": 2, "on": "H100", "share": 0.5} for trial in trials[:2]})
    manifest.record("leased", {trials[2].key: {"size": 1, "on": "cpu"}})
    done = {"device": "cuda", "seconds": 4.0, "updates_per_second": 500.0, "on": "H100", "share": 0.5}
    manifest.record("done", {trial.key: done for trial in trials[:2]})
    manifest.record("done", {trials[2].key: {"device": "cpu", "seconds": 4.0, "updates_per_second": 250.0, "on": "cpu"}})
    manifest.close()
    (timing,) = stack_timings(read_all(tmp_path))
    assert (timing.kind, timing.members, timing.stacks, timing.updates, timing.seconds) == ("H100", 2, 2, 1000.0, 4.0)


def test_trials_are_grouped_by_what_can_share_a_stack() -> None:
    trials = [Trial(dataset="a/b/c-v0", algorithm=algorithm, seed=seed, updates=1000) for algorithm in ("bc", "iql") for seed in range(3)]
    found = groups(trials, {trials[0].key: 400})
    assert sorted((count, updates) for count, updates, _ in found) == [(1, 600), (2, 1000), (3, 1000)]


@pytest.mark.parametrize("kind", ["gpu", "NVIDIA A100-SXM4-40GB MIG 1g.5gb"])
def test_an_algorithm_that_was_never_measured_counts_as_a_measured_one(kind: str) -> None:
    found = GpuStacks(TrainingOptions())
    found.memory = lambda kind, trial, stacks: 128
    assert 1 < found.members(Kind(name=kind, device="cuda", most=128), Trial(dataset="a/b/c-v0", algorithm="bc")) <= 128
