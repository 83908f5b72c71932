"""Sweep: what a file of search_spaces/ declares."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from search_spaces.sweep.ranges import Range, Search, values_of
from trainables.errors import UserError
from trainables.trial import CALIBRATION, CHOICES, MAPPINGS, REWARDS, TRAINING_CHOICES, options_of
from trainables.trial.protocols import check_protocol, protocol
from trainables.trial.pruner_traits import traits_of
from trainables.trial.pruning_options import settings_of
from trainables.trial.published import published, reward_shift

AXES = {"datasets": str, "algorithms": str, "pruners": str, "sparsities": float, "seeds": int}
TRAINING = {"transitions": 0, **{name: choices[0] for name, choices in TRAINING_CHOICES.items()}, **REWARDS}  # with their defaults
ALL_RATES = "learning_rates"  # in `hyper`: one value for every learning rate of an algorithm
VARIED = (*TRAINING, *CALIBRATION, *CHOICES)  # fields that may have a tuple of values: one more axis
NEWER = ("structure", "relative_to")  # options that older studies did not have
DEFAULTS = {**TRAINING, **{option: choices[0] for option, choices in CHOICES.items()}}  # of fields that may be None, among others


@dataclass(frozen=True, kw_only=True)
class Sweep:
    """A grid: every combination of the tuples, each trained with the plain fields (those of `Trial`).

    `dense` is one cell whatever the sparsities are. A value in `hyper` goes to the algorithms that have that hyperparameter, one in
    `pruning` to the pruners that have that setting, an option of pruning to the pruners that use it. A tuple of values is one more
    axis, there, in `sparsity_of` and in the fields of VARIED. `hyper={"learning_rates": ...}` sets all learning rates of an algorithm
    to one value. `controls` adds to each pruned trial those that show whether its mask did anything (Trial.controls). `published` (0 or
    1) puts the papers' settings for each dataset under `hyper` (trainables/trial/published.py), and `protocol` the settings of a code
    base (trainables/trial/protocols.py) where the sweep does not set them; without a `reward_shift` it is the papers', too. With
    `search` the sweep is adaptive: `sparsities` and numbers in `hyper` may be ranges, and what to try next is learned from the scores
    so far. Raises UserError where an axis is empty or not a tuple.
    """

    datasets: tuple[str, ...]
    algorithms: tuple[str, ...] = ("td3_bc",)
    pruners: tuple[str, ...] = ("dense",)
    sparsities: tuple[float, ...] | Range = (0.0,)
    seeds: tuple[int, ...] = (0,)
    updates: int = 1_000_000
    evaluations: int = 10
    episodes: int = 10
    final_episodes: int = 0
    transitions: int | tuple[int, ...] = 0
    initialization: str | tuple[str, ...] | None = None
    timeouts: str | tuple[str, ...] | None = None
    network: str | tuple[str, ...] = "mlp"
    states: str | tuple[str, ...] = "own"
    reward_shift: float | tuple[float, ...] | None = None
    reward_scale: float | tuple[float, ...] = 1.0
    calibration_batches: int | tuple[int, ...] = 1
    calibration_size: int | tuple[int, ...] = 256
    published: int = 0
    protocol: str = ""
    sparsity_of: Mapping[str, float | tuple[float, ...]] = field(default_factory=dict)
    scope: str | tuple[str, ...] = "network"
    structure: str | tuple[str, ...] = "none"
    target: str | tuple[str, ...] = "nominal"
    relative_to: str | tuple[str, ...] = "network"
    authors: bool | tuple[bool, ...] | None = None
    rescale: str | tuple[str, ...] = "none"
    control: str | tuple[str, ...] = "none"
    allow_disconnected: bool | tuple[bool, ...] = False
    controls: bool = False
    hyper: Mapping[str, Any] = field(default_factory=dict)
    pruning: Mapping[str, Any] = field(default_factory=dict)
    search: Search | None = None

    def __post_init__(self) -> None:
        self._keep_values()
        ranges = {"sparsities": self.sparsities, **self.hyper}
        for name, values in ranges.items():
            if isinstance(values, Range) and self.search is None:
                raise UserError(f"{name} {values} is a range, which a grid cannot have: add search=Search(...)")
        if self.search and self.search.stop != "none":
            for pruner in self.pruners:
                if traits_of(pruner).rewinds:
                    raise UserError(
                        f"pruner {pruner!r} restarts its training several times: search.stop {self.search.stop!r} would compare "
                        "its beginnings with the others' ends; drop one of the two"
                    )
        if self.search and ALL_RATES in self.hyper:
            raise UserError(f"hyper.{ALL_RATES} goes with a grid; a search takes each learning rate by its name")
        given = {f"{mapping}.{name}": v for mapping in ("pruning", "sparsity_of") for name, v in getattr(self, mapping).items()}
        for name, values in given.items():
            if isinstance(values, Range) or (self.search and isinstance(values, tuple | list)):
                raise UserError(f"{name} {values} is searched, which only sparsities and hyper can be; give it one value")
        for name in VARIED:
            values = self.values(name)
            if not values:
                raise UserError(f"the grid is empty: {name} has no value")
            if self.search and len(values) > 1:
                raise UserError(f"{name} {values} is searched, which only sparsities and hyper can be; give it one value")
        if self.protocol:
            check_protocol(self.protocol)
        if self.search and self.controls:
            raise UserError("controls go with a grid: give the best of a search to one")
        if self.published not in (0, 1):
            raise UserError(f"published {self.published!r} is neither 0 nor 1")

    def _keep_values(self) -> None:
        """Make axes and mappings the sweep's own; a generator, which gives its values only once, becomes a tuple."""
        for mapping in MAPPINGS:
            given = getattr(self, mapping)
            if not isinstance(given, Mapping):
                raise UserError(f'{mapping} {given!r} is not a dict, such as {{"alpha": 2.5}}')
            object.__setattr__(self, mapping, {name: _kept(value) for name, value in given.items()})
        for name in VARIED:
            object.__setattr__(self, name, _kept(getattr(self, name)))
        for axis in AXES:
            values = getattr(self, axis)
            if axis == "sparsities" and isinstance(values, Range):
                continue
            if isinstance(values, str) or not isinstance(values, Iterable):
                raise UserError(f"{axis} {values!r} is not a tuple, e.g. ({values!r},)")
            object.__setattr__(self, axis, tuple(values))
            if not getattr(self, axis):
                raise UserError(f"the grid is empty: {axis} has no value")

    def plain(self) -> dict[str, Any]:
        """The fields that every trial of the sweep has as they are."""
        left_out = {*AXES, *CHOICES, *MAPPINGS, *TRAINING, "controls", "published", "protocol", "search"}
        left_out |= {name for name in CALIBRATION if len(self.values(name)) > 1}
        given = {f.name: getattr(self, f.name) for f in fields(self) if f.name not in left_out}
        return given | {name: self.values(name)[0] for name in CALIBRATION if name in given}

    def settings(self, pruner: str, algorithm: str) -> Iterator[dict[str, Any]]:
        """Every combination of the settings in `pruning` that a pruner has, and that make a difference for the algorithm."""
        defaults = settings_of(pruner, algorithm)
        axes = {name: values_of(value, defaults[name]) for name, value in self.pruning.items() if name in defaults}
        return (dict(zip(axes, combination, strict=True)) for combination in itertools.product(*axes.values()))

    def values(self, name: str) -> tuple[Any, ...]:
        """The values of a field of VARIED; of one that is None, its default."""
        value = DEFAULTS[name] if getattr(self, name) is None else getattr(self, name)
        return tuple(value) if isinstance(value, tuple | list) else (value,)

    def _or(self, given: Mapping[str, Any], name: str) -> tuple[Any, ...]:
        """The values of a field, or the protocol's where the sweep does not set it."""
        return (given[name],) if getattr(self, name) is None and name in given else self.values(name)

    def hyper_of(self, algorithm: str, dataset: str) -> dict[str, Any]:
        """The hyperparameters that a protocol and the papers put in place of the algorithm's defaults."""
        papers = published(algorithm, dataset) if self.published else {}
        return {**protocol(self.protocol, algorithm)["hyper"], **papers}

    def options(self, pruner: str, algorithm: str, dataset: str) -> Iterator[dict[str, Any]]:
        """Every combination of the options that a trial uses; calibration at its default for a pruner that does not calibrate."""
        papers = {"reward_shift": (reward_shift(algorithm, dataset),)} if self.reward_shift is None else {}
        given = protocol(self.protocol, algorithm)
        taken = options_of(pruner, algorithm)
        axes = {option: self._or(given, option) for option in CHOICES if option in taken}
        # Left out at their defaults, since the names of studies that are older than these options hash the others.
        axes = {option: values for option, values in axes.items() if option not in NEWER or values != (CHOICES[option][0],)}
        training = {name: papers.get(name, self._or(given, name)) for name in TRAINING}
        axes |= {name: values for name, values in training.items() if values != (TRAINING[name],)}
        if traits_of(pruner).uses_losses:
            axes |= {name: self.values(name) for name in CALIBRATION if len(self.values(name)) > 1}
        else:  # a random mask has one key, whatever data the others are scored on
            axes |= {name: (default,) for name, default in CALIBRATION.items() if self.values(name) != (default,)}
        networks = {name: values_of(value, 0.0) for name, value in self.sparsity_of.items()} if pruner != "dense" else {}
        for values, sparsities in itertools.product(itertools.product(*axes.values()), itertools.product(*networks.values())):
            yield dict(zip(axes, values, strict=True)) | {"sparsity_of": dict(zip(networks, sparsities, strict=True))}


def _kept(value: Any) -> Any:
    return tuple(value) if isinstance(value, Iterator) else value
