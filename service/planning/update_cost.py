"""What an update of a trial costs relative to a dense one of its algorithm, and a trial on each kind of place: for estimates of time, never
for results. No torch."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

from service.planning.devices import part_of
from service.scheduling.costs import Cost
from service.scheduling.sizes import Curve
from trainables import plugins
from trainables.trial import BREAK_EVEN, Trial
from trainables.trial.pruner_traits import traits_of

# Share of a dense update on a CPU: fixed, and per density of kept weights, fitted at 80, 90, 95 % (TD3+BC, benchmarks/speed/updates.json).
FIXED, KEPT = 0.04, 1.1
# Dense updates per second of one stack, evaluations included, until this storage has measured its own: (device, algorithm).
UPDATES_PER_SECOND = {("cpu", "bc"): 450.0, ("cpu", "td3_bc"): 130.0, ("cpu", "iql"): 95.0}
BY_NETWORKS = ("bc", "td3_bc", "iql")  # with one network, two, three
OTHERWISE = {"cpu": 30.0, "cuda": 25_000.0}
# Seconds of an H100 for an update of a stack: of any size, and for each of its members (benchmarks/speed/gpu.json, K = 8 and 128).
GPU_UPDATE = {"td3_bc": (2.9e-4, 1.74e-5), "iql": (4.3e-4, 2.22e-5)}
# Seconds of an H100 for an update of a stack of so many, dense, by algorithm and TF32 (benchmarks/speed/gpu.json).
GPU_CURVE: dict[tuple[str, bool], tuple[tuple[int, float], ...]] = {
    ("td3_bc", False): ((1, 3.385e-4), (8, 4.311e-4), (32, 7.699e-4), (64, 1.3066e-3), (128, 2.516e-3)),
    ("td3_bc", True): ((1, 3.066e-4), (8, 3.675e-4), (32, 5.773e-4), (64, 9.576e-4), (128, 1.727e-3)),
    ("iql", False): ((1, 4.174e-4), (8, 6.087e-4), (32, 1.0777e-3), (64, 1.7399e-3), (128, 3.2737e-3)),
    ("iql", True): ((1, 3.759e-4), (8, 4.961e-4), (32, 7.862e-4), (64, 1.2270e-3), (128, 2.2496e-3)),
}
LIKE = "td3_bc"  # an algorithm that was not measured there costs a GPU as much more or less than this one as it does a CPU
# In the execution `onchip` on a GPU likewise; computed, not measured: half of the bound that benchmarks/speed/onchip.py counts.
ONCHIP_FIXED, ONCHIP_KEPT = 0.02, 6.7
MULTIPROCESSORS = 132  # of an H100: members that it trains at once in that execution
START = {"cpu": 3.0, "cuda": 10.0}  # seconds of a stack besides updates: a worker's start, data, recording, the final episodes


def price(trial: Trial, device: str, execution: str = "auto") -> float:
    """A share in (0, 1] of a dense update's time; 1 where all weights are computed, kept or not."""
    if execution not in ({"auto", "sparse"} if device == "cpu" else {"onchip"}):
        return 1.0
    densities = [1 - trial.sparsity_in(network) for network in plugins.networks(trial.algorithm)]
    if not (traits := traits_of(trial.pruner)).starts_sparse and traits.during_training:
        # From 1 to d by equal factors, on average: right for IMP, a fifth too low for GMP at 95 %.
        densities = [(1 - density) / -math.log(density) if density < 1 else 1.0 for density in densities]
    if device == "cpu":
        shares = [FIXED + KEPT * density if density <= BREAK_EVEN else 1.0 for density in densities]
    else:
        shares = [min(1.0, ONCHIP_FIXED + ONCHIP_KEPT * density) for density in densities]
    return sum(shares) / len(shares)


def prior(device: str, algorithm: str) -> float:
    """Dense updates per second of a stack, before this storage has measured any. One of a project's algorithms counts on a CPU as the
    measured one with as many networks."""
    if device == "cpu" and not plugins.ships("algorithms", algorithm):
        algorithm = BY_NETWORKS[min(len(plugins.networks(algorithm)), len(BY_NETWORKS)) - 1]
    return UPDATES_PER_SECOND.get((device, algorithm), OTHERWISE[device])


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
        """How much of a whole GPU it is, by its name."""
        return part_of(self.name)


def costs(trial: Trial, updates: int, kinds: Mapping[str, Kind], rates: Mapping[str, float], execution: str) -> dict[str, Cost]:
    """What `updates` of a trial cost on each kind; `rates`: dense updates per second on a core, by algorithm. One that was stopped after
    its last update costs as much as one."""
    found, updates = {}, max(1, updates)
    for name, kind in kinds.items():
        if kind.device == "cpu":
            fixed, each = 0.0, price(trial, "cpu", execution) / rates[trial.algorithm]
        else:
            fixed, each = GPU_UPDATE.get(trial.algorithm) or _like_another(rates[trial.algorithm])
            if execution == "onchip":  # half for the slowest member, whom all wait for, half for how many there are
                each *= price(trial, kind.device, execution) / 2
                fixed = MULTIPROCESSORS * each
            each /= kind.share * kind.part
        found[name] = Cost(START[kind.device] + updates * fixed, updates * each, kind.most)
    return found


def gpu_curve(algorithm: str, kind: Kind, rate: float, *, tf32: bool = False) -> Curve:
    """Seconds that an update of a stack takes on a whole GPU of a kind, by its members, as far as is known before any was trained there.
    Of a slice of one, what each member adds takes longer. `rate` as in `costs`, of the algorithm."""
    points = GPU_CURVE.get((algorithm, tf32))
    if points is None:
        ratio = UPDATES_PER_SECOND["cpu", LIKE] / rate
        points = tuple((members, ratio * seconds) for members, seconds in GPU_CURVE[LIKE, tf32])
    alone = points[0][1]
    return Curve(tuple((members, alone + (seconds - alone) / kind.part) for members, seconds in points))


def curve_of(trial: Trial, kind: Kind, rate: float, execution: str, *, tf32: bool = False) -> Curve:
    """The same of trials like one, in an execution."""
    if execution != "onchip":
        return gpu_curve(trial.algorithm, kind, rate, tf32=tf32)
    cost = costs(trial, 1, {kind.name: replace(kind, share=1.0)}, {trial.algorithm: rate}, execution)[kind.name]
    return Curve(tuple((members, cost.seconds(members) - START[kind.device]) for members in (1, MULTIPROCESSORS)))


def _like_another(rate: float) -> tuple[float, float]:
    """Of an algorithm that was not measured on a GPU, from its rate on a core."""
    fixed, each = GPU_UPDATE[LIKE]
    ratio = UPDATES_PER_SECOND["cpu", LIKE] / rate
    return fixed * ratio, each * ratio


def families(trial: Trial) -> tuple[str, ...]:
    """What trials agree on whose measurements correct each other's estimates, from the widest to the closest."""
    return trial.algorithm, f"{trial.algorithm} {trial.sparsity:g}"
