"""How many trials a stack on a GPU has, and how many stacks share one: as many as add to what it gets done. Knows no GPU and no clock.

A stack of n trials makes an update in seconds(n), less for each trial the larger it is, until it fills the GPU. Beside its updates it is
idle for a while (it starts, reads data, records, plays the last episodes), in which another one can train. Two that train at once take
twice as long each. What stacks have taken corrects all of this."""

from __future__ import annotations

import math
from bisect import bisect_left
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import median

GAIN = 0.05  # of what a GPU gets done: less is not worth twice the trials in a stack, nor one more stack
MOST_STACKS = 4  # on one GPU
NEAR = 16.0  # times that a report counts less than one of twice or half its size, where both are heard of
KEPT = 15  # newest reports of an algorithm on a kind, of each size
PRIOR = 1.0  # reports that what was measured elsewhere counts for


@dataclass(frozen=True)
class Curve:
    """Seconds of a whole GPU for an update of a stack, by its members: `points` in that order, lines between and beyond them."""

    points: tuple[tuple[int, float], ...]

    def seconds(self, members: float) -> float:
        sizes = [size for size, _ in self.points]
        above = min(max(1, bisect_left(sizes, members)), len(sizes) - 1)
        (a, low), (b, high) = self.points[above - 1], self.points[above]
        return low + (high - low) * (members - a) / (b - a)


@dataclass(frozen=True, kw_only=True)
class Load:
    """Trials that can share stacks: so many, of `updates`. `seconds`: of a whole GPU for an update of so many of them; `most`: that fit
    into a stack where so many stacks share the memory. `factor`: how much longer such stacks took, by members and stacks on the GPU."""

    count: int
    updates: int
    seconds: Callable[[int], float]
    most: Callable[[int], int]
    factor: Callable[[int, int], float] = lambda members, stacks: 1.0


def worthwhile(seconds: Callable[[int], float], most: int) -> int:
    """The largest stack up to `most` that gets enough more done than one of half its size."""
    size = 1
    while size < most:
        larger = min(2 * size, most)
        if larger / size * seconds(size) / seconds(larger) - 1 < GAIN * math.log2(larger / size):
            break
        size = larger
    return size


def wall(updates: float, seconds: float, stacks: int, idle: float) -> float:
    """Seconds of a stack whose updates take `seconds` of a whole GPU each: the longer of its own time, and of all updates on the GPU."""
    return max(idle + updates * seconds, stacks * updates * seconds)


def stacks_per_gpu(loads: Sequence[Load], gpus: float, cores: float, idle: float, most: int = MOST_STACKS) -> int:
    """How many stacks are to share each of `gpus`: one more only where all is done so much sooner. Each takes a core."""
    if not loads:
        return 1
    stacks, took = 1, _gpu_seconds(loads, 1, gpus, idle)
    while stacks < min(most, MOST_STACKS) and (stacks + 1) * gpus <= cores:
        less = _gpu_seconds(loads, stacks + 1, gpus, idle)
        if took / less - 1 < GAIN:
            break
        stacks, took = stacks + 1, less
    return stacks


def _gpu_seconds(loads: Sequence[Load], stacks: int, gpus: float, idle: float) -> float:
    """Seconds of GPUs, those that wait for the last stacks included, for all loads in stacks of sizes that are worthwhile, or that leave no
    place empty."""
    places, number, total = max(1.0, gpus * stacks), 0, 0.0  # number: of stacks
    each = math.ceil(sum(load.count for load in loads) / places)
    for load in loads:
        most = max(1, min(load.most(stacks), each, load.count))
        size = worthwhile(lambda members, load=load: load.seconds(members) * load.factor(members, stacks), most)  # type: ignore[misc]
        fresh = math.ceil(load.count / size)
        number += fresh
        total += fresh * load.factor(size, stacks) * wall(load.updates, load.seconds(size), stacks, idle) / stacks
    return total * math.ceil(number / places) * places / number


class Reports:
    """How much longer stacks have taken than their curve says, by kind of GPU, algorithm, members, and stacks beside each other."""

    def __init__(self) -> None:
        self._found: dict[tuple[str, str], dict[int, dict[float, deque[float]]]] = {}  # logarithms, by stacks and logarithm of members

    def learn(self, kind: str, algorithm: str, members: int, stacks: int, ratio: float) -> None:
        if 0 < ratio < math.inf:
            sizes = self._found.setdefault((kind, algorithm), {}).setdefault(stacks, {})
            sizes.setdefault(math.log2(members), deque(maxlen=KEPT)).append(math.log(ratio))

    def tried(self, kind: str) -> int:
        """The most stacks on a GPU of a kind of which anything was heard."""
        return max((max(found) for (of, _), found in self._found.items() if of == kind), default=0)

    def factor(self, kind: str, algorithm: str, members: int, stacks: int) -> float:
        """What to multiply the curve's time by: what stacks of about that size took, with as many on a GPU or with the next number that was
        ever there. What is nearest in size counts most."""
        if not (found := self._found.get((kind, algorithm))):
            return 1.0
        sizes = found[min(found, key=lambda number: (abs(number - stacks), number))]
        away = {size: abs(math.log2(members) - size) for size in sizes}
        weights = {size: len(known) * NEAR ** -away[size] for size, known in sizes.items()}
        heard = sum(map(len, sizes.values()))
        found_here = sum(weight * median(sizes[size]) for size, weight in weights.items()) / sum(weights.values())
        return math.exp(found_here * heard / (heard + PRIOR))
