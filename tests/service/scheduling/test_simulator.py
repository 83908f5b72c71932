"""The scheduler on a clock of its own: how close to the best it comes, and that no trial is lost or trained twice."""

from __future__ import annotations

from collections import Counter

import pytest

from service.scheduling.costs import Cost, Job
from service.scheduling.scheduler import Scheduler
from service.scheduling.simulator import World, bound, simulate

PLACES = {"cpu": 180, "gpu": 12, "slice": 8}
WORK = {
    Job(
        (algorithm, kept),
        {
            "cpu": Cost(3.0, dense * (0.04 + 1.1 * kept if kept < 0.6 else 1.0), 4),
            "gpu": Cost(10 + 0.04 * dense, 0.0045 * dense, 64),
            "slice": Cost(10 + 0.04 * dense, 0.008 * dense, 24),
        },
        (algorithm, f"{algorithm} {kept}"),
        algorithm,
    ): 960
    for algorithm, dense in (("bc", 220.0), ("td3_bc", 770.0), ("iql", 1050.0))
    for kept in (1.0, 0.5, 0.2, 0.1, 0.05, 0.02, 0.01)
}
WRONG = {(kind, job.families): 0.8 + (3 * n + k) % 5 / 10 for n, job in enumerate(WORK) for k, kind in enumerate(PLACES)}


def test_the_makespan_is_within_five_percent_of_what_no_schedule_can_beat() -> None:
    """With what the scheduler knows; the benchmark has a world in which it does not."""
    course = simulate(Scheduler(("gpu", "slice")), WORK, PLACES)
    assert bound(WORK, PLACES) < course.makespan < 1.05 * bound(WORK, PLACES)
    assert course.trained == Counter(WORK)
    alone = simulate(Scheduler(("gpu", "slice")), WORK, {"gpu": 12})
    assert alone.makespan > 1.5 * course.makespan


@pytest.mark.parametrize("seed", [0, 1])
def test_no_trial_is_lost_or_doubled_where_stacks_fail_and_nodes_come_and_go(seed: int) -> None:
    outages = [("cpu", 60, 300.0, 900.0), ("cpu", 20, 1000.0, 1e9), ("gpu", 12, 500.0, 800.0), ("slice", 3, 100.0, 200.0)]
    world = World(seed=seed, factors=WRONG, jitter=0.2, slow=0.05, failures=0.2, outages=outages)
    course = simulate(Scheduler(("gpu", "slice")), WORK, PLACES, world)
    assert course.trained == Counter(WORK)
    assert sum(course.trials.values()) == sum(WORK.values())
    assert course.failed > 1000
    busiest = {kind: max(busy[kind] for _, busy in course.samples) for kind in PLACES}
    assert busiest == PLACES, "and no place has two stacks"


def test_estimates_that_are_wrong_are_corrected_on_the_way() -> None:
    world = World(factors=WRONG)
    course = simulate(Scheduler(("gpu", "slice")), WORK, PLACES, world)
    deaf = Scheduler(("gpu", "slice"))
    deaf.corrections.learn = lambda *news: None  # type: ignore[method-assign]
    assert course.makespan < 1.07 * bound(WORK, PLACES, world)
    assert course.makespan < 0.97 * simulate(deaf, WORK, PLACES, world).makespan


def test_a_node_takes_its_stacks_with_it_and_the_rest_goes_on_where_it_began() -> None:
    job = Job("a", {"cpu": Cost(0.0, 100.0, 1), "gpu": Cost(0.0, 100.0, 1)})
    course = simulate(Scheduler(), {job: 1}, {"gpu": 1, "cpu": 0}, World(outages=[("gpu", 1, 50.0, 1000.0), ("cpu", -1, 50.0, 1e9)]))
    assert course.makespan == pytest.approx(1050.0), "half was kept; the core that came meanwhile does not finish it"
    assert course.trials == {"gpu": 1}


def test_the_bound_counts_places_only_while_they_are_there() -> None:
    job = Job("a", {"cpu": Cost(0.0, 1.0, 1)})
    assert bound({job: 1000}, {"cpu": 10}) == pytest.approx(100.0, rel=0.01)
    assert bound({job: 1000}, {"cpu": 10}, World(outages=[("cpu", 5, 0.0, 1e9)])) == pytest.approx(200.0, rel=0.02)
    assert bound({job: 1}, {"cpu": 10}) == pytest.approx(1.0)


def test_the_bound_knows_the_worlds_chances_and_the_longest_trial() -> None:
    costs = {"cpu": Cost(0.0, 100.0, 1), "gpu": Cost(6.0, 7.0, 3)}
    one = {Job("a", costs): 1}
    assert bound(one, {"cpu": 50, "gpu": 50}) == pytest.approx(13.0), "it cannot be cut, and is fastest alone on a GPU"
    assert bound(one, {"cpu": 50, "gpu": 50}, World(slow=0.5, slowness=3.0)) == pytest.approx(2 * 13.0), "half of all take three times"
    assert bound(one, {"cpu": 50, "gpu": 50}, World(factors={("gpu", ()): 1.5})) == pytest.approx(1.5 * 13.0)
    assert bound({Job("a", costs): 600}, {"gpu": 2}) == pytest.approx(600 * (6 / 3 + 7) / 2), "in the fullest stacks"


def test_what_a_stack_did_after_its_last_checkpoint_is_lost_and_done_again() -> None:
    """Two trials of 100 seconds begin at 10. Their node goes at 115, after 10.5 of 20 parts, of which checkpoints hold 10. From 300 on,
    when it is back, the other ten parts take 10 + 100 seconds."""
    job = Job("a", {"gpu": Cost(10.0, 100.0, 2)})
    course = simulate(Scheduler(), {job: 2}, {"gpu": 1}, World(outages=[("gpu", 1, 115.0, 300.0)]))
    assert course.makespan == pytest.approx(410.0)
    assert course.busy == {"gpu": pytest.approx(115.0 + 110.0)}
    assert (course.failed, course.stacks, course.trials) == (2, {"gpu": 2}, {"gpu": 2})
    assert course.lost == pytest.approx(115.0 * 0.5 / 10.5)
