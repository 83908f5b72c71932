"""Did the mask itself do anything? A pruned trial against its controls (Frankle et al. 2021), paired over seeds.

Trials of one seed share initial weights, minibatches and evaluation episodes, so differences are taken seed by seed. Their mean has
Student's t interval: with the three to five seeds that people run, a bootstrap over seeds has few distinct resamples and is too narrow,
while t pays for the small number with its width (4.3 standard errors either side for three seeds). It takes the differences for normal.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from trainables.trial import Trial

# 97.5 % quantiles of Student's t with 1, 2, ... degrees of freedom.
T = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.160, 2.145, 2.131, 2.120, 2.110, 2.101, 2.093)
NORMAL = 1.96

WORDS = {
    "shuffle": "its mask shuffled within layers",
    "reinit": "its kept weights drawn again",
    "erk": "a random ERK mask",
    "small_dense": "a small dense network",
}


@dataclass(frozen=True)
class Difference:
    """Mean over `seeds` of score minus the control's score, with its 95 % t interval; one seed has no interval (nan)."""

    mean: float
    low: float
    high: float
    seeds: int

    @property
    def verdict(self) -> str:
        if math.isnan(self.low):
            return "one seed says nothing"
        return "better" if self.low > 0 else "worse" if self.high < 0 else "no difference shown"


def paired(differences: Sequence[float]) -> Difference:
    """The estimate from one difference per seed."""
    count, mean = len(differences), statistics.fmean(differences)
    if count == 1:
        return Difference(mean, math.nan, math.nan, 1)
    factor = T[count - 2] if count - 2 < len(T) else NORMAL
    half = factor * statistics.stdev(differences) / math.sqrt(count)
    return Difference(mean, mean - half, mean + half, count)


def compare(trials: Sequence[Trial], scores: Mapping[str, float]) -> dict[str, dict[str, Difference]]:
    """For each cell of a study (as text) and each of its controls, the difference; only where both have a score for some seed."""
    found: dict[str, dict[str, list[float]]] = {}
    for trial in trials:
        where = trial.name.rsplit("/", 1)[0] + "".join(f", {name} {value}" for name, value in trial.hyper.items())
        for kind, control in trial.controls().items():
            if trial.key in scores and control.key in scores:
                found.setdefault(where, {}).setdefault(kind, []).append(scores[trial.key] - scores[control.key])
    return {where: {kind: paired(own) for kind, own in kinds.items()} for where, kinds in found.items()}


def text_of(trials: Sequence[Trial], scores: Mapping[str, float]) -> str:
    """The section of the results, empty where there is no control."""
    lines = []
    for where, kinds in compare(trials, scores).items():
        lines.append(where)
        for kind, found in kinds.items():
            interval = "" if math.isnan(found.low) else f" [{found.low:+.1f}, {found.high:+.1f}]"
            lines.append(f"  against {WORDS[kind]:<33}{found.mean:+6.1f}{interval}  n={found.seeds}  {found.verdict}")
    if not lines:
        return ""
    head = "did the mask itself do anything? score minus the control's, paired over seeds [95 % t interval]"
    foot = "a mask that is not better than itself shuffled has chosen how many weights each layer keeps, not which"
    return "\n".join([head, *lines, foot])
