"""Several sweeps on one cluster, on a clock of its own: how evenly they share it, by the code that a cluster shares its places with."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

from service.scheduling.costs import Job
from service.scheduling.scheduler import Placement
from service.scheduling.shares import Demand, Patience, Share, Shares
from service.scheduling.simulator import Course, Decides, Simulation, Stack, World

REPORT_EVERY = 1.0  # seconds


@dataclass(frozen=True, kw_only=True)
class Sweep:
    """`decides` what trains where among its own trials, `work`; it comes `begins` seconds after the start."""

    work: Mapping[Job, int]
    decides: Decides
    weight: float = 1.0
    priority: int = 0
    begins: float = 0.0


@dataclass
class Courses:
    """What became of all. `samples`: when, and how many places of each kind each sweep had from then on; `interrupted`: stacks of each that
    were asked to leave."""

    whole: Course
    samples: list[tuple[float, dict[str, dict[str, int]]]] = field(default_factory=list)
    interrupted: Counter[str] = field(default_factory=Counter)

    def place_seconds(self, begin: float, end: float) -> dict[str, float]:
        """Of each sweep, between two times, of all kinds together."""
        found: dict[str, float] = {}
        for (when, held), (until, _) in zip(self.samples, [*self.samples[1:], (self.whole.makespan, {})], strict=True):
            seconds = max(0.0, min(until, end) - max(when, begin))
            for name, places in held.items():
                found[name] = found.get(name, 0.0) + seconds * sum(places.values())
        return found


def simulate_together(sweeps: Mapping[str, Sweep], places: Mapping[str, int], world: World | None = None, until: float = 1e12) -> Courses:
    """Train all sweeps on `places`, of which each takes what it is allowed, or what they come to `until` a time."""
    return _Together(sweeps, places, world or World()).share(until)


class _Sharing:
    """What the simulation asks: which sweep's stack a free place takes."""

    def __init__(self, sweeps: Mapping[str, Sweep]) -> None:
        self.sweeps, self.owner = sweeps, {job: name for name, sweep in sweeps.items() for job in sweep.work}
        self.allowed: dict[str, Share] = {}
        self.running: dict[Placement, str] = {}

    def uses(self, name: str) -> Counter[str]:
        return Counter(placed.kind for placed, owner in self.running.items() if owner == name)

    def add(self, job: Job, count: int) -> None:
        self.sweeps[self.owner[job]].decides.add(job, count)

    def resize(self, places: Mapping[str, int], now: float) -> None:
        for sweep in self.sweeps.values():
            sweep.decides.resize(places, now)

    def take(self, kind: str, now: float) -> Placement | None:
        for name, share in self.allowed.items():
            most = (share.places if share.others else share.whole).get(kind, 0)
            if self.uses(name)[kind] < most and (placed := self.sweeps[name].decides.take(kind, now)):
                self.running[placed] = name
                return placed
        return None

    def progressed(self, placed: Placement, share: float, seconds: float, now: float) -> None:
        self.sweeps[self.running[placed]].decides.progressed(placed, share, seconds, now)

    def end(self, placed: Placement, seconds: float | None = None) -> None:
        self.sweeps[self.running.pop(placed)].decides.end(placed, seconds)


class _Together(Simulation):
    def __init__(self, sweeps: Mapping[str, Sweep], places: Mapping[str, int], world: World) -> None:
        self._sharing, self._shares = _Sharing(sweeps), Shares(0.0)
        self._patience = {name: Patience() for name in sweeps}
        self._waiting = Counter({name: sum(sweep.work.values()) for name, sweep in sweeps.items()})
        work = {job: count for sweep in sweeps.values() for job, count in sweep.work.items()}
        super().__init__(self._sharing, work, places, world)
        self._courses = Courses(self._course)

    def share(self, until: float) -> Courses:
        report_at = 0.0
        while self._left and self._now < until:
            while self._events and self._events[0][0] <= report_at:
                if self._happens():
                    self._hand_out()
            self._now = report_at
            self._report()
            self._hand_out()
            report_at += REPORT_EVERY
        self._course.makespan = self._now
        return self._courses

    def _report(self) -> None:
        """Each sweep that has begun says what it uses and hears what it may use; stacks above that leave."""
        capacity, sharing = {kind: float(count) for kind, count in self._places.items()}, self._sharing
        for name, sweep in sharing.sweeps.items():
            uses = sharing.uses(name)
            if sweep.begins > self._now or not (self._waiting[name] or uses):
                if sharing.allowed.pop(name, None):
                    self._shares.leave(name, self._now)
                continue
            wants = {kind: uses[kind] + self._waiting[name] for kind in self._places}
            demand = Demand(name=name, weight=sweep.weight, priority=sweep.priority, uses=uses, holds=uses, wants=wants)
            share = sharing.allowed[name] = self._shares.report(name, demand, capacity, self._now)
            for kind, count in self._patience[name].over(uses, share, self._now).items():
                self._interrupt(name, kind, count)

    def _interrupt(self, name: str, kind: str, count: int) -> None:
        """Stacks leave their places, those that have longest to go first; what they have done is kept."""
        ours = [stack for stack in self._running[kind] if self._sharing.running[stack.placed] == name]
        for stack in sorted(ours, key=lambda stack: stack.began + stack.start + stack.works, reverse=True)[:count]:
            self._end(stack, min(0.999, max(0.0, self._now - stack.began - stack.start) / stack.works))
            self._free[kind] += 1
            self._courses.interrupted[name] += 1

    def _hand_out(self) -> None:
        super()._hand_out()
        self._courses.samples.append((self._now, {name: dict(self._sharing.uses(name)) for name in self._sharing.sweeps}))

    def _begin(self, placed: Placement) -> None:
        self._waiting[self._sharing.running[placed]] -= len(placed)
        super()._begin(placed)

    def _end(self, stack: Stack, share: float) -> None:
        if share < 1.0:
            self._waiting[self._sharing.running[stack.placed]] += len(stack.placed)
        super()._end(stack, share)

    def _rest(self, whole: Job, kind: str, parts: int) -> Job:
        job = super()._rest(whole, kind, parts)
        self._sharing.owner[job] = self._sharing.owner[whole]
        return job
