"""What a second of each kind of place is worth to a sweep: the dual prices of spreading its work over unrelated machines.

Where places of kind k are `places[k]` and a class of n equal trials costs `seconds[k]` each, the fastest schedule that may cut trials at
will takes max over prices of the sum of n x min_k price[k] x seconds[k], where the prices of all places add up to 1 (duality of linear
programs; Lenstra, Shmoys & Tardos 1990 state the program). Any prices give a lower bound, and the best ones say what trains where: a class
where its seconds are cheapest.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence

Class = tuple[float, Mapping[str, float]]  # how many equal trials, and the seconds of each by kind of place

SOFT = 0.03  # classes are spread over kinds whose costs differ by less than about so much: with hard choices prices would swing for ever
WARM = (0.04,) * 2
FAR = 9.0  # difference of two prices' logarithms beyond which it changes no choice
FIRST = (0.5, 0.25, 0.12, 0.06, *WARM)  # where the prices of more kinds are known
COLD = tuple(0.04 + 0.5 * 0.95**n for n in range(120))  # and where nothing is known


def even(places: Mapping[str, float]) -> dict[str, float]:
    """Every place is worth the same."""
    total = sum(places.values())
    return {kind: 1 / total for kind, count in places.items() if count > 0}


def settle(
    prices: Mapping[str, float], work: Sequence[Class], places: Mapping[str, float], busy: Mapping[str, float], steps: Iterable[float]
) -> dict[str, float]:
    """Prices after some `steps`: they rise where more work wants to go than others have. `busy`: seconds that must be spent on a kind."""
    kinds = list(prices)
    logs = [math.log(prices[kind]) for kind in kinds]
    wanted = [busy.get(kind, 0.0) for kind in kinds]
    rows = [row for count, seconds in work if (row := _row(count, [seconds.get(kind, math.inf) for kind in kinds]))]
    for step in steps:
        loads, highest = list(wanted), max(logs)
        dear = [math.exp((highest - log) / SOFT) for log in logs]
        for row in rows:
            whole = 0.0
            for number, liking, _ in row:
                whole += liking * dear[number]
            for number, liking, total in row if whole else ():
                loads[number] += total * liking * dear[number] / whole
        mean = sum(load * math.exp(log) for load, log in zip(loads, logs, strict=True))
        if mean <= 0:
            break
        for number, kind in enumerate(kinds):
            uneven = math.log(max(loads[number] / places[kind], 1e-9 * mean) / mean)
            logs[number] = max(highest - FAR, logs[number] + step * max(-1.0, min(1.0, uneven)))
        total = math.log(sum(places[kind] * math.exp(log) for kind, log in zip(kinds, logs, strict=True)))
        logs = [log - total for log in logs]
    return {kind: math.exp(log) for kind, log in zip(kinds, logs, strict=True)}


def _row(count: float, seconds: Sequence[float]) -> list[tuple[int, float, float]]:
    """Of a class, the number of each kind that can train it, how much it likes that kind at equal prices, and its seconds there in all."""
    least = min(seconds)
    if not 0 < least < math.inf:
        return []
    log = math.log(least)
    likings = (
        (number, math.exp(max(-600.0, (log - math.log(each)) / SOFT)), each) for number, each in enumerate(seconds) if each < math.inf
    )
    return [(number, liking, count * each) for number, liking, each in likings]


def least_time(prices: Mapping[str, float], work: Iterable[Class], busy: Mapping[str, float] | None = None) -> float:
    """Seconds that the work takes at least, whatever trains where; the closer the prices are to the best ones, the tighter."""
    time = sum((busy or {}).get(kind, 0.0) * price for kind, price in prices.items())
    for count, seconds in work:
        time += count * min((prices[kind] * each for kind, each in seconds.items() if kind in prices), default=0.0)
    return time
