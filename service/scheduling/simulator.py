"""A sweep on a clock of its own: places of several kinds that come, go, fail and are slow, and whoever decides what trains where."""

from __future__ import annotations

import heapq
import random
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from service.scheduling.costs import Cost, Job
from service.scheduling.prices import COLD, even, least_time, settle
from service.scheduling.scheduler import Placement

ROUNDS = 5  # of the bound, in which it settles
HEARD = 0.1  # share of its updates after which a stack's speed is known
PARTS = 20  # parts in which a trial keeps what it has done, by its checkpoints


class Decides(Protocol):
    """The scheduler, or what it is compared with."""

    def add(self, job: Job, count: int) -> None: ...
    def resize(self, places: Mapping[str, int], now: float) -> None: ...
    def take(self, kind: str, now: float) -> Placement | None: ...
    def progressed(self, placed: Placement, share: float, seconds: float, now: float) -> None: ...
    def end(self, placed: Placement, seconds: float | None = None) -> None: ...


@dataclass(frozen=True, kw_only=True)
class World:
    """What the scheduler does not know in advance. All chances are drawn from `seed`.

    `factors`: what stacks of a family really take on a kind, relative to their estimates. `jitter`: spread of a stack's time. `slow`:
    share of stacks that take `slowness` times as long. `failures`: share of stacks that end before they are done. `outages`: (kind,
    how many places, gone from, back at): nodes that leave and come."""

    seed: int = 0
    factors: Mapping[tuple[str, tuple[str, ...]], float] = field(default_factory=dict)
    jitter: float = 0.0
    slow: float = 0.0
    slowness: float = 3.0
    failures: float = 0.0
    outages: Sequence[tuple[str, int, float, float]] = ()


@dataclass
class Course:
    """What became of a sweep. `busy`: seconds by kind; `lost`: of them, seconds whose work was done again. `samples`: when, and how many
    places of each kind were at work."""

    makespan: float = 0.0
    trained: Counter[Job] = field(default_factory=Counter)
    stacks: Counter[str] = field(default_factory=Counter)
    trials: Counter[str] = field(default_factory=Counter)
    busy: dict[str, float] = field(default_factory=lambda: defaultdict(float))
    lost: float = 0.0
    failed: int = 0
    samples: list[tuple[float, dict[str, int]]] = field(default_factory=list)


@dataclass(eq=False)
class Stack:
    """`start` and `works`: seconds before the first update, and of all updates, of which a share is done when it `ends`."""

    placed: Placement
    began: float
    start: float
    works: float
    ends: float
    heard: bool = False


def simulate(decides: Decides, work: Mapping[Job, int], places: Mapping[str, int], world: World | None = None) -> Course:
    """Train all of `work` on `places`; ends also where nothing can continue, with what is trained until then."""
    return Simulation(decides, work, places, world or World()).run()


def bound(work: Mapping[Job, int], places: Mapping[str, int], world: World | None = None) -> float:
    """Seconds that no schedule can beat, on average over the world's chances: all work spread without a remainder over all places while
    they are there, in the fullest stacks; or the longest trial where it is fastest."""
    world = world or World()
    slower = 1 + world.slow * (world.slowness - 1)
    rows, longest = [], 0.0
    for job, count in work.items():
        factors = {kind: slower * world.factors.get((kind, job.families), 1.0) for kind in job.costs}
        rows.append((count, {kind: factor * job.costs[kind].per_trial(job.costs[kind].most) for kind, factor in factors.items()}))
        longest = max(longest, min(factor * job.costs[kind].seconds(1) for kind, factor in factors.items()))
    seconds, present = longest, {kind: float(count) for kind, count in places.items() if count}
    for _ in range(ROUNDS):  # places on average until then; the time until then with so many places
        prices = settle(even(present), rows, present, {}, COLD)
        seconds = max(longest, least_time(prices, rows))
        present = {
            kind: count
            - sum(
                number * (min(back, seconds) - min(away, seconds)) / seconds for place, number, away, back in world.outages if place == kind
            )
            for kind, count in places.items()
            if count
        }
    return seconds


class Simulation:
    def __init__(self, decides: Decides, work: Mapping[Job, int], places: Mapping[str, int], world: World) -> None:
        self._decides, self._world, self._random = decides, world, random.Random(world.seed)
        self._places, self._free, self._left = dict(places), dict(places), sum(work.values())
        self._events: list[tuple[float, int, Stack | tuple[str, int]]] = []
        self._number, self._now, self._course = 0, 0.0, Course()
        self._running: dict[str, dict[Stack, None]] = {kind: {} for kind in places}
        self._rests: dict[tuple[Job, str, int], Job] = {}
        self._whole: dict[Job, tuple[Job, int]] = {job: (job, PARTS) for job in work}  # of what job it is a rest, and of how many parts
        for job, count in work.items():
            decides.add(job, count)
        for kind, count, away, back in world.outages:
            self._at(away, (kind, -count))
            self._at(back, (kind, count))
        decides.resize(places, 0.0)

    def run(self) -> Course:
        self._hand_out()
        while self._left and self._events:
            if self._happens():
                self._hand_out()
        self._course.makespan = self._now
        return self._course

    def _happens(self) -> bool:
        """The next event; whether there may be free places after it."""
        self._now, _, event = heapq.heappop(self._events)
        if isinstance(event, tuple):
            self._resize(*event)
        elif event not in self._running[event.placed.kind]:  # its node has gone, or it was asked to leave
            return False
        elif not event.heard and event.ends > HEARD:
            self._hear(event)
            return False
        else:
            self._end(event, event.ends)
            self._free[event.placed.kind] += 1
        return True

    def _at(self, when: float, event: Stack | tuple[str, int]) -> None:
        self._number += 1
        heapq.heappush(self._events, (when, self._number, event))

    def _hand_out(self) -> None:
        for kind in self._places:
            while self._free[kind] > 0 and (placed := self._decides.take(kind, self._now)):
                self._begin(placed)
        self._course.samples.append((self._now, {kind: len(running) for kind, running in self._running.items()}))

    def _begin(self, placed: Placement) -> None:
        world, draw = self._world, self._random
        of = [world.factors.get((placed.kind, job.families), 1.0) for job, _ in placed.parts]
        noise = max(0.1, draw.gauss(1.0, world.jitter)) * (world.slowness if draw.random() < world.slow else 1.0)
        start = noise * of[0] * placed.parts[0][0].costs[placed.kind].fixed
        works = noise * sum(count * job.costs[placed.kind].each * factor for (job, count), factor in zip(placed.parts, of, strict=True))
        stack = Stack(placed, self._now, start, works, draw.random() if draw.random() < world.failures else 1.0)
        self._running[placed.kind][stack] = None
        self._free[placed.kind] -= 1
        self._course.stacks[placed.kind] += 1
        self._at(self._now + start + works * min(HEARD, stack.ends), stack)

    def _hear(self, stack: Stack) -> None:
        """A stack's first news of how fast it is."""
        stack.heard = True
        self._decides.progressed(stack.placed, HEARD, self._now - stack.began, self._now)
        self._at(stack.began + stack.start + stack.works * stack.ends, stack)

    def _end(self, stack: Stack, share: float) -> None:
        """A stack ends after a share of its time; what its checkpoints do not hold is done again."""
        kind, course, took = stack.placed.kind, self._course, self._now - stack.began
        del self._running[kind][stack]
        self._decides.end(stack.placed, took if share == 1.0 else None)
        course.busy[kind] += took
        for job, count in stack.placed.parts:
            whole, parts = self._whole[job]
            kept = int(parts * share)
            if share == 1.0:
                course.trained[whole] += count
                course.trials[kind] += count
                self._left -= count
                continue
            course.failed += count
            course.lost += took * count / len(stack.placed) * (1 - kept / (parts * share) if share else 0.0)
            self._decides.add(self._rest(whole, kind, parts - kept) if kept or parts < PARTS else job, count)

    def _rest(self, whole: Job, kind: str, parts: int) -> Job:
        """What is left of trials that have begun on a kind, where they continue."""
        if (whole, kind, parts) not in self._rests:
            cost = whole.costs[kind]
            costs = {kind: Cost(cost.fixed, cost.each * parts / PARTS, cost.most)}
            job = self._rests[whole, kind, parts] = Job((whole.name, kind, parts), costs, whole.families)
            self._whole[job] = whole, parts
        return self._rests[whole, kind, parts]

    def _resize(self, kind: str, change: int) -> None:
        """A node comes, or goes and takes with it what trains there."""
        if kind not in self._places:
            return
        change = max(change, -self._places[kind])
        self._places[kind] += change
        if change > 0:
            self._free[kind] += change
        else:
            running = list(self._running[kind])
            lots = self._random.sample(range(len(running) + self._free[kind]), -change)
            for stack in [running[lot] for lot in lots if lot < len(running)]:
                self._end(stack, min(0.999, max(0.0, self._now - stack.began - stack.start) / stack.works))
            self._free[kind] -= sum(lot >= len(running) for lot in lots)
        self._decides.resize(self._places, self._now)
