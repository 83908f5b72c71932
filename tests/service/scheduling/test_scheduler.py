"""Who gets what: decisions of the scheduler, one by one."""

from __future__ import annotations

import math

import pytest

from service.scheduling.costs import Corrections, Cost, Job
from service.scheduling.scheduler import Placement, Scheduler


def job(name: str, cpu: float, gpu: float, *, fixed: float = 10.0, mates: str | None = None, most: int = 64) -> Job:
    """Seconds of a trial on each."""
    return Job(name, {"cpu": Cost(0.0, cpu, 4), "gpu": Cost(fixed, gpu, most)}, (name,), mates)


def names(placed: Placement | None) -> dict[str, int]:
    return {} if placed is None else {str(job.name): count for job, count in placed.parts}


def test_dense_trials_go_to_the_gpu_and_pruned_ones_to_the_cores() -> None:
    scheduler = Scheduler(("gpu",))
    scheduler.add(job("dense", 700, 2), 200)
    scheduler.add(job("pruned", 60, 2), 200)
    scheduler.resize({"cpu": 16, "gpu": 1}, 0.0)
    assert list(names(scheduler.take("cpu", 0.0))) == ["pruned"]
    assert list(names(scheduler.take("gpu", 0.0))) == ["dense"]


def test_the_last_stack_goes_to_whatever_ends_first() -> None:
    scheduler = Scheduler(("gpu",))
    scheduler.add(job("dense", 700, 2), 1)
    scheduler.resize({"cpu": 16, "gpu": 1}, 0.0)
    assert scheduler.take("cpu", 0.0) is None, "the GPU is done in 12 seconds"
    assert names(scheduler.take("gpu", 0.0)) == {"dense": 1}
    assert scheduler.left == 0
    scheduler.add(job("pruned", 20, 2), 1)
    assert names(scheduler.take("cpu", 0.0)) == {"pruned": 1}, "20 seconds here; the GPU is busy for 12 and would take 12"


def test_a_gpus_stack_is_filled_with_mates_and_a_cores_is_not() -> None:
    scheduler = Scheduler(("gpu",))
    first, second, other = job("a", 300, 2, mates="m"), job("b", 290, 2, mates="m"), job("c", 280, 2, mates="n")
    for each in (first, second, other):
        scheduler.add(each, 20)
    scheduler.resize({"gpu": 1}, 0.0)
    assert set(names(scheduler.take("gpu", 0.0))) == {"a", "b"}
    scheduler = Scheduler(("gpu",))
    for each in (first, second):
        scheduler.add(each, 2)
    scheduler.resize({"cpu": 1}, 0.0)
    assert len(names(scheduler.take("cpu", 0.0))) == 1


def test_a_stack_is_never_larger_than_fits_and_smaller_at_the_end() -> None:
    scheduler = Scheduler()
    scheduler.add(Job("a", {"cpu": Cost(0.0, 10.0, 4)}), 80)
    scheduler.resize({"cpu": 4}, 0.0)
    sizes, now = [], 0.0
    while placed := scheduler.take("cpu", now):
        sizes.append(len(placed))
        now += placed.estimate / 4
        scheduler.end(placed)
    assert sum(sizes) == 80
    assert max(sizes) == 4
    assert sizes[-1] == 1


def test_what_stacks_take_corrects_the_estimates_from_the_widest_family_to_the_closest() -> None:
    corrections = Corrections()
    assert corrections.factor("cpu", ("bc", "bc 0.9")) == 1.0
    corrections.learn("cpu", ("bc", "bc 0.9"), 2.0)
    own, cousin, stranger = (corrections.factor("cpu", families) for families in (("bc", "bc 0.9"), ("bc", "bc 0"), ("iql", "iql 0")))
    assert own == pytest.approx(2.0)
    assert cousin == pytest.approx(2.0)
    assert stranger == pytest.approx(2.0), "the kind as a whole is slower than estimated"
    for _ in range(9):
        corrections.learn("cpu", ("iql", "iql 0"), 0.5)
    assert corrections.factor("cpu", ("iql", "iql 0")) < 0.7
    assert corrections.factor("cpu", ("bc", "bc 0.9")) > 1.0
    assert corrections.factor("gpu", ("bc", "bc 0.9")) == 1.0
    corrections.learn("cpu", ("iql", "iql 0"), math.inf)
    assert corrections.factor("cpu", ("iql", "iql 0")) < 0.7, "a number that cannot be is left out"


def test_a_measured_gpu_that_is_slow_gives_its_trials_to_the_cores() -> None:
    scheduler = Scheduler(("gpu",))
    work = job("a", 30, 2)
    scheduler.add(work, 400)
    scheduler.resize({"cpu": 8, "gpu": 1}, 0.0)
    placed = scheduler.take("gpu", 0.0)
    assert placed is not None
    before = scheduler.rest(0.0)
    scheduler.end(placed, 100 * placed.estimate)
    scheduler.resize({"cpu": 8, "gpu": 1}, 0.0)
    assert scheduler.rest(0.0) > before
    taken = 0
    while placed := scheduler.take("cpu", 0.0):
        taken += len(placed)
    assert taken > 300


def test_trials_that_began_on_a_kind_wait_for_it() -> None:
    scheduler = Scheduler(("gpu",))
    scheduler.add(Job("began", {"gpu": Cost(1.0, 1.0, 8)}), 3)
    scheduler.resize({"cpu": 4}, 0.0)
    assert scheduler.take("cpu", 0.0) is None
    assert scheduler.take("gpu", 0.0) is None
    scheduler.resize({"cpu": 4, "gpu": 1}, 5.0)
    assert names(scheduler.take("gpu", 5.0)) == {"began": 3}
