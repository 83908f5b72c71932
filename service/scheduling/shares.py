"""How sweeps share the places of one cluster: by priority, then by weight, each kind of place for itself. Pure; the clock is handed in.

Among sweeps of one priority it is weighted max-min fairness: nobody gets more than it asks for, and what one leaves goes to the others by
their weights. That gives fractions of places. Whole ones go round, by what each sweep is owed, so that fractions come true over time.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

CORE = "cpu"  # the kind of place of which each stack on a GPU takes one, too
TURN = 20.0  # seconds of a place that a sweep has to be owed more than another, to be given its turn; a stack takes seconds to start
WAIT = 15.0  # seconds in which a place that is not its due any more may get free by itself
MOST_OWED = 10 * TURN  # of which nothing older is made up for
GONE = 20.0  # seconds without a report after which a sweep has no share
UNUSED = 30.0  # seconds after which a sweep that does not take what it is allowed is asked for no more than it takes
EXACT = 1e-9


@dataclass(frozen=True, kw_only=True)
class Demand:
    """What a sweep reports of itself. By kind of place: `uses`, the places that it has or waits for; `holds`, those of them on which it
    trains; `wants`, those and all others that it could use now; `units`, how much of a device each takes."""

    name: str
    weight: float = 1.0
    priority: int = 0
    uses: Mapping[str, int] = field(default_factory=dict)
    holds: Mapping[str, int] = field(default_factory=dict)
    wants: Mapping[str, int] = field(default_factory=dict)
    units: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Share:
    """What a sweep may use: `places` by kind, of `whole`; `urgent`, the kinds on which a higher priority waits for what it uses above that.
    `others`: the names of those that it shares with; where there are none, nothing limits it."""

    places: Mapping[str, int]
    whole: Mapping[str, int]
    urgent: tuple[str, ...]
    others: tuple[str, ...]

    def __str__(self) -> str:
        """`may use 3 of 8 cpu for now, beside study (anna)`."""
        places = ", ".join(f"{count} of {self.whole[kind]} {kind}" for kind, count in self.places.items()) or "no places"
        return f"may use {places} for now, beside {', '.join(self.others)}"


def fill(capacity: float, wants: Mapping[str, tuple[float, float]]) -> dict[str, float]:
    """Weighted max-min fairness: what each gets of `capacity`, by its weight and its most."""
    given, weights = {}, sum(weight for weight, _ in wants.values())
    for name, (weight, most) in sorted(wants.items(), key=lambda item: (item[1][1] / item[1][0], item[0])):
        given[name] = min(most, max(0.0, capacity) * weight / weights)
        capacity -= given[name]
        weights -= weight
    return given


def in_whole(
    capacity: float, ideal: Mapping[str, float], wants: Mapping[str, int], units: Mapping[str, float], turn: Iterable[str]
) -> dict[str, int]:
    """Whole places for what is `ideal` in devices; what rounding leaves goes to those in `turn` that were rounded down, then to any."""
    given = {name: min(wants[name], math.floor(ideal[name] / units[name] + EXACT)) for name in ideal}
    left = capacity - sum(count * units[name] for name, count in given.items())
    order = list(turn)
    down = [name for name in order if ideal[name] / units[name] - given[name] > EXACT]
    for name in down:
        if given[name] < wants[name] and units[name] <= left + EXACT:
            given[name] += 1
            left -= units[name]
    for name in order:
        more = min(wants[name] - given[name], math.floor(left / units[name] + EXACT))
        if more > 0:
            given[name] += more
            left -= more * units[name]
    return given


def spread(count: int, over: Mapping[str, float]) -> Counter[str]:
    """So many places, on kinds as there is of each."""
    given, total = Counter[str](), sum(over.values())
    if total <= 0:
        return Counter({next(iter(over)): count}) if over and count > 0 else given
    ideal = {kind: count * of / total for kind, of in over.items()}
    given.update({kind: math.floor(part + EXACT) for kind, part in ideal.items()})
    for kind in sorted(ideal, key=lambda kind: (given[kind] - ideal[kind], kind))[: count - given.total()]:
        given[kind] += 1
    return given


class Shares:
    """The sweeps that report, and what each may use. Knows nothing that they would not tell again."""

    def __init__(self, now: float) -> None:
        self._begun = self._at = now
        self._demands: dict[str, Demand] = {}
        self._heard: dict[str, float] = {}
        self._capacity: dict[str, float] = {}
        self._ideal: dict[tuple[str, str], float] = {}  # devices, by sweep and kind
        self._given: dict[tuple[str, str], int] = {}  # places
        self._owed: dict[tuple[str, str], float] = {}  # seconds of a device
        self._short: dict[tuple[str, str], float] = {}  # since when a sweep has used less than it is allowed
        self._urgent: set[tuple[str, str]] = set()

    def report(self, id: str, demand: Demand, capacity: Mapping[str, float], now: float) -> Share:
        """What a sweep may use from now on. `capacity`: devices by kind, as it sees the cluster."""
        self._advance(now)
        self._demands[id], self._heard[id], self._capacity = demand, now, dict(capacity)
        self._divide(now)
        kinds = [kind for kind in demand.wants if kind in self._capacity]
        return Share(
            places={kind: self._given.get((id, kind), 0) for kind in kinds},
            whole={kind: math.floor(self._capacity[kind] / demand.units.get(kind, 1.0) + EXACT) for kind in kinds},
            urgent=tuple(kind for kind in kinds if (id, kind) in self._urgent),
            others=tuple(sorted(other.name for key, other in self._demands.items() if key != id)),
        )

    def leave(self, id: str, now: float) -> None:
        """A sweep has ended."""
        self._advance(now)
        self._forget([id])
        self._divide(now)

    def settled(self, now: float) -> bool:
        """Whether everybody has had the time to report since this began to count."""
        return now - self._begun > GONE / 4

    def _advance(self, now: float) -> None:
        """Count what each sweep has held since the last time against what was its due."""
        passed, self._at = max(0.0, now - self._at), max(self._at, now)
        for (id, kind), due in self._ideal.items():
            demand = self._demands[id]
            held = demand.holds.get(kind, 0) * demand.units.get(kind, 1.0)
            owed = self._owed.get((id, kind), 0.0) + (due - held) * passed
            self._owed[id, kind] = max(-MOST_OWED, min(MOST_OWED, owed))
        self._forget([id for id, heard in self._heard.items() if now - heard > GONE])

    def _forget(self, ids: Iterable[str]) -> None:
        for id in ids:
            self._demands.pop(id, None)
            self._heard.pop(id, None)
            for known in (self._ideal, self._given, self._owed, self._short):
                for key in [key for key in known if key[0] == id]:
                    del known[key]

    def _divide(self, now: float) -> None:
        """Give out all kinds of place; cores last, of which stacks on GPUs have taken theirs."""
        self._ideal, self._urgent, gpu_places = {}, set(), 0
        for kind in sorted(self._capacity, key=lambda kind: kind == CORE):
            given = self._divide_kind(kind, self._capacity[kind] - (gpu_places if kind == CORE else 0), now)
            gpu_places += sum(given.values())

    def _divide_kind(self, kind: str, capacity: float, now: float) -> dict[str, int]:
        asking = {id: demand for id, demand in self._demands.items() if demand.wants.get(kind, 0) > 0}
        units = {id: demand.units.get(kind, 1.0) for id, demand in asking.items()}
        uses = {id: demand.uses.get(kind, 0) for id, demand in asking.items()}
        wants = {id: self._wanted(id, kind, demand, now) for id, demand in asking.items()}
        given: dict[str, int] = {}
        above = 0  # places that go to higher priorities
        for priority in sorted({demand.priority for demand in asking.values()}, reverse=True):
            level = [id for id in asking if asking[id].priority == priority]
            ideal = fill(capacity, {id: (asking[id].weight, wants[id] * units[id]) for id in level})
            floors = {id: math.floor(ideal[id] / units[id] + EXACT) for id in level}
            due = {id: self._owed.get((id, kind), 0.0) + (TURN * units[id] if uses[id] > floors[id] else 0.0) for id in level}
            whole = in_whole(capacity, ideal, wants, units, sorted(level, key=lambda id: (-due[id], id)))
            if above and sum(uses[id] * units[id] for id in level) > capacity + EXACT:
                self._urgent |= {(id, kind) for id in level if uses[id] > whole[id]}
            self._ideal |= {(id, kind): ideal[id] for id in level}
            given |= whole
            above += sum(whole.values())
            capacity -= sum(whole[id] * units[id] for id in level)
        for id, count in given.items():
            if uses[id] >= count:
                self._short.pop((id, kind), None)
            elif count > self._given.get((id, kind), 0) or (id, kind) not in self._short:
                self._short[id, kind] = now
            self._given[id, kind] = count
        for id in self._demands.keys() - given.keys():
            self._given.pop((id, kind), None)
            self._short.pop((id, kind), None)
        return given

    def _wanted(self, id: str, kind: str, demand: Demand, now: float) -> int:
        """The places that a sweep could use: what it asks for, unless it has not taken what it was allowed for a while."""
        wants, uses = demand.wants[kind], demand.uses.get(kind, 0)
        if now - self._short.get((id, kind), now) > UNUSED:
            return min(wants, uses + 1)
        return max(wants, 0)


class Patience:
    """A sweep's own side: when it gives back places that are not its due any more."""

    def __init__(self) -> None:
        self._since: dict[str, float] = {}

    def over(self, uses: Mapping[str, int], share: Share, now: float) -> dict[str, int]:
        """How many stacks are to leave their places of each kind: at once for a higher priority; for an equal one, which would get the
        places of stacks that end by themselves, after a while."""
        most = {kind: max(places, share.whole[kind] == 0) for kind, places in share.places.items()}  # one may wait for the first place
        excess = {kind: uses.get(kind, 0) - places for kind, places in most.items() if uses.get(kind, 0) > places and share.others}
        self._since = {kind: self._since.get(kind, now) for kind in excess}
        return {kind: count for kind, count in excess.items() if kind in share.urgent or now - self._since[kind] >= WAIT}
