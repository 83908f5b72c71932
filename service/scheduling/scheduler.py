"""Gives each free place the stack that shortens the sweep most. Works on counts of equal trials; the clock is handed in."""

from __future__ import annotations

import heapq
import math
from collections.abc import Callable, Collection, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from service.scheduling.costs import Corrections, Cost, Job
from service.scheduling.prices import COLD, FIRST, WARM, even, least_time, settle

ROUNDS = 2  # stacks per place to come at least, where smaller stacks cost little more: the last ones end together
WORTH = 0.9  # of the trials of one long stack that two short ones must still train, to be preferred
LIKE = 0.1  # logarithm of a price within which two kinds are alike
URGENT = 4.0  # times that a trial fits into the rest of the sweep, below which the long ones go first
SHORT = 4.0  # times that a trial fits into the longest one of its kind of place, from which it is kept for the end
SETTLED = 20  # times as many steps of the prices are affordable where there is one class
CLOSE = 2.0  # times that the longest trial would fit into the rest, below which it matters who gets the last ones
UNSURE = 0.7  # logarithm: estimates may be off by twice
TRY = 10.0  # trials, and times that one fits into the rest of the sweep, from which it is worth a trial to find out
DRIFT = 0.01  # share of the remaining time after which the prices are settled again


@dataclass(frozen=True, eq=False)
class Placement:
    """A stack for a place of `kind`: how many trials of which jobs. `estimate`: seconds without corrections."""

    kind: str
    parts: tuple[tuple[Job, int], ...]
    estimate: float

    def __len__(self) -> int:
        return sum(count for _, count in self.parts)


@dataclass(eq=False)
class _Class:
    """Jobs whose trials cost the same wherever they train."""

    costs: Mapping[str, Cost]
    families: tuple[str, ...]
    left: int = 0
    fullest: list[tuple[int, int, Job]] = field(default_factory=list)  # a heap; entries with an old count are skipped
    # As corrected when the prices were last settled, by the kinds that there are: seconds of a place
    fixed: dict[str, float] = field(default_factory=dict)
    each: dict[str, float] = field(default_factory=dict)
    per_trial: dict[str, float] = field(default_factory=dict)
    helping: list[str] = field(default_factory=list)  # the kinds on which a trial that is begun now is of use
    advantage: dict[str, float] = field(default_factory=dict)  # logarithm: how much dearer the next best kind is
    tried: set[str] = field(default_factory=set)
    speed: float = 0.0  # trials per second if every place of these trained this class alone

    def alone(self, kind: str) -> float:
        """Seconds of a stack of one."""
        return self.fixed[kind] + self.each[kind]


class Scheduler:
    """Decides on counts alone: who has the trials takes as many of each job as `take` says."""

    def __init__(
        self,
        mixing: Collection[str] = (),
        largest: Callable[[Job, str], float] = lambda job, kind: math.inf,
    ) -> None:
        """`mixing`: the kinds on which jobs that are mates share stacks. `largest`: how many trials of a job a stack on a kind may have by
        what is known now, at most as many as its cost says."""
        self._mixing, self.corrections, self._largest = frozenset(mixing), Corrections(), largest
        self.places: dict[str, int] = {}
        self._left: dict[Job, int] = {}
        self._classes: dict[Hashable, _Class] = {}
        self._class_of: dict[Job, _Class] = {}
        self._mates: dict[Hashable, set[Job]] = {}
        self._running: dict[str, dict[Placement, float]] = {}  # with when each is expected to end
        self._until: dict[str, float] = {}  # sum of those times
        self._prices: dict[str, float] = {}
        self._order: dict[str, list[_Class]] = {}
        # Close to the end: how long all that is left would take if a kind took nothing more, and when that was looked at.
        self._without: dict[str, tuple[float, float]] = {}
        self._prices_without: dict[str, dict[str, float]] = {}
        self._outdated: set[str] = set()  # kinds of `_without`; one is looked at in a decision, so that each is quick
        self._rest, self._settled, self._changed, self._numbers = math.inf, 0.0, True, 0

    @property
    def left(self) -> int:
        """How many trials nobody has taken."""
        return sum(known.left for known in self._classes.values())

    def add(self, job: Job, count: int) -> None:
        """So many trials of a job are to be done, more than before."""
        known = self._class_of.get(job)
        if known is None:
            key = (job.families, *sorted(job.costs.items(), key=lambda item: item[0]))
            known = self._class_of[job] = self._classes.setdefault(key, _Class(job.costs, job.families))
            if not known.left:
                self._changed = True
        if job.mates is not None:
            self._mates.setdefault(job.mates, set()).add(job)
        self._change(job, count)

    def resize(self, places: Mapping[str, int], now: float) -> None:
        """There are so many places of each kind now."""
        self.places = {kind: count for kind, count in places.items() if count > 0}
        fresh = self.places.keys() != self._prices.keys()
        if fresh:
            self._prices = even(self.places)
        if self.places:
            self._settle(now, COLD if fresh else WARM)

    def take(self, kind: str, now: float) -> Placement | None:
        """The stack to train on a free place of a kind; None where all that is left ends sooner elsewhere, or nothing is left."""
        if kind not in self.places:
            return None
        if self._changed or now - self._settled > DRIFT * self._rest:
            self._settle(now, WARM)
        elif kind in self._outdated:
            self._look_without(kind, now)
        if untried := self._untried(kind):
            return self._place(untried, kind, 1, now)
        for known in self._order.get(kind, ()):
            if known.left and self._ends_in_time(known, kind, now):
                return self._place(known, kind, self._members(known, kind, self.rest(now)), now)
        return None

    def _untried(self, kind: str) -> _Class | None:
        """A class that may well belong here, or not, whose cost here is a guess: one trial tells, while there is much to do."""
        for known in self._order.get(kind, ()):
            if kind not in known.tried:
                known.tried.add(kind)
                if known.left > TRY and len(known.each) > 1 and known.advantage[kind] > -UNSURE and TRY * known.alone(kind) < self._rest:
                    return known
        return None

    def progressed(self, placed: Placement, share: float, seconds: float, now: float) -> None:
        """A stack has done this share of its updates after so many seconds."""
        lead = placed.parts[0][0].costs[placed.kind]
        expected = lead.fixed + share * (placed.estimate - lead.fixed)
        self._learn(placed, seconds / expected)
        until = now + (placed.estimate - expected) * seconds / expected
        self._until[placed.kind] += until - self._running[placed.kind][placed]
        self._running[placed.kind][placed] = until

    def end(self, placed: Placement, seconds: float | None = None) -> None:
        """A stack has ended, after so many seconds where it did all that it was to do; what is not done is added again by `add`."""
        self._until[placed.kind] -= self._running[placed.kind].pop(placed)
        if seconds is not None and placed.estimate > 0:
            self._learn(placed, seconds / placed.estimate)

    def _learn(self, placed: Placement, ratio: float) -> None:
        for families in dict.fromkeys(job.families for job, _ in placed.parts):
            self.corrections.learn(placed.kind, families, ratio)

    def rest(self, now: float) -> float:
        """About how many seconds all that is left and in training takes from now on."""
        return max(0.0, self._rest - max(0.0, now - self._settled))

    def _change(self, job: Job, by: int) -> None:
        count = self._left[job] = self._left.get(job, 0) + by
        known = self._class_of[job]
        known.left += by
        if count:
            self._numbers += 1
            heapq.heappush(known.fullest, (-count, self._numbers, job))
        elif job.mates is not None:
            self._mates[job.mates].discard(job)

    def _fullest(self, known: _Class) -> Job:
        """The job of a class with most trials left, so that stacks get full."""
        while True:
            count, _, job = known.fullest[0]
            if -count == self._left[job]:
                return job
            heapq.heappop(known.fullest)

    def _settle(self, now: float, steps: tuple[float, ...]) -> None:
        """Move the prices to what is left now, and sort the classes for each kind."""
        busy, live = self._busy(now), self._live()
        for known in live:
            self._estimate(known, now)
        work = [(known.left, {kind: known.per_trial[kind] for kind in known.helping}) for known in live]
        steps *= _times(live)
        self._prices = settle(self._prices, work, self.places, busy, steps)
        self._rest, self._settled, self._changed = least_time(self._prices, work, busy), now, False
        longest = max((known.alone(kind) for known in live for kind in known.each), default=0.0)
        self._outdated = {*self.places} if CLOSE * longest > self._rest else set()
        if not self._outdated:
            self._without.clear()
        for kind in self.places:
            here = [known for known in live if kind in known.per_trial]
            for known in here:
                known.advantage[kind] = self._advantage(kind, known.per_trial)
            ours = [known.alone(kind) for known in here if known.advantage[kind] > -LIKE and known.alone(kind) <= self._rest]
            ranked = [(*self._rank(known, kind, max(ours, default=0.0)), number) for number, known in enumerate(here)]
            self._order[kind] = [here[number] for *_, number in sorted(ranked)]

    def _look_without(self, kind: str, now: float) -> None:
        """About how long the other kinds would take for all that is left, if this one took nothing more."""
        self._outdated.discard(kind)
        others = {other: count for other, count in self.places.items() if other != kind}
        if not others:
            self._without.pop(kind, None)
            return
        live, busy = self._live(), self._busy(now)
        work = [(known.left, known.per_trial) for known in live]
        known = self._prices_without.get(kind, {})
        total = sum(self._prices[other] * count for other, count in others.items())
        ours = {other: self._prices[other] / total for other in others}
        start, steps = (known, WARM) if known.keys() == others.keys() else (ours, FIRST)
        prices = self._prices_without[kind] = settle(start, work, others, busy, steps * _times(live))
        self._without[kind] = least_time(prices, work, {other: busy[other] for other in others}), now

    def _busy(self, now: float) -> dict[str, float]:
        """For how many seconds the places of each kind are taken, in all."""
        return {kind: max(0.0, self._until.get(kind, 0.0) - now * len(self._running.get(kind, ()))) for kind in self.places}

    def _live(self) -> list[_Class]:
        return [known for known in self._classes.values() if known.left]

    def _estimate(self, known: _Class, now: float) -> None:
        """What a class costs as far as is known now, in stacks as large as are likely."""
        rest = self.rest(now)
        factors = {kind: self.corrections.factor(kind, known.families) for kind in known.costs if kind in self.places}
        known.fixed = {kind: factor * known.costs[kind].fixed for kind, factor in factors.items()}
        known.each = {kind: factor * known.costs[kind].each for kind, factor in factors.items()}
        known.helping = [kind for kind in factors if self._ends_in_time(known, kind, now)]
        known.speed = sum(self.places[kind] / known.each[kind] for kind in known.helping)
        fullest = self._fullest(known)
        known.per_trial = {
            kind: known.fixed[kind] / min(self._stackable(fullest, kind), self._members(known, kind, rest)) + each
            for kind, each in known.each.items()
        }

    def _ends_in_time(self, known: _Class, kind: str, now: float) -> bool:
        """Whether one trial begun now on this kind ends before another kind would have done all that is left, and it."""
        elsewhere = min((known.alone(other) for other in known.each if other != kind), default=math.inf)
        without, looked = self._without.get(kind, (math.inf, now))
        return known.alone(kind) <= max(0.0, without - (now - looked)) + elsewhere

    def _members(self, known: _Class, kind: str, rest: float) -> int:
        """How many trials of a class are best put together on a kind, where all that is left takes `rest` seconds."""
        fixed, each = known.fixed[kind], known.each[kind]
        one, two = (rest - fixed) / each, (rest / ROUNDS - fixed) / each
        share = known.left / (each * known.speed)  # alone in the world, the class would be done by one such stack on each place
        most = min(known.costs[kind].most, self._largest(self._fullest(known), kind))
        return max(1, int(min(most, max(share, two if ROUNDS * two >= WORTH * one else one))))

    def _stackable(self, job: Job, kind: str) -> int:
        if job.mates is None or kind not in self._mixing:
            return self._left[job]
        return sum(self._left[mate] for mate in self._mates[job.mates])

    def _advantage(self, kind: str, seconds: Mapping[str, float]) -> float:
        """The logarithm of how much dearer a class is where it would train otherwise."""
        elsewhere = min((self._prices[other] * each for other, each in seconds.items() if other != kind), default=math.inf)
        return math.log(elsewhere / (self._prices[kind] * seconds[kind])) if elsewhere < math.inf else math.inf

    def _rank(self, known: _Class, kind: str, longest: float) -> tuple[int, float]:
        """What a kind takes first: long trials that clearly belong here, then those that may as well train elsewhere, then short ones,
        with which the last places end together; and last what belongs elsewhere, or would hold up the end."""
        advantage, alone = known.advantage[kind], known.alone(kind)
        if alone > self._rest:
            return 4, alone
        if advantage <= -LIKE:
            return 3, -advantage
        if SHORT * alone < longest:
            return 2, -alone
        return (0, -alone) if URGENT * alone > self._rest else (1, -advantage)

    def _place(self, known: _Class, kind: str, size: int, now: float) -> Placement:
        lead = self._fullest(known)
        parts = [(lead, min(size, self._left[lead]))]
        if lead.mates is not None and kind in self._mixing:
            room = size - parts[0][1]
            for mate in self._cheap_mates(lead, kind) if room > 0 else ():
                parts.append((mate, min(room, self._left[mate], mate.costs[kind].most)))
                room -= parts[-1][1]
                if room <= 0:
                    break
        estimate = max(job.costs[kind].fixed for job, _ in parts) + sum(count * job.costs[kind].each for job, count in parts)
        placed = Placement(kind, tuple(parts), estimate)
        until = now + estimate * self.corrections.factor(kind, known.families)
        for job, count in parts:
            self._change(job, -count)
        self._running.setdefault(kind, {})[placed] = until
        self._until[kind] = self._until.get(kind, 0.0) + until
        return placed

    def _cheap_mates(self, lead: Job, kind: str) -> Iterator[Job]:
        """Jobs that may fill up a stack, unless another kind trains them for less than the stack gets longer by."""
        for mate in sorted(self._mates[lead.mates] - {lead}, key=lambda job: str(job.name)):
            if not self._left[mate] or kind not in mate.costs:
                continue
            known = self._class_of[mate]
            elsewhere = (self._prices[other] * seconds for other, seconds in known.per_trial.items() if other != kind)
            if self._prices[kind] * known.each[kind] <= min(elsewhere, default=math.inf):
                yield mate


def _times(live: Sequence[_Class]) -> int:
    """How often the steps of the prices are made: more where few classes make each cheap."""
    return max(1, SETTLED // (1 + len(live)))
