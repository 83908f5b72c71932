"""What is reported of an evaluation's episodes. One entry of METRICS is one metric; nothing else has to be changed for it.

An episode is described by one number per quantity: `returns`, undiscounted, `scores`, normalized, and, where the environment reports
successes, `successes`, 0 or 1. Another quantity is added where episodes are played, in trainables/simulation/evaluator.py, and is then in
every spool. A metric that people rank by needs a label in service/results/outcomes.py, too. No torch.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

Episodes = Mapping[str, list[float]]  # quantity -> a number per episode, [E]; none of a quantity that is not known


def spread(values: list[float]) -> float:
    """Standard deviation over the episodes (population)."""
    mean = sum(values) / len(values)
    return float((sum((value - mean) ** 2 for value in values) / len(values)) ** 0.5)


def mean(values: list[float]) -> float:
    return sum(values) / len(values)


# metric -> the quantity it is computed from, and how
METRICS: dict[str, tuple[str, Callable[[list[float]], float]]] = {
    "return": ("returns", mean),
    "normalized_score": ("scores", mean),
    "normalized_score_std": ("scores", spread),
    "success_rate": ("successes", mean),
}


def known(episodes: Episodes) -> dict[str, list[float]]:
    """The quantities that are known of a member: without reference returns all scores are nan, although the returns are not, and where
    nothing is reported all successes are. Some environments report a success and nothing else: then the other episodes have none."""
    found, returns = dict(episodes), episodes["returns"]
    if all(math.isnan(score) and not math.isnan(total) for score, total in zip(episodes["scores"], returns, strict=True)):
        found["scores"] = []
    successes = found.pop("successes", [])
    if not all(map(math.isnan, successes)):
        silent = (math.isnan(success) and not math.isnan(total) for success, total in zip(successes, returns, strict=True))
        found["successes"] = [0.0 if nothing else success for success, nothing in zip(successes, silent, strict=True)]
    return found


def metrics_of(episodes: Episodes) -> dict[str, float]:
    """The metrics of a member's episodes, without those of quantities that are not known."""
    return {name: compute(episodes[quantity]) for name, (quantity, compute) in METRICS.items() if episodes.get(quantity)}
