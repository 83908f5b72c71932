"""The trials of a grid."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

from search_spaces.sweep.ranges import Range, values_of
from search_spaces.sweep.space import spaces
from search_spaces.sweep.sweep import ALL_RATES, Sweep
from trainables import plugins
from trainables.errors import UserError, unknown
from trainables.trial import CHOICES, UNCONTROLLED, Trial, options_of, with_seed
from trainables.trial.pruning_options import removed_by, settings_of


def expand(sweep: Sweep) -> tuple[Trial, ...]:
    """All trials of the grid, without duplicates, seed by seed and dense first, so that the early ones span the grid.

    An adaptive sweep has none: its trials are not known before it runs. Raises UserError, with the value and the choices, for an
    invalid cell.
    """
    _check_names(sweep)
    _check_options(sweep)
    if spaces(sweep):
        return ()
    first = tuple(_of_seed(sweep, sweep.seeds[0]))
    of_others = (with_seed(trial, seed) for seed in sweep.seeds[1:] for trial in first)  # what they differ in otherwise is checked
    return tuple({trial.key: trial for trial in itertools.chain(first, of_others)}.values())


def _of_seed(sweep: Sweep, seed: int) -> Iterator[Trial]:
    plain, cells = sweep.plain(), list(_cells(sweep))
    first = next((sparsity for _, sparsity in cells if sparsity), 0.0)
    for (pruner, sparsity), dataset, algorithm in itertools.product(cells, sweep.datasets, sweep.algorithms):
        if sparsity not in (0, first) and _all_named(sweep, algorithm):
            continue  # it would be pruned as at the first sparsity
        cell = plain | {"dataset": dataset, "algorithm": algorithm, "pruner": pruner, "sparsity": sparsity, "seed": seed}
        settings = sweep.hyper_of(algorithm, dataset)
        combinations = itertools.product(
            _hyper_cells(sweep, algorithm), sweep.options(pruner, algorithm, dataset), sweep.settings(pruner, algorithm)
        )
        for hyper, options, pruning in combinations:
            if len(sweep.values("structure")) > 1 and removed_by(options.get("structure", "none")) not in (None, sparsity):
                continue  # of several n:m structures, each has its own sparsity
            trial = Trial(**(cell | options), hyper=settings | hyper, pruning=pruning)
            yield trial
            if sweep.controls:
                yield from trial.controls().values()


def _all_named(sweep: Sweep, algorithm: str) -> bool:
    """Whether `sparsity_of` leaves no network of the algorithm to the sweep's sparsities."""
    return sweep.sparsity_of.keys() >= {*plugins.networks(algorithm)}


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
    axes = {name: values_of(value, defaults[name]) for name, value in sweep.hyper.items() if name in defaults}
    rates = [name for name in defaults if name.endswith("learning_rate")]
    together = values_of(sweep.hyper[ALL_RATES], 0.0) if ALL_RATES in sweep.hyper else ()
    for rate in together or (None,):
        for combination in itertools.product(*axes.values()):
            yield ({} if rate is None else dict.fromkeys(rates, rate)) | dict(zip(axes, combination, strict=True))


def _check_names(sweep: Sweep) -> None:
    """Raise UserError for a hyperparameter that no algorithm of the sweep has, and for a setting that none of its pruners has."""
    hyper = {ALL_RATES} | {name for algorithm in sweep.algorithms for name in plugins.hyper_defaults(algorithm)}
    settings = {name for pruner in sweep.pruners for name in plugins.pruner_settings(pruner)}
    for kind, plugs, given, known in (
        ("hyperparameter", sweep.algorithms, sweep.hyper, hyper), ("setting", sweep.pruners, sweep.pruning, settings)
    ):  # fmt: skip
        for name in given:
            if name not in known:
                raise unknown(f"{kind} of {', '.join(plugs)}", name, sorted(known))
    acting = {name for pruner in sweep.pruners for algorithm in sweep.algorithms for name in settings_of(pruner, algorithm)}
    for name, value in sweep.pruning.items():
        if name not in acting:
            raise UserError(f"pruning.{name} {value!r} does not apply to {_pairs(sweep)}")


def _check_options(sweep: Sweep) -> None:
    """Raise UserError for an invalid value, and for an option that none of the sweep's pruners uses."""
    if not isinstance(sweep.controls, bool):
        raise unknown("controls", sweep.controls, (False, True))
    for option, value in UNCONTROLLED if sweep.controls else ():
        if value in sweep.values(option):
            raise UserError(
                f"controls with {option} {value!r}: how many weights each network keeps, and where, is known only once it is pruned, so "
                "random masks and small networks cannot be planned to match; drop one of the two"
            )
    taken = set().union(*(options_of(pruner, algorithm) for pruner in sweep.pruners for algorithm in sweep.algorithms))
    for option, choices in CHOICES.items():
        for value in sweep.values(option):
            if value not in choices:
                raise unknown(option, value, choices)
            if value != choices[0] and option not in taken:
                raise UserError(f"{option} {value!r} does not apply to {_pairs(sweep)}")
    named = [algorithm for algorithm in sweep.algorithms if _all_named(sweep, algorithm)]
    if named and isinstance(sweep.sparsities, Range):
        raise UserError(
            f"sparsities {sweep.sparsities} would be searched for nothing: sparsity_of names all networks of {named[0]}; leave one out"
        )
    removed = [removed_by(structure) for structure in sweep.values("structure")]
    if len(removed) > 1 and not isinstance(sweep.sparsities, Range):
        for structure, wanted in zip(sweep.values("structure"), removed, strict=True):
            if wanted is not None and wanted not in sweep.sparsities:
                raise UserError(f"structure {structure!r} removes {wanted:g} of the weights, which is none of the sparsities")
        if None not in removed and (left := [s for s in sweep.sparsities if s not in (0, *removed)]):
            raise UserError(f"sparsity {left[0]:g} is that of none of the structures {', '.join(sweep.values('structure'))}")


def _pairs(sweep: Sweep) -> str:
    return f"{', '.join(sweep.pruners)} with {', '.join(sweep.algorithms)}"
