"""How sweeps share a cluster: what each may use at one moment, whatever they ask for, and what that comes to over time."""

from __future__ import annotations

import itertools
import random
from collections import Counter
from collections.abc import Mapping

import pytest

from service.scheduling.costs import Cost, Job
from service.scheduling.scheduler import Scheduler
from service.scheduling.shares import GONE, UNUSED, WAIT, Demand, Patience, Share, Shares, fill, in_whole, spread
from service.scheduling.together import Courses, Sweep, simulate_together

TEN_MINUTES = 600.0


def demands(draw: random.Random) -> dict[str, Demand]:
    """Some sweeps that ask for anything."""
    found = {}
    for number in range(draw.randint(1, 6)):
        uses = {kind: draw.randint(0, 9) for kind in ("cpu", "H100", "L4")}
        wants = {kind: count + draw.choice((0, 1, 5, 50)) for kind, count in uses.items()}
        units = {"cpu": 1.0, "H100": draw.choice((0.5, 0.25, 1.0)), "L4": draw.choice((0.5, 1 / 3))}
        weight, priority = draw.choice((0.5, 1.0, 2.0, 7.0)), draw.choice((-1, 0, 0, 1))
        found[f"s{number}"] = Demand(name=f"s{number}", weight=weight, priority=priority, uses=uses, holds=uses, wants=wants, units=units)
    return found


@pytest.mark.parametrize("seed", range(60))
def test_nobody_gets_more_than_it_asks_for_and_all_together_what_is_there(seed: int) -> None:
    draw = random.Random(seed)
    asked, capacity = demands(draw), {"cpu": float(draw.randint(0, 40)), "H100": float(draw.randint(0, 4)), "L4": 2.0}
    shares = Shares(0.0)
    for _ in range(2):  # the first time, not all have reported
        given = {name: shares.report(name, demand, capacity, 1.0) for name, demand in asked.items()}
        given = {name: shares.report(name, demand, capacity, 1.0) for name, demand in asked.items()}
    on_gpus = sum(count for share in given.values() for kind, count in share.places.items() if kind != "cpu")
    for kind, devices in capacity.items():
        room = max(0.0, devices - (on_gpus if kind == "cpu" else 0))
        used = sum(share.places[kind] * asked[name].units[kind] for name, share in given.items())
        assert used <= room + 1e-6
        assert all(share.places[kind] <= asked[name].wants[kind] for name, share in given.items())
        left = [asked[name].units[kind] for name, share in given.items() if share.places[kind] < asked[name].wants[kind]]
        assert not left or room - used < min(left) + 1e-6, "no place is left over that somebody wants"
        for one, first in asked.items():
            for other, second in asked.items():
                if first.priority > second.priority and given[one].places[kind] < first.wants[kind]:
                    fits = first.units[kind] <= second.units[kind]
                    assert not (given[other].places[kind] and fits), "nobody waits for a lower priority"


@pytest.mark.parametrize("seed", range(40))
def test_places_are_within_one_of_the_weighted_fair_fraction(seed: int) -> None:
    draw = random.Random(seed)
    wants = {name: draw.choice((0, 1, 3, 40)) for name in "abcde"}
    weights = {name: draw.choice((0.5, 1.0, 2.0, 5.0)) for name in wants}
    capacity = draw.randint(1, 30)
    asking = {name: (weights[name], float(count)) for name, count in wants.items() if count}
    ideal = fill(capacity, asking)
    assert sum(ideal.values()) == pytest.approx(min(capacity, sum(wants.values())))
    level = max((ideal[name] / weights[name] for name in asking if ideal[name] < wants[name] - 1e-9), default=None)
    for name in asking:
        if level is not None:
            assert ideal[name] == pytest.approx(min(wants[name], level * weights[name])), "all that want more have the same per weight"
    whole = in_whole(capacity, ideal, {name: wants[name] for name in asking}, dict.fromkeys(asking, 1.0), sorted(asking))
    assert all(abs(whole[name] - ideal[name]) < 1 for name in asking)
    assert sum(whole.values()) == min(capacity, sum(wants.values()))


def test_a_sweep_that_stops_reporting_loses_its_share_and_one_alone_is_not_limited() -> None:
    shares = Shares(0.0)
    demand = Demand(name="a", uses={"cpu": 4}, holds={"cpu": 4}, wants={"cpu": 100})
    other = Demand(name="b", uses={}, wants={"cpu": 100})
    assert shares.report("a", demand, {"cpu": 4.0}, 0.0).others == ()
    assert shares.report("b", other, {"cpu": 4.0}, 1.0).places == {"cpu": 2}
    assert shares.report("a", demand, {"cpu": 4.0}, 2.0) == Share(places={"cpu": 2}, whole={"cpu": 4}, urgent=(), others=("b",))
    for now in (GONE / 2, GONE, GONE + 2.0):
        share = shares.report("a", demand, {"cpu": 4.0}, now)
    assert share.others == ()
    shares.report("b", other, {"cpu": 4.0}, GONE + 3.0)
    shares.leave("b", GONE + 4.0)
    assert shares.report("a", demand, {"cpu": 4.0}, GONE + 5.0).others == ()
    assert not Shares(0.0).settled(1.0)
    assert shares.settled(GONE)


def test_what_a_sweep_does_not_take_goes_to_the_others_after_a_while_and_comes_back() -> None:
    shares, share = Shares(0.0), {}
    for now in range(int(UNUSED) + 3):
        for name, uses in (("slow", 1), ("busy", 4)):
            demand = Demand(name=name, uses={"cpu": uses}, holds={"cpu": uses}, wants={"cpu": 50})
            share[name] = shares.report(name, demand, {"cpu": 8.0}, float(now)).places["cpu"]
        assert share["slow"] == 4 or not 0 < now < UNUSED
    assert share == {"slow": 2, "busy": 6}
    demand = Demand(name="slow", uses={"cpu": 2}, holds={"cpu": 2}, wants={"cpu": 50})
    shares.report("slow", demand, {"cpu": 8.0}, UNUSED + 4.0)
    assert shares.report("slow", demand, {"cpu": 8.0}, UNUSED + 5.0).places["cpu"] == 4


def asks(name: str, uses: int, wants: int, *, unit: float = 1.0, priority: int = 0) -> Demand:
    held = {"cpu": uses}
    return Demand(name=name, priority=priority, uses=held, holds=held, wants={"cpu": wants}, units={"cpu": unit})


def turns(shares: Shares, held: dict[str, int], begin: int, end: int) -> list[int]:
    """The seconds in which the third of three places changes hands, between `a` and `b`, which take at once what they may."""
    changes, before = [], ""
    for now in range(begin, end):
        held |= {name: shares.report(name, asks(name, uses, 9), {"cpu": 3.0}, float(now)).places["cpu"] for name, uses in held.items()}
        has = max(held, key=lambda name: held[name])
        if has != before and held[has] == 2:
            changes.append(now)
            before = has
    return changes


def test_a_place_that_two_share_changes_hands_every_forty_seconds() -> None:
    """Who has it gains half a second of a place each second and the other one loses as much; 20 seconds of lead are a turn. A stack takes
    seconds to start, so fewer would be wasted on starts."""
    changes = turns(Shares(0.0), {"a": 0, "b": 0}, 0, 600)
    assert all(40 <= later - earlier <= 44 for earlier, later in itertools.pairwise(changes[1:])), changes
    assert len(changes) >= 600 // 44


def test_what_a_sweep_could_not_use_for_an_hour_is_made_up_for_in_minutes() -> None:
    """It is owed 200 seconds of a place, and the other one owes as many, however long that went on: of the place that they share each
    second brings them one nearer to the 20 seconds of lead that are a turn, so it is the other's after 200 + 200 + 20 seconds."""
    shares = Shares(0.0)
    for now in range(0, 3600, 10):
        shares.report("a", asks("a", 0, 9), {"cpu": 3.0}, float(now))
        shares.report("b", asks("b", 3, 9), {"cpu": 3.0}, float(now))
    _, taken, lost, *_ = turns(shares, {"a": 0, "b": 3}, 3600, 4100)
    assert taken <= 3602
    assert 415 <= lost - taken <= 425


def test_stacks_leave_at_once_only_where_a_higher_priority_takes_their_places() -> None:
    shares, four = Shares(0.0), {"cpu": 4.0}
    shares.report("high", asks("high", 1, 1, priority=1), four, 0.0)
    shares.report("new", asks("new", 0, 9), four, 0.0)
    old = shares.report("old", asks("old", 3, 9), four, 0.0)
    assert (old.places, old.urgent) == ({"cpu": 2}, ()), "the place that is not its due is its equal's, who waits"
    shares.report("high", asks("high", 1, 2, priority=1), four, 1.0)
    old = shares.report("old", asks("old", 3, 9), four, 1.0)
    assert (old.places, old.urgent) == ({"cpu": 1}, ("cpu",))
    assert shares.report("new", asks("new", 0, 9), four, 1.0).urgent == (), "it has none that could leave"
    alone = Shares(0.0)
    alone.report("a", asks("a", 4, 9), four, 0.0)
    alone.report("b", asks("b", 0, 9), four, 0.0)
    assert alone.report("a", asks("a", 4, 9), {"cpu": 2.0}, 1.0).urgent == (), "places went, and nobody is above it"


def test_places_are_counted_in_what_a_stack_takes_of_a_device() -> None:
    """Of three devices each is due one and a half: three places of half a device, and one of a whole one."""
    shares = Shares(0.0)
    shares.report("halves", asks("halves", 0, 9, unit=0.5), {"cpu": 3.0}, 0.0)
    whole = shares.report("whole", asks("whole", 0, 9), {"cpu": 3.0}, 0.0)
    halves = shares.report("halves", asks("halves", 0, 9, unit=0.5), {"cpu": 3.0}, 0.0)
    assert (halves.whole, whole.whole) == ({"cpu": 6}, {"cpu": 3})
    assert halves.places["cpu"] * 0.5 + whole.places["cpu"] == 3.0
    assert str(halves) == f"may use {halves.places['cpu']} of 6 cpu for now, beside whole"


def test_a_sweep_that_wants_places_again_has_its_whole_share_at_once() -> None:
    """It had not taken what it was allowed when it stopped asking: that is over."""
    shares = Shares(0.0)
    for now in range(0, 50, 10):
        wants = 9 if now in (0, 40) else 0
        shares.report("other", asks("other", 2, 9), {"cpu": 4.0}, float(now))
        share = shares.report("again", asks("again", 0, wants), {"cpu": 4.0}, float(now))
        assert share.places == {"cpu": 2 if wants else 0}


def test_stacks_leave_at_once_for_a_higher_priority_and_for_an_equal_one_after_a_turn() -> None:
    patience = Patience()
    share = Share(places={"cpu": 1}, whole={"cpu": 4}, urgent=(), others=("b",))
    assert patience.over({"cpu": 4}, share, 0.0) == {}
    assert patience.over({"cpu": 4}, share, WAIT - 1) == {}
    assert patience.over({"cpu": 3}, share, WAIT) == {"cpu": 2}
    assert patience.over({"cpu": 1}, share, WAIT + 1) == {}
    assert patience.over({"cpu": 4}, share, WAIT + 2) == {}, "the time is counted anew"
    assert patience.over({"cpu": 4}, Share(places={"cpu": 1}, whole={"cpu": 4}, urgent=("cpu",), others=("b",)), 0.0) == {"cpu": 3}
    nothing_yet = Share(places={"cpu": 0}, whole={"cpu": 0}, urgent=(), others=("b",))
    assert [waits.over({"cpu": 3}, nothing_yet, now) for waits in [Patience()] for now in (0.0, WAIT)] == [{}, {"cpu": 2}], "one may wait"
    assert Patience().over({"cpu": 9}, Share(places={"cpu": 4}, whole={"cpu": 4}, urgent=(), others=()), 1e6) == {}


def test_stacks_of_which_only_ray_knows_the_gpu_are_counted_as_the_gpus_are() -> None:
    assert spread(7, {"H100": 2.0, "L4": 4.0}) == Counter({"H100": 2, "L4": 5})
    assert spread(0, {"H100": 2.0}) == Counter({"H100": 0})
    assert spread(3, {"cpu": 0.0}) == Counter({"cpu": 3})
    assert spread(3, {}) == Counter()


def sweep(seconds: float, count: int = 5000, kinds: tuple[str, ...] = ("cpu",), **how: float) -> Sweep:
    job = Job(("trial", seconds), {kind: Cost(3.0, seconds, 1) for kind in kinds})
    return Sweep(work={job: count}, decides=Scheduler(), **how)  # type: ignore[arg-type]


def fractions(course: Courses, begin: float, end: float) -> dict[str, float]:
    seconds = course.place_seconds(begin, end)
    return {name: each / sum(seconds.values()) for name, each in seconds.items()}


@pytest.mark.parametrize("seconds", [5.0, 60.0, 1500.0, 50_000.0])
@pytest.mark.parametrize(("weights", "places"), [((1.0, 2.0), 4), ((1.0, 1.0, 1.0), 4), ((1.0, 2.0, 4.0), 64)])
def test_over_ten_minutes_each_sweep_has_its_share_within_a_tenth(seconds: float, weights: tuple[float, ...], places: int) -> None:
    """Also from the moment at which one comes, however long trials take."""
    sweeps = {str(number): sweep(seconds, weight=weight, begins=100.0 * number) for number, weight in enumerate(weights)}
    course = simulate_together(sweeps, {"cpu": places}, until=100.0 * len(weights) + 2 * TEN_MINUTES)
    for begin in (100.0 * (len(weights) - 1), 100.0 * (len(weights) - 1) + 450.0):
        found = fractions(course, begin, begin + TEN_MINUTES)
        for number, weight in enumerate(weights):
            assert found[str(number)] == pytest.approx(weight / sum(weights), rel=0.1)
    assert sum(course.place_seconds(300.0, 900.0).values()) > 0.99 * TEN_MINUTES * places, "nobody waits for a place that is free"


def test_without_the_shares_the_first_one_keeps_what_it_has(monkeypatch: pytest.MonkeyPatch) -> None:
    def first_come(shares: Shares, id: str, demand: Demand, capacity: Mapping[str, float], now: float) -> Share:
        return Share(places={}, whole={kind: int(count) for kind, count in capacity.items()}, urgent=(), others=())

    monkeypatch.setattr(Shares, "report", first_come)
    course = simulate_together({"0": sweep(60.0), "1": sweep(60.0, weight=2.0, begins=100.0)}, {"cpu": 4}, until=800.0)
    assert fractions(course, 100.0, 700.0)["0"] > 0.9


def test_a_higher_priority_has_all_that_it_wants_within_seconds_and_what_left_for_it_ends_later() -> None:
    low, high = sweep(500.0, 12, priority=-1), sweep(50.0, 8, priority=1, begins=100.0)
    course = simulate_together({"low": low, "high": high}, {"cpu": 4})
    assert course.place_seconds(102.0, 150.0)["high"] == pytest.approx(4 * 48.0)
    assert course.interrupted == {"low": 4}
    assert course.whole.trained == Counter({job: count for each in (low, high) for job, count in each.work.items()})
    assert course.whole.makespan < 12 * 503 / 4 + 8 * 53 / 4 + 100, "what was done is kept"


def test_each_kind_of_place_is_shared_and_a_core_of_every_gpu_place_is_the_gpus() -> None:
    both = ("cpu", "gpu")
    sweeps = {"a": sweep(100.0, kinds=both), "b": sweep(200.0, kinds=both, weight=3.0), "c": sweep(50.0, weight=4.0)}
    course = simulate_together(sweeps, {"cpu": 40, "gpu": 8}, until=1300.0)
    of_gpus, of_cores = Counter[str](), Counter[str]()
    for when, held in course.samples:
        assert sum(places.get("cpu", 0) + places.get("gpu", 0) for places in held.values()) <= 40 or when < 200.0
        if when > 700.0:
            of_gpus.update({name: places.get("gpu", 0) for name, places in held.items()})
            of_cores.update({name: places.get("cpu", 0) for name, places in held.items()})
    assert of_gpus["b"] / of_gpus["a"] == pytest.approx(3.0, rel=0.1)
    assert of_cores["c"] / of_cores["a"] == pytest.approx(4.0, rel=0.1)
