"""What a trial costs on each kind of place, before any of it was measured on this cluster. No torch."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from service.planning.update_cost import UPDATES_PER_SECOND, price
from service.scheduling.costs import Cost
from trainables.trial import Trial

# Seconds of an H100 for an update of a stack: of any size, and for each of its members (benchmarks/speed/gpu.json, K = 8 and 128).
GPU_UPDATE = {"td3_bc": (2.9e-4, 1.74e-5), "iql": (4.3e-4, 2.22e-5)}
LIKE = "td3_bc"  # an algorithm that was not measured there costs a GPU as much more or less than this one as it does a CPU
START = {"cpu": 3.0, "cuda": 10.0}  # seconds of a stack besides updates: a worker's start, data, recording, the final episodes
SLICES = 7  # of a GPU that MIG divides; 3g is three of them


@dataclass(frozen=True, kw_only=True)
class Kind:
    """A kind of place: `cpu`, or a GPU's model. Trials keep to one kind, since each rounds in its own way.

    `share`: of a GPU, for each stack on it. `most`: trials of a stack at most."""

    name: str
    device: str
    most: int
    share: float = 1.0

    @property
    def part(self) -> float:
        """How much of a whole GPU it is, by its name: 3/7 of `H100 80GB HBM3 MIG 3g.40gb`."""
        found = re.search(r"\bMIG (\d)g\.", self.name)
        return int(found[1]) / SLICES if found else 1.0


def costs(trial: Trial, updates: int, kinds: Mapping[str, Kind], rates: Mapping[str, float], execution: str) -> dict[str, Cost]:
    """What `updates` of a trial cost on each kind; `rates`: dense updates per second on a core, by algorithm."""
    found = {}
    for name, kind in kinds.items():
        if kind.device == "cpu":
            fixed, each = 0.0, price(trial, "cpu", execution) / rates[trial.algorithm]
        else:
            fixed, each = GPU_UPDATE.get(trial.algorithm) or _like_another(rates[trial.algorithm])
            each /= kind.share * kind.part
        found[name] = Cost(START[kind.device] + updates * fixed, updates * each, kind.most)
    return found


def _like_another(rate: float) -> tuple[float, float]:
    """Of an algorithm that was not measured on a GPU, from its rate on a core."""
    fixed, each = GPU_UPDATE[LIKE]
    ratio = UPDATES_PER_SECOND["cpu", LIKE] / rate
    return fixed * ratio, each * ratio


def families(trial: Trial) -> tuple[str, ...]:
    """What trials agree on whose measurements correct each other's estimates, from the widest to the closest."""
    return trial.algorithm, f"{trial.algorithm} {trial.sparsity:g}"
