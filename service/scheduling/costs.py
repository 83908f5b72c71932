"""What a stack costs on each kind of place: an estimate to begin with, corrected by what stacks have taken."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median

KEPT = 15  # newest measurements of a family on a kind, of which the median counts: one straggler moves it little
PRIOR = 2.0  # measurements that what is known of the wider family counts for


@dataclass(frozen=True)
class Cost:
    """Seconds that a stack of n equal trials occupies a place: `fixed` + n x `each`; at most `most` trials fit."""

    fixed: float
    each: float
    most: int

    def seconds(self, members: int) -> float:
        return self.fixed + members * self.each

    def per_trial(self, members: int) -> float:
        """Seconds of a place for each trial in stacks of `members`, or of as many as fit."""
        return self.fixed / max(1, min(members, self.most)) + self.each


@dataclass(frozen=True, eq=False)
class Job:
    """Trials that cost the same and can share a stack, however many there are.

    `costs` has the kinds of place on which they may train. `families`, from the widest to the closest, such as an algorithm and then one
    of its sparsities, share measurements. `mates`: jobs of one value can
    fill up each other's stacks on the kinds that mix, such as GPUs, to which a pruned trial is like a dense one."""

    name: Hashable
    costs: Mapping[str, Cost]
    families: tuple[str, ...] = ()
    mates: Hashable = None


class Corrections:
    """How much longer than estimated stacks have taken, by kind of place and family."""

    def __init__(self) -> None:
        self._ratios: dict[tuple[str, str], deque[float]] = {}  # logarithms; the family "" is the whole kind
        self._medians: dict[tuple[str, str], float] = {}

    def learn(self, kind: str, families: Sequence[str], ratio: float) -> None:
        """A stack took `ratio` times its estimate."""
        if 0 < ratio < math.inf:
            for family in ("", *families):
                known = self._ratios.setdefault((kind, family), deque(maxlen=KEPT))
                known.append(math.log(ratio))
                self._medians[kind, family] = median(known)

    def scale(self, kind: str, ratio: float) -> None:
        """Stacks on a kind will take so much longer from now on than they did."""
        for (of, family), known in self._ratios.items():
            if of == kind:
                self._ratios[of, family] = deque((log + math.log(ratio) for log in known), maxlen=KEPT)
        self._medians |= {key: median(known) for key, known in self._ratios.items() if key[0] == kind}
        if (kind, "") not in self._ratios:
            self.learn(kind, (), ratio)

    def factor(self, kind: str, families: Sequence[str]) -> float:
        """What to multiply an estimate by; a family that was never measured there takes what the wider one was found to take."""
        found = self._medians.get((kind, ""), 0.0)
        for family in families:
            if own := self._ratios.get((kind, family)):
                found = (len(own) * self._medians[kind, family] + PRIOR * found) / (len(own) + PRIOR)
        return math.exp(found)
