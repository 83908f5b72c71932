"""Trial (a cell of the grid) and Stack (K trials trained as one batched model): frozen values, validated, no torch."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from functools import cached_property
from typing import Any

from trainables import plugins
from trainables.errors import UserError, unknown
from trainables.trial import hyper_ranges

MAPPINGS = ("hyper", "sparsity_of")  # the fields of a trial that are dictionaries
UNTOLD = ("fresh", "final_episodes")  # younger than the files and runs of the first trials, which are as they would be written today

# The options of pruning and their choices, the default first.
CHOICES: dict[str, tuple[Any, ...]] = {
    "scope": ("network", "joint", "layer"),  # within what weights are ranked: each network (the authors' protocol), all of them, each layer
    "target": ("nominal", "effective"),  # what `sparsity` counts: the mask's weights, or those that lie on a path
    "authors": (False, True),  # score with the leftover gradients of the authors' code, where the algorithm knows them
    "rescale": ("none", "layer", "unit"),  # kept weights divided by the root of the layer's, or of the unit's, density
    "control": ("none", "shuffle", "reinit"),  # the mask permuted within its layers, or the kept weights drawn again (Frankle et al. 2021)
    "allow_disconnected": (False, True),  # go on where no path is left
}
CALIBRATION = {"calibration_batches": 1, "calibration_size": 256}  # what a saliency sees, by default
# With these, how many weights a network keeps is known once it is pruned, too late for controls of the same density.
UNCONTROLLED = (("scope", "joint"), ("target", "effective"))
PLAIN = ("control", "scope", "target")  # options whose values speak for themselves in a trial's name


def options_of(pruner: str, algorithm: str) -> set[str]:
    """The options in CHOICES that change something for this pruner, read from its file."""
    own = plugins.defines("pruners", pruner)
    if pruner == "dense" or "shrink" in own:
        return set()
    if "during" in own:
        return {"allow_disconnected"}
    found = {"rescale", "control", "allow_disconnected"} | ({"scope"} if "budgets" not in own else set())
    if "schedule" not in own or "REGROWS" in own:  # else the last round may only choose among what the one before left
        found.add("target")
    if plugins.needs_loss(pruner) and "AUTHORS_LOSSES" in plugins.defines("algorithms", algorithm):
        found.add("authors")
    return found


def meaningless(pruner: str, algorithm: str) -> dict[str, Any]:
    """The options and the calibration that change nothing for this pruner, at their defaults: with them, equal trials have one key."""
    taken = options_of(pruner, algorithm)
    found = {option: choices[0] for option, choices in CHOICES.items() if option not in taken}
    return found if plugins.needs_loss(pruner) else found | CALIBRATION


@dataclass(frozen=True, kw_only=True)
class Trial:
    """One cell of the grid; raises UserError, naming the value and the choices, when it makes no sense.

    `sparsity` is the fraction of prunable weights removed in each network, but for those named in `sparsity_of`. `hyper` overrides fields
    of the algorithm's `Hyper`. `evaluations` are spread evenly over the updates, the last one after the last update, which `final_episodes`
    others follow, where some are asked for. The saliency sees `calibration_batches` batches of `calibration_size` transitions. The other
    options of pruning are told in CHOICES and docs/pruning.md; those that mean nothing to the pruner are refused. `fresh` names the sweep
    that trains this trial for itself although others may have done it: the same numbers, but a key, a folder and a run of its own.
    """

    dataset: str
    algorithm: str = "td3_bc"
    pruner: str = "dense"
    sparsity: float = 0.0
    seed: int = 0
    updates: int = 1_000_000
    evaluations: int = 10
    episodes: int = 10
    final_episodes: int = 0
    calibration_batches: int = CALIBRATION["calibration_batches"]
    calibration_size: int = CALIBRATION["calibration_size"]
    sparsity_of: Mapping[str, float] = field(default_factory=dict)
    scope: str = "network"
    target: str = "nominal"
    authors: bool = False
    rescale: str = "none"
    control: str = "none"
    allow_disconnected: bool = False
    hyper: Mapping[str, Any] = field(default_factory=dict)
    fresh: str = ""

    def __post_init__(self) -> None:
        plugins.check("algorithms", self.algorithm)
        plugins.check("pruners", self.pruner)
        if not self.dataset:
            raise UserError("dataset is empty; give a Minari id such as winnow/halfcheetah/expert-v0")
        self._check_pruning()
        for name in ("seed", "updates", "evaluations", "episodes", "final_episodes", *CALIBRATION):
            value, least = getattr(self, name), 0 if name in ("seed", "final_episodes") else 1
            if isinstance(value, bool) or not isinstance(value, int) or value < least:
                raise UserError(f"{name} {value!r} is not an integer >= {least}")
        if self.evaluations > self.updates:
            raise UserError(f"evaluations {self.evaluations} > updates {self.updates}")
        defaults = plugins.hyper_defaults(self.algorithm)
        for name, value in self.hyper.items():
            if name not in defaults:
                raise unknown(f"hyperparameter of {self.algorithm}", name, defaults)
            if not _fits(value, defaults[name]):
                raise UserError(f"{self.algorithm}'s {name} {value!r} is not of the kind of its default {defaults[name]!r}")
        given = {n: _like(v, defaults[n]) for n, v in sorted(self.hyper.items())}
        object.__setattr__(self, "hyper", {n: v for n, v in given.items() if v != defaults[n]})
        hyper_ranges.check(self.algorithm, self.hyper_values())

    def _check_pruning(self) -> None:
        networks = plugins.networks(self.algorithm)
        for name, value in (("", self.sparsity), *self.sparsity_of.items()):
            if name and name not in networks:
                raise unknown(f"network of {self.algorithm}", name, networks)
            if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < 1:
                where = f"sparsity of the {name}" if name else "sparsity"
                raise UserError(f"{where} {value!r} is outside [0, 1): it is the fraction of weights removed, e.g. 0.95")
        object.__setattr__(self, "sparsity", float(self.sparsity))
        own = {name: float(value) for name, value in sorted(self.sparsity_of.items()) if value != self.sparsity}
        object.__setattr__(self, "sparsity_of", own)
        if (self.pruner == "dense") == any(self.sparsity_in(name) > 0 for name in networks):
            raise UserError(
                f"pruner {self.pruner!r} with sparsity {self.sparsity!r}: sparsity 0 goes with the pruner 'dense', "
                f"a sparsity above 0 with one of: {', '.join(n for n in plugins.names('pruners') if n != 'dense')}"
            )
        for option, choices in CHOICES.items():
            value = getattr(self, option)
            if not any(value is choice or (value == choice and isinstance(value, str)) for choice in choices):
                raise unknown(option, value, choices)
            if value != choices[0] and option not in options_of(self.pruner, self.algorithm):
                takers = ", ".join(n for n in plugins.names("pruners") if option in options_of(n, self.algorithm))
                raise UserError(
                    f"{option} {value!r} means nothing to pruner {self.pruner!r} with {self.algorithm}; it does to: {takers or 'none'}"
                )

    @property
    def density(self) -> float:
        return 1.0 - self.sparsity

    def sparsity_in(self, network: str) -> float:
        """The fraction of weights removed in one network."""
        return self.sparsity_of.get(network, self.sparsity)

    @cached_property
    def key(self) -> str:
        """16 hex digits of the canonical non-default fields; the trial's identity everywhere (pinned by a golden file)."""
        given = {f.name: getattr(self, f.name) for f in fields(self) if f.name not in MAPPINGS and getattr(self, f.name) != f.default}
        given |= {name: dict(getattr(self, name)) for name in MAPPINGS if getattr(self, name)}
        return hashlib.sha256(json.dumps(given, sort_keys=True, separators=(",", ":")).encode()).hexdigest()[:16]

    @property
    def name(self) -> str:
        """`td3_bc/halfcheetah-expert/snip@95/s0`: for people; never an identity."""
        parts = self.dataset.rsplit("-v", 1)[0].split("/")
        return f"{self.algorithm}/{'-'.join(parts[-2:])}/{self.cell}/s{self.seed}"

    @property
    def cell(self) -> str:
        """`dense`, `snip@95`, `snip@95,critic@90+shuffle`: what was pruned and how, without the algorithm, data and seed."""
        return self.method.replace(self.pruner, f"{self.pruner}@{100 * self.sparsity:g}", 1) if self.pruner != "dense" else self.pruner

    @property
    def method(self) -> str:
        """The cell without its sparsity: `snip,critic@90+shuffle`."""
        given = [(option, getattr(self, option)) for option, choices in CHOICES.items() if getattr(self, option) != choices[0]]
        if plugins.needs_loss(self.pruner):
            given += [(name, getattr(self, name)) for name, default in CALIBRATION.items() if getattr(self, name) != default]
        marks = [option if value is True else value if option in PLAIN else f"{option}={value}" for option, value in given]
        return "+".join([",".join([self.pruner, *(f"{name}@{100 * value:g}" for name, value in self.sparsity_of.items())]), *marks])

    def using(self, **changes: Any) -> Trial:
        """The trial with fields changed, and without the options and the calibration that then mean nothing."""
        given = {f.name: getattr(self, f.name) for f in fields(self)} | changes
        return Trial(**(given | meaningless(given["pruner"], given["algorithm"])))

    def controls(self) -> dict[str, Trial]:
        """What Frankle et al. (2021) hold a pruned trial against; none for a trial that is dense, random, gradual or a control itself, nor
        where the mask alone says how much each network keeps (UNCONTROLLED).

        `shuffle`: the mask permuted within its layers; `reinit`: the kept weights drawn again; `erk`: a random mask of the same density;
        `small_dense`: a dense network with as many weights.
        """
        if any(getattr(self, option) == value for option, value in UNCONTROLLED):
            return {}
        if self.control != "none" or self.pruner == "dense" or {"during", "shrink", "budgets"} & plugins.defines("pruners", self.pruner):
            return {}
        return {
            "shuffle": self.using(control="shuffle"),
            "reinit": self.using(control="reinit"),
            "erk": self.using(pruner="random_erk"),
            "small_dense": self.using(pruner="small_dense"),
        }

    def hyper_values(self) -> dict[str, Any]:
        """All hyperparameters of the algorithm, the trial's own values over the defaults."""
        return plugins.hyper_defaults(self.algorithm) | dict(self.hyper)

    def evaluation_updates(self) -> tuple[int, ...]:
        """The updates after which the policy is evaluated, ascending; the last is `updates`."""
        return tuple(round(self.updates * (i + 1) / self.evaluations) for i in range(self.evaluations))

    def to_json(self) -> dict[str, Any]:
        """All fields; of those in UNTOLD only what was asked for."""
        value = asdict(self) | {name: dict(getattr(self, name)) for name in MAPPINGS}
        return {name: given for name, given in value.items() if given or name not in UNTOLD}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Trial:
        known = [f.name for f in fields(cls)]
        for name in value:
            if name not in known:
                raise unknown("field of a trial", name, known)
        return cls(**value)


def _fits(value: Any, default: Any) -> bool:
    """Whether a hyperparameter is of its default's kind: a finite number for a float, counts stay counts, a tuple of such for a tuple."""
    if isinstance(default, tuple):
        return isinstance(value, list | tuple) and bool(value) and all(_fits(v, default[0]) for v in value)
    if isinstance(default, bool) or isinstance(value, bool):
        return isinstance(default, bool) and isinstance(value, bool)
    if isinstance(default, float):
        return isinstance(value, int | float) and math.isfinite(value)
    return isinstance(value, int) and (value >= 1 or default < 1)


def _like(value: Any, default: Any) -> Any:
    """In the default's own type: 1 and 1.0 are one value and must be one key, and only floats may differ between members."""
    return float(value) if isinstance(default, float) else tuple(value) if isinstance(default, tuple) else value


# On a CPU, execution `auto` computes only the kept weights at or below this density: benchmarks/break_even.py finds 0.7 to
# 0.8 with AVX2, and where a processor has AVX-512 dense products gain from it and the kernels do not.
BREAK_EVEN = 0.6

# Members of a stack may differ in these fields, and in hyperparameters that are plain floats; all else shapes the batched model.
FREE_FIELDS = ("pruner", "sparsity", "sparsity_of", "seed", *CHOICES, *CALIBRATION, "hyper", "fresh")


@dataclass(frozen=True)
class Stack:
    """K trials that can train as one batched model; raises UserError where they cannot."""

    trials: tuple[Trial, ...]

    def __post_init__(self) -> None:
        if not self.trials:
            raise UserError("a stack needs at least one trial")
        for trial in self.trials[1:]:
            if shape_of(trial) != shape_of(self.trials[0]):
                raise UserError(f"{trial.name} cannot share a stack with {self.trials[0].name}: they differ in more than {FREE_FIELDS}")
        if len({trial.key for trial in self.trials}) != len(self.trials):
            raise UserError("a stack holds the same trial twice")

    def __len__(self) -> int:
        return len(self.trials)

    @property
    def lead(self) -> Trial:
        """Any field that all members share is read from here."""
        return self.trials[0]


def shape_of(trial: Trial) -> str:
    """What two trials must agree on to share a stack, as a comparable string."""
    value = {n: v for n, v in trial.to_json().items() if n not in FREE_FIELDS}
    value["hyper"] = {n: v for n, v in trial.hyper_values().items() if not isinstance(v, float)}
    own = plugins.defines("pruners", trial.pruner)
    if "during" in own:
        value |= {"pruner": trial.pruner}  # all members' masks change, and are reported, at the same updates
    if "shrink" in own:
        value |= {"pruner": trial.pruner, "sparsity": trial.sparsity, "sparsity_of": dict(trial.sparsity_of)}
    return json.dumps(value, sort_keys=True)


def comparison(trial: Trial, *besides: str) -> str:
    """What trials must agree on so that their scores may be compared, as a comparable string: all but how they are pruned, the seed, and
    the fields `besides`."""
    left_out = ("pruner", "sparsity", "sparsity_of", "seed", "fresh", *CHOICES, *CALIBRATION, *besides)
    return json.dumps({n: v for n, v in trial.to_json().items() if n not in left_out}, sort_keys=True)


def company(trial: Trial) -> str:
    """What trials of one shape must agree on so that execution `auto` computes each as it would alone, as a comparable string."""
    if trial.scope == "joint":
        return trial.key  # the densities of its networks are known when it is pruned, not before
    densities = [1 - trial.sparsity_in(name) for name in plugins.networks(trial.algorithm)]
    if "shrink" in (own := plugins.defines("pruners", trial.pruner)):
        return str([False] * len(densities))
    if "during" in own:
        return f"{trial.pruner} {densities}"  # its networks get sparse on the way
    return str([density <= BREAK_EVEN for density in densities])
