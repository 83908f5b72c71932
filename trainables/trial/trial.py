"""Trial: one cell of the grid, a frozen and validated value. No torch."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from functools import cache, cached_property
from typing import Any

from trainables import plugins
from trainables.errors import UserError, unknown
from trainables.plugins import contract
from trainables.trial import hyper_ranges, network_kinds
from trainables.trial.numbers import real
from trainables.trial.pruner_traits import traits_of
from trainables.trial.pruning_options import (
    CALIBRATION,
    CHOICES,
    PLAIN,
    UNCONTROLLED,
    check_settings,
    neutral,
    options_of,
    removed_by,
    settings_of,
)
from trainables.trial.training_options import REWARDS, TRAINING_CHOICES

MOST_UPDATES = 10**9  # a thousand times the papers' budget; more is a slip of the keyboard
MAPPINGS = ("hyper", "sparsity_of", "pruning")  # the fields of a trial that are dictionaries
PLURALS = {  # of the fields that are axes of a sweep
    "dataset": "datasets",
    "algorithm": "algorithms",
    "pruner": "pruners",
    "sparsity": "sparsities",
    "seed": "seeds",
}
OMITTED = (
    "fresh",
    "data",
    "final_episodes",
    "pruning",
    "transitions",
    "structure",
    "relative_to",
    *TRAINING_CHOICES,
    *REWARDS,
)  # left out of JSON at their defaults: files older than these fields stay as they would be written today


@dataclass(frozen=True, kw_only=True)
class Trial:
    """One cell of the grid; raises UserError, naming the value and the choices, if it makes no sense.

    `sparsity` is the fraction of prunable weights removed in each network; `sparsity_of` overrides it for single networks. `hyper`
    overrides fields of the algorithm's `Hyper`, and `pruning` the pruner's SETTINGS. `evaluations` are spread evenly over training; the
    last follows the last update, and `final_episodes` more episodes follow that one. The saliency is computed on `calibration_batches`
    batches of `calibration_size` transitions. CHOICES and docs/pruning.md explain the other options of pruning; one that has no effect on
    the pruner is refused. `transitions` cuts the dataset to at most so many, in whole episodes that the seed chooses (0: all of it);
    `initialization`, `timeouts`, `network` and `states` are in TRAINING_CHOICES; updates see `reward_scale` x reward + `reward_shift`.
    `fresh` names a sweep that trains this trial anew even if another sweep has trained it: the numbers are the same, but the key, the
    folder and the MLflow run are its own. `data` is the beginning of a content hash: the trial is trained on that version of the dataset,
    apart from one with the same settings that another version was used for.
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
    structure: str = "none"
    target: str = "nominal"
    relative_to: str = "network"
    authors: bool = False
    rescale: str = "none"
    control: str = "none"
    allow_disconnected: bool = False
    hyper: Mapping[str, Any] = field(default_factory=dict)
    pruning: Mapping[str, Any] = field(default_factory=dict)
    fresh: str = ""
    data: str = ""
    transitions: int = 0
    initialization: str = "torch"
    timeouts: str = "bootstrap"
    network: str = "mlp"
    states: str = "own"
    reward_shift: float = 0.0
    reward_scale: float = 1.0

    def __post_init__(self) -> None:
        plugins.check("algorithms", self.algorithm)
        plugins.check("pruners", self.pruner)
        contract.pruner(self.pruner)
        if not self.dataset:
            raise UserError("dataset is empty; give a Minari id such as winnow/halfcheetah/expert-v0")
        self._check_pruning()
        for name in ("seed", "updates", "evaluations", "episodes", "final_episodes", "transitions", *CALIBRATION):
            value, least = getattr(self, name), 0 if name in ("seed", "final_episodes", "transitions") else 1
            if isinstance(value, bool) or not isinstance(value, int) or value < least:
                raise UserError(f"{name} {value!r} is not an integer >= {least}")
        if self.updates > MOST_UPDATES:
            raise UserError(f"updates {self.updates} are more than {MOST_UPDATES:,}")
        if self.evaluations > self.updates:
            raise UserError(f"evaluations {self.evaluations} > updates {self.updates}")
        for option, choices in TRAINING_CHOICES.items():
            if getattr(self, option) not in choices:
                raise unknown(option, getattr(self, option), choices)
        if self.states == ("normalized" if plugins.normalizes(self.algorithm) or self.network == "simba" else "raw"):
            object.__setattr__(self, "states", "own")  # equal trials share one key
        for name in REWARDS:
            number = getattr(self, name)
            finite = isinstance(number, int | float) and not isinstance(number, bool) and math.isfinite(number)
            if not finite or (name == "reward_scale" and number <= 0):
                raise UserError(f"{name} {number!r} is not a number{' above 0' if name == 'reward_scale' else ''}")
            object.__setattr__(self, name, float(number))  # 1 and 1.0 must give one key
        defaults = plugins.hyper_defaults(self.algorithm)
        object.__setattr__(self, "hyper", _overrides("algorithms", self.algorithm, self.hyper, defaults))
        hyper_ranges.check("algorithms", self.algorithm, self.hyper_values())
        network_kinds.check(self.network, self.algorithm, self.pruner, self.structure, self.hyper_values())

    def _check_pruning(self) -> None:
        networks = plugins.networks(self.algorithm)
        for name, value in (("", self.sparsity), *self.sparsity_of.items()):
            if name and name not in networks:
                raise unknown(f"network of {self.algorithm}", name, networks)
            if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < 1:
                where = f"sparsity of the {name}" if name else "sparsity"
                what = "is outside [0, 1)" if isinstance(value, int | float) else "is not a number"
                raise UserError(f"{where} {value!r} {what}: it is the fraction of weights removed, e.g. 0.95")
        object.__setattr__(self, "sparsity", float(self.sparsity))
        overrides = {name: float(value) for name, value in sorted(self.sparsity_of.items()) if value != self.sparsity}
        object.__setattr__(self, "sparsity_of", overrides)
        if (self.pruner == "dense") == any(self.sparsity_in(name) > 0 for name in networks):
            raise UserError(
                f"pruner {self.pruner!r} with sparsity {self.sparsity!r}: the pruner 'dense' needs sparsity 0, "
                f"and a sparsity above 0 needs one of: {', '.join(n for n in plugins.names('pruners') if n != 'dense')}"
            )
        self._check_structure()
        settings = plugins.pruner_settings(self.pruner)
        object.__setattr__(self, "pruning", _overrides("pruners", self.pruner, self.pruning, settings))
        if self.pruning:
            hyper_ranges.check("pruners", self.pruner, self.pruning_values() | {"updates": self.updates}, self.pruning)
            check_settings(self.pruning, self.pruner, self.algorithm)
        for option, choices in CHOICES.items():
            value = getattr(self, option)
            if value is choices[0] or (isinstance(value, str) and value == choices[0]):
                continue
            if not any(value is choice or (value == choice and isinstance(value, str)) for choice in choices):
                raise unknown(option, value, choices)
            if option not in options_of(self.pruner, self.algorithm):
                takers = ", ".join(n for n in plugins.names("pruners") if option in options_of(n, self.algorithm))
                raise UserError(
                    f"{option} {value!r} has no effect on pruner {self.pruner!r} with {self.algorithm}; it has one on: {takers or 'none'}"
                )

    def _check_structure(self) -> None:
        if self.structure != "none" and self.control == "shuffle":
            raise UserError(f"control 'shuffle' would undo the structure {self.structure!r}")
        for name in plugins.layer_normalized(self.algorithm) if self.structure == "units" else ():
            if self.sparsity_in(name) > 0:
                raise UserError(
                    f"structure 'units' does not fit the {name} of {self.algorithm}, which is normalized over all units, "
                    f"removed ones included; sparsity_of.{name}=0 leaves it dense"
                )
        for option in ("scope", "target") if self.structure != "none" else ():
            if getattr(self, option) != CHOICES[option][0]:
                raise UserError(f"structure {self.structure!r} takes the place of {option} {getattr(self, option)!r}; drop one of the two")
        if self.structure in CHOICES["structure"] and (wanted := removed_by(self.structure)) is not None:
            if self.relative_to != "network":
                raise UserError(f"structure {self.structure!r} fixes the share of the network that is kept; omit relative_to")
            for value in (self.sparsity, *self.sparsity_of.values()):
                if value not in (wanted, 0):
                    raise UserError(f"structure {self.structure!r} removes {wanted:g} of the weights: sparsity {value:g} does not fit it")

    @property
    def density(self) -> float:
        return 1.0 - self.sparsity

    def sparsity_in(self, network: str) -> float:
        """The fraction of weights removed in one network."""
        return self.sparsity_of.get(network, self.sparsity)

    @cached_property
    def key(self) -> str:
        """16 hex digits that hash the non-default fields: the trial's identity everywhere (pinned by a golden file)."""
        given = {name: value for name, default in _defaults() if (value := getattr(self, name)) != default}
        given |= {name: dict(getattr(self, name)) for name in MAPPINGS if getattr(self, name)}
        return hashlib.sha256(json.dumps(given, sort_keys=True, separators=(",", ":")).encode()).hexdigest()[:16]

    @property
    def name(self) -> str:
        """`td3_bc/halfcheetah-expert/snip@95/s0`, `td3_bc/halfcheetah-expert:10000:xavier/dense/s0`: for people, never an identity."""
        parts = self.dataset.rsplit("-v", 1)[0].split("/")
        settings = [str(self.transitions)] if self.transitions else []
        settings += [getattr(self, name) for name, choices in TRAINING_CHOICES.items() if getattr(self, name) != choices[0]]
        settings += [f"{name}={getattr(self, name):g}" for name, default in REWARDS.items() if getattr(self, name) != default]
        return f"{self.algorithm}/{':'.join(['-'.join(parts[-2:]), *settings])}/{self.cell}/s{self.seed}"

    @property
    def cell(self) -> str:
        """`dense`, `snip@95`, `snip@95,critic@90+shuffle`: how the networks are pruned, whatever the algorithm, dataset and seed."""
        return self.method.replace(self.pruner, f"{self.pruner}@{100 * self.sparsity:g}", 1) if self.pruner != "dense" else self.pruner

    @property
    def method(self) -> str:
        """The cell without its sparsity: `snip,critic@90+shuffle`."""
        given = [(option, getattr(self, option)) for option, choices in CHOICES.items() if getattr(self, option) != choices[0]]
        if traits_of(self.pruner).uses_losses:
            given += [(name, getattr(self, name)) for name, default in CALIBRATION.items() if getattr(self, name) != default]
        given += self.pruning.items()
        marks = [option if value is True else value if option in PLAIN else f"{option}={value}" for option, value in given]
        return "+".join([",".join([self.pruner, *(f"{name}@{100 * value:g}" for name, value in self.sparsity_of.items())]), *marks])

    def using(self, **changes: Any) -> Trial:
        """The trial with fields changed, and with options and calibration that then have no effect at their defaults."""
        given = {f.name: getattr(self, f.name) for f in fields(self)} | changes
        given["pruning"] = {n: v for n, v in given["pruning"].items() if n in settings_of(given["pruner"], given["algorithm"])}
        return Trial(**(given | neutral(given["pruner"], given["algorithm"])))

    def controls(self) -> dict[str, Trial]:
        """The controls of Frankle et al. (2021) for a pruned trial. None for a trial that is dense, random, pruned gradually or a control
        itself, nor for the options in UNCONTROLLED.

        `shuffle`: the mask permuted within its layers; `reinit`: the kept weights drawn again; `erk`: a random mask of the same density;
        `small_dense`: a dense network with as many weights.
        """
        traits = traits_of(self.pruner)
        if any(getattr(self, option) == value for option, value in UNCONTROLLED):
            return {}
        if self.control != "none" or self.pruner == "dense" or traits.has_budgets or not traits.at_initialization:
            return {}
        return {
            "shuffle": self.using(control="shuffle"),
            "reinit": self.using(control="reinit"),
            "erk": self.using(pruner="random_erk"),
            "small_dense": self.using(pruner="small_dense"),
        }

    def hyper_values(self) -> dict[str, Any]:
        """All hyperparameters of the algorithm: its defaults, overridden by the trial's."""
        return plugins.hyper_defaults(self.algorithm) | dict(self.hyper)

    def n_steps(self) -> dict[int, int]:
        """Update -> the steps of TD targets from that update on: 1 where the algorithm has no `n_step`. A pruner that has one, too, raises
        it at its `n_step_from`, a share of the updates."""
        own, pruning = self.hyper_values().get("n_step"), self.pruning_values()
        if own is None or "n_step" not in pruning:
            return {0: own or 1}
        return {0: own} | {round(pruning["n_step_from"] * self.updates): max(own, pruning["n_step"])}

    def n_step_at(self, update: int) -> int:
        """The steps of the TD target in an update."""
        steps = self.n_steps()
        return steps[max(first for first in steps if first <= update)]

    def pruning_values(self) -> dict[str, Any]:
        """All settings of the pruner: its defaults, overridden by the trial's."""
        return plugins.pruner_settings(self.pruner) | dict(self.pruning)

    def evaluation_updates(self) -> tuple[int, ...]:
        """The updates after which the policy is evaluated, ascending; the last is `updates`."""
        return tuple(round(self.updates * (i + 1) / self.evaluations) for i in range(self.evaluations))

    def to_json(self) -> dict[str, Any]:
        """All fields, without those in OMITTED that have their defaults."""
        value = {name: getattr(self, name) for name in self.__dataclass_fields__} | {name: dict(getattr(self, name)) for name in MAPPINGS}
        return {name: given for name, given in value.items() if name not in OMITTED or given != _omitted(name)}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Trial:
        for name in value:
            if name not in cls.__dataclass_fields__:
                raise unknown("field of a trial", name, [*cls.__dataclass_fields__])
        return cls(**value)


@cache
def _defaults() -> tuple[tuple[str, Any], ...]:
    """The fields that are no dictionaries, with their defaults."""
    return tuple((field.name, field.default) for field in fields(Trial) if field.name not in MAPPINGS)


def _omitted(name: str) -> Any:
    """The default at which a field is left out of JSON."""
    return {} if name in MAPPINGS else Trial.__dataclass_fields__[name].default


def _overrides(folder: str, plugin: str, given: Mapping[str, Any], defaults: Mapping[str, Any]) -> dict[str, Any]:
    """The values of `given` that differ from their defaults, in the defaults' types; raises UserError for any other name or type."""
    ranges = hyper_ranges.ranges_of(folder, plugin)
    for name, value in given.items():
        if name not in defaults:
            raise unknown(f"{'hyperparameter' if folder == 'algorithms' else 'setting'} of {plugin}", name, defaults)
        if not (name in ranges and type(value) is type(defaults[name]) is int) and not _fits(value, defaults[name]):
            raise UserError(f"{plugin}'s {name} {value!r} {_wrong(name, value, defaults[name])}")
    typed = {n: _like(v, defaults[n]) for n, v in sorted(given.items())}
    return {n: v for n, v in typed.items() if v != defaults[n]}


def _fits(value: Any, default: Any) -> bool:
    """Whether a hyperparameter has its default's type: a finite number for a float, a count for a count, a tuple of these for a tuple."""
    if isinstance(default, tuple):
        return isinstance(value, list | tuple) and bool(value) and all(_fits(v, default[0]) for v in value)
    if isinstance(default, bool) or isinstance(value, bool):
        return isinstance(default, bool) and isinstance(value, bool)
    if isinstance(default, float):
        return isinstance(value, int | float) and math.isfinite(real(value))
    return isinstance(value, int) and (value >= 1 or default < 1)


def _wrong(name: str, value: Any, default: Any) -> str:
    """What is wrong with a value that does not fit."""
    ones = [type(v)(1) if isinstance(v, int | float) else v for v in (value if isinstance(value, list | tuple) else [value])]
    if ones and _fits(ones if isinstance(value, list | tuple) else ones[0], default):
        return "is not finite" if isinstance(default[0] if isinstance(default, tuple) else default, float) else "is not at least 1"
    several = f"; several numbers are written as {name}=64,64" if isinstance(default, tuple) else ""
    return f"is not of the same type as its default {default!r}{several}"


def _like(value: Any, default: Any) -> Any:
    """The value in its default's type: 1 and 1.0 must give one key, and only floats may differ between members."""
    return float(value) if isinstance(default, float) else tuple(value) if isinstance(default, tuple) else value
