"""Sweep declares a grid, expand() turns it into trials, override() changes it from the command line."""

from __future__ import annotations

import ast
import importlib
import itertools
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from search_spaces.sweep.ranges import Range, Search, values_of
from search_spaces.sweep.space import spaces
from trainables import plugins
from trainables.errors import UserError, unknown
from trainables.trial import CALIBRATION, CHOICES, MAPPINGS, UNCONTROLLED, Trial, options_of
from trainables.trial.published import published

AXES = {"datasets": str, "algorithms": str, "pruners": str, "sparsities": float, "seeds": int}


@dataclass(frozen=True, kw_only=True)
class Sweep:
    """A grid: every combination of the tuples, each trained with the plain fields (those of `Trial`).

    `dense` is one cell whatever the sparsities are. A value in `hyper` goes to the algorithms that have that hyperparameter;
    a tuple of values is one more axis; an option of pruning goes to the pruners that it means something to. `controls` adds to each
    pruned trial those that tell whether its mask did anything (Trial.controls). `published` (0 or 1) puts the papers' settings for
    each dataset under `hyper` (trainables/trial/published.py). With `search` the sweep is adaptive: `sparsities` and numbers in
    `hyper` may be ranges, and what to try next is learned from the scores so far. Raises UserError where an axis is empty or not a tuple.
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
    calibration_batches: int = 1
    calibration_size: int = 256
    published: int = 0
    sparsity_of: Mapping[str, float] = field(default_factory=dict)
    scope: str = "network"
    target: str = "nominal"
    authors: bool = False
    rescale: str = "none"
    control: str = "none"
    allow_disconnected: bool = False
    controls: bool = False
    hyper: Mapping[str, Any] = field(default_factory=dict)
    search: Search | None = None

    def __post_init__(self) -> None:
        ranges = {"sparsities": self.sparsities, **self.hyper}
        for name, values in ranges.items():
            if isinstance(values, Range) and self.search is None:
                raise UserError(f"{name} {values} is a range, which a grid cannot have: add search=Search(...)")
        if self.search and self.controls:
            raise UserError("controls go with a grid: give the best of a search to one")
        for axis in AXES:
            values = getattr(self, axis)
            if axis == "sparsities" and isinstance(values, Range):
                continue
            if isinstance(values, str) or not isinstance(values, Iterable):
                raise UserError(f"{axis} {values!r} is not a tuple, e.g. ({values!r},)")
            if not tuple(values):
                raise UserError(f"the grid is empty: {axis} has no value")
            object.__setattr__(self, axis, tuple(values))
        if self.published not in (0, 1):
            raise UserError(f"published {self.published!r} is neither 0 nor 1")
        for mapping in MAPPINGS:
            object.__setattr__(self, mapping, dict(getattr(self, mapping)))

    def plain(self) -> dict[str, Any]:
        """The fields that every trial of the sweep has as they are."""
        left_out = {*AXES, *CHOICES, *MAPPINGS, "controls", "published", "search"}
        return {f.name: getattr(self, f.name) for f in fields(self) if f.name not in left_out}

    def options(self, pruner: str, algorithm: str) -> dict[str, Any]:
        """The options of pruning that mean something to a pruner; calibration, where it means nothing, at its default."""
        taken = options_of(pruner, algorithm)
        own: dict[str, Any] = {option: getattr(self, option) for option in CHOICES if option in taken}
        if not plugins.needs_loss(pruner):  # a random mask has one key, whatever data the others are scored on
            own |= {name: default for name, default in CALIBRATION.items() if getattr(self, name) != default}
        return own | {"sparsity_of": self.sparsity_of if pruner != "dense" else {}}


def expand(sweep: Sweep) -> tuple[Trial, ...]:
    """All trials of the grid, without duplicates, seed by seed and dense first: the early ones span the grid.

    Of an adaptive sweep none is known before it runs, so there are none. Raises UserError, with the value and the choices, where a
    cell makes no sense.
    """
    _check_hyper(sweep)
    _check_options(sweep)
    if spaces(sweep):
        return ()
    plain = sweep.plain()
    trials: dict[str, Trial] = {}
    for seed, (pruner, sparsity), dataset, algorithm in itertools.product(sweep.seeds, _cells(sweep), sweep.datasets, sweep.algorithms):
        settings = published(algorithm, dataset) if sweep.published else {}
        for hyper in _hyper_cells(sweep, algorithm):
            hyper = settings | hyper
            cell: dict[str, Any] = {"dataset": dataset, "algorithm": algorithm, "pruner": pruner, "sparsity": sparsity, "seed": seed}
            trial = Trial(**(cell | plain | sweep.options(pruner, algorithm)), hyper=hyper)
            for one in (trial, *(trial.controls().values() if sweep.controls else ())):
                trials.setdefault(one.key, one)
    return tuple(trials.values())


def sweep_names() -> tuple[str, ...]:
    """The files of search_spaces/, sorted."""
    return tuple(sorted(path.stem for path in Path(__file__).parents[1].glob("*.py") if path.stem != "__init__"))


def load_sweep(name: str) -> Sweep:
    """`SWEEP` of `search_spaces/<name>.py`; raises UserError for a wrong name and for a file that declares no sweep."""
    if name not in sweep_names():
        raise unknown("sweep", name, sweep_names())
    try:
        sweep = importlib.import_module(f"search_spaces.{name}").SWEEP
    except (SyntaxError, AttributeError, TypeError, NameError, ImportError) as error:
        raise UserError(f"search_spaces/{name}.py declares no sweep: {error}") from error
    if not isinstance(sweep, Sweep):
        raise UserError(f"search_spaces/{name}.py: SWEEP is a {type(sweep).__name__}, not a Sweep")
    return sweep


def override(sweep: Sweep, settings: Iterable[str]) -> Sweep:
    """The sweep with `seeds=0,1,2`, `updates=50000` or `hyper.alpha=1,2.5` put in place of its own values.

    Raises UserError for an unknown name (with the right ones) and for a value of the wrong type.
    """
    changes: dict[str, Any] = {}
    search: dict[str, Any] = {}
    mappings = {name: dict(getattr(sweep, name)) for name in MAPPINGS}
    for setting in settings:
        name, equals, text = setting.partition("=")
        name = name.strip()
        if not equals:
            raise UserError(f"--set {setting!r} is not of the form name=value, e.g. seeds=0,1,2")
        mapping, dot, key = name.partition(".")
        if dot and mapping in MAPPINGS:
            mappings[mapping][key] = _literal(name, text)
        elif name in AXES:
            changes[name] = tuple(_parse(name, part.strip(), AXES[name]) for part in text.split(",") if part.strip())
        elif name in (choices := [f.name for f in fields(sweep) if f.name not in (*MAPPINGS, "search")]):
            changes[name] = _parse(name, text.strip(), type(getattr(sweep, name)))
        elif name in (searched := [f"search.{f.name}" for f in fields(sweep.search)] if sweep.search else []):
            search[name.removeprefix("search.")] = _parse(name, text.strip(), type(getattr(sweep.search, name.removeprefix("search."))))
        else:
            raise unknown("override", name, [*choices, *(f"{mapping}.<name>" for mapping in MAPPINGS), *searched])
    return replace(sweep, **(changes | mappings), search=replace(sweep.search, **search) if sweep.search else None)


def _cells(sweep: Sweep) -> Iterator[tuple[str, float]]:
    """(pruner, sparsity) pairs, dense first: sparsity 0 of any pruner is the dense cell."""
    assert not isinstance(sweep.sparsities, Range), "an adaptive sweep has spaces, not cells"
    for pruner in sweep.pruners:
        plugins.check("pruners", pruner)
    if "dense" in sweep.pruners or 0 in sweep.sparsities:
        yield "dense", 0.0
    yield from ((pruner, s) for s in sweep.sparsities if s != 0 for pruner in sweep.pruners if pruner != "dense")


def _hyper_cells(sweep: Sweep, algorithm: str) -> Iterator[dict[str, Any]]:
    """Every combination of the hyperparameters that `algorithm` has."""
    defaults = plugins.hyper_defaults(algorithm)
    own = {name: values_of(value, defaults[name]) for name, value in sweep.hyper.items() if name in defaults}
    for combination in itertools.product(*own.values()):
        yield dict(zip(own, combination, strict=True))


def _check_hyper(sweep: Sweep) -> None:
    known = {name for algorithm in sweep.algorithms for name in plugins.hyper_defaults(algorithm)}
    for name in sweep.hyper:
        if name not in known:
            raise unknown(f"hyperparameter of {', '.join(sweep.algorithms)}", name, sorted(known))


def _check_options(sweep: Sweep) -> None:
    """Raise UserError for a value that is no choice, and for an option that means nothing to any pruner of the sweep."""
    if not isinstance(sweep.controls, bool):
        raise unknown("controls", sweep.controls, (False, True))
    for option, value in UNCONTROLLED if sweep.controls else ():
        if getattr(sweep, option) == value:
            raise UserError(
                f"controls with {option} {value!r}: how many weights each network keeps is known only once it is pruned, so random masks "
                "and small networks cannot be planned to match; leave one of the two away"
            )
    taken = set().union(*(options_of(pruner, algorithm) for pruner in sweep.pruners for algorithm in sweep.algorithms))
    for option, choices in CHOICES.items():
        value = getattr(sweep, option)
        if value not in choices:
            raise unknown(option, value, choices)
        if value != choices[0] and option not in taken:
            raise UserError(f"{option} {value!r} means nothing to {', '.join(sweep.pruners)} with {', '.join(sweep.algorithms)}")


def _parse(name: str, text: str, kind: type) -> Any:
    if kind is bool:
        if text.lower() not in ("true", "false"):
            raise unknown(name, text, ("true", "false"))
        return text.lower() == "true"
    try:
        return kind(text)
    except ValueError:
        words = {int: "an integer", float: "a number"}
        raise UserError(f"{name} {text!r} is not {words.get(kind, 'valid')}") from None


def _literal(name: str, text: str) -> Any:
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        raise UserError(f"{name} {text!r} is not a number, nor numbers with commas between") from None
