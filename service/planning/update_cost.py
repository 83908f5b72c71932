"""What an update of a trial costs relative to a dense one of its algorithm: for estimates of time, never for results."""

from __future__ import annotations

import math

from trainables import plugins
from trainables.trial import BREAK_EVEN, Trial
from trainables.trial.pruner_traits import traits_of

# Share of a dense update on a CPU: fixed, and per density of kept weights, fitted at 80, 90, 95 % (TD3+BC, benchmarks/speed/updates.json).
FIXED, KEPT = 0.04, 1.1
# Dense updates per second of one stack, evaluations included, until this storage has measured its own: (device, algorithm).
UPDATES_PER_SECOND = {("cpu", "bc"): 450.0, ("cpu", "td3_bc"): 130.0, ("cpu", "iql"): 95.0}
OTHERWISE = {"cpu": 30.0, "cuda": 25_000.0}


def price(trial: Trial, device: str, execution: str = "auto") -> float:
    """A share in (0, 1] of a dense update's time; 1 where all weights are computed, kept or not."""
    if device != "cpu" or execution not in {"auto", "sparse"}:
        return 1.0
    densities = [1 - trial.sparsity_in(network) for network in plugins.networks(trial.algorithm)]
    if not (traits := traits_of(trial.pruner)).starts_sparse and traits.during_training:
        # From 1 to d by equal factors, on average: right for IMP, a fifth too low for GMP at 95 %.
        densities = [(1 - density) / -math.log(density) if density < 1 else 1.0 for density in densities]
    shares = [FIXED + KEPT * density if density <= BREAK_EVEN else 1.0 for density in densities]
    return sum(shares) / len(shares)


def prior(device: str, algorithm: str) -> float:
    """Dense updates per second of a stack, before this storage has measured any."""
    return UPDATES_PER_SECOND.get((device, algorithm), OTHERWISE[device])
