"""Space: what an adaptive sweep searches for one algorithm on one dataset, and the trials that a suggestion stands for. No optuna."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from itertools import product
from typing import Any

from search_spaces.sweep.ranges import Range, values_of
from search_spaces.sweep.sweep import Sweep
from trainables import plugins
from trainables.errors import UserError
from trainables.trial import CHOICES, PLURALS, Trial, options_of

Label = bool | int | float | str
SEARCHED = ("pruner", "sparsity")  # fields of a trial that are searched; else hyperparameters are
COUNTED = 1_000
REPEAT_LIMIT = 50  # repeated or infeasible suggestions in a row after which a space whose suggestions are not counted is exhausted


@dataclass(frozen=True)
class Space:
    """One study. Each pair of dataset and algorithm has its own: scores on two datasets are not comparable, and each algorithm's best is
    of interest."""

    sweep: Sweep
    dataset: str
    algorithm: str

    @cached_property
    def dimensions(self) -> dict[str, Range | dict[Label, Any]]:
        """What is chosen, `pruner` first: from a range, or from values by label (a plain value is its own label)."""
        defaults = plugins.hyper_defaults(self.algorithm)
        hyper = {f"hyper.{name}": self._axis(value, defaults[name]) for name, value in self.sweep.hyper.items() if name in defaults}
        searched = {"pruner": self.sweep.pruners, "sparsity": self.sweep.sparsities, **hyper}
        return {name: v if isinstance(v, Range) else {_label(value): value for value in v} for name, v in searched.items()}

    def needs(self, name: str, chosen: Mapping[str, Label]) -> bool:
        """Whether a suggestion with `chosen` so far must choose `name`: not if there is only one value, and not the sparsity of dense."""
        values = self.dimensions[name]
        if name == "sparsity" and self._value("pruner", chosen) == "dense":
            return False
        return isinstance(values, Range) or len(values) > 1

    def trials(self, chosen: Mapping[str, Label]) -> tuple[Trial, ...]:
        """A suggestion's trials, one per seed. Raises UserError for invalid ones."""
        pruner, sparsity = self._value("pruner", chosen), self._value("sparsity", chosen)
        if pruner == "dense" or sparsity == 0:
            pruner, sparsity = "dense", 0.0
        settings = self.sweep.hyper_of(self.algorithm, self.dataset)
        hyper = settings | {n.removeprefix("hyper."): self._value(n, chosen) for n in self.dimensions if n not in SEARCHED}
        given = {"dataset": self.dataset, "algorithm": self.algorithm, "pruner": pruner, "sparsity": sparsity, "hyper": hyper}
        given |= self.sweep.plain() | next(self.sweep.options(pruner, self.algorithm, self.dataset))
        pruning = next(self.sweep.settings(pruner, self.algorithm))
        return tuple(Trial(**given, pruning=pruning, seed=seed) for seed in self.sweep.seeds)

    def examples(self) -> list[Trial]:
        """At least one trial that may be suggested: of each pruner at each sparsity, of a range at its ends; the rest at first values."""
        levels, found = self.sweep.sparsities, dict[str, Trial]()
        for pruner, sparsity in product(self.sweep.pruners, (levels.low, levels.high) if isinstance(levels, Range) else levels):
            with suppress(UserError):
                trial = self.trials({"pruner": pruner, "sparsity": sparsity})[0]
                found[trial.key] = trial
        return list(found.values()) or [self.trials({})[0]]

    @cached_property
    def size(self) -> float:
        """How many different suggestions there are; infinity where they are not counted."""
        return math.inf if self.suggestions is None else len(self.suggestions)

    @cached_property
    def suggestions(self) -> list[tuple[dict[str, Label], tuple[Trial, ...]]] | None:
        """All different suggestions with their trials; None with a range, and where there are more combinations of values than COUNTED."""
        axes = [list(values) for values in self.dimensions.values() if not isinstance(values, Range)]
        if len(axes) < len(self.dimensions) or math.prod(map(len, axes)) > COUNTED:
            return None
        found: dict[tuple[str, ...], tuple[dict[str, Label], tuple[Trial, ...]]] = {}
        for labels in product(*axes):
            with suppress(UserError):
                every = dict(zip(self.dimensions, labels, strict=True))
                chosen = {name: label for name, label in every.items() if self.needs(name, every)}
                trials = self.trials(chosen)
                found.setdefault(tuple(trial.key for trial in trials), (chosen, trials))
        return list(found.values())

    def left(self, made: Sequence[Sequence[str]], known: Sequence[Sequence[str]]) -> int:
        """How many suggestions are still to come, by the trial keys of those `made` and of those of them that are `known`."""
        assert self.sweep.search is not None
        if self.suggestions is None and repeats(made) >= REPEAT_LIMIT:
            return 0
        return int(max(0, min(self.sweep.search.suggestions, self.size) - len({tuple(keys) for keys in known} - {()})))

    def fits(self, chosen: Mapping[str, Any]) -> bool:
        """Whether these are values of the space, which an archive from elsewhere need not say rightly."""
        for name, value in chosen.items():
            values = self.dimensions.get(name, {})
            if isinstance(values, Range):
                if isinstance(value, bool) or not isinstance(value, int | float) or not values.low <= value <= values.high:
                    return False
            elif not isinstance(value, Label) or value not in values:
                return False
        return all(name in chosen or not self.needs(name, chosen) for name in self.dimensions)

    def as_grid(self, chosen: Mapping[str, Label], seeds: str) -> list[str]:
        """What `--set` takes to train a suggestion with other seeds, in a grid."""
        given = {"datasets": self.dataset} if len(self.sweep.datasets) > 1 else {}
        given |= {"algorithms": self.algorithm} if len(self.sweep.algorithms) > 1 else {}
        for name, values in self.dimensions.items():
            if isinstance(values, Range) or len(values) > 1:
                value = self._value(name, chosen) if name != "sparsity" or self._value("pruner", chosen) != "dense" else 0.0
                given[PLURALS.get(name, name)] = value if isinstance(value, str) and name == "pruner" else repr(value)
        used = options_of(self._value("pruner", chosen), self.algorithm)
        given |= {name: choices[0] for name, choices in CHOICES.items() if name not in used and self.sweep.values(name) != (choices[0],)}
        if self.sweep.allow_disconnected and self._value("pruner", chosen) == "dense":
            given["allow_disconnected"] = "false"
        return ["search=none", *(f"{name}={value}" for name, value in given.items()), f"seeds={seeds}"]

    def study(self, sweep: str) -> str:
        """The study's name in sweep `sweep`. Everything that makes scores incomparable is hashed into it, so another budget starts another
        study."""
        about = self.sweep.plain() | ({"protocol": self.sweep.protocol} if self.sweep.protocol else {})
        about |= {"seeds": self.sweep.seeds, "published": self.sweep.published}
        about["options"] = {pruner: next(self.sweep.options(pruner, self.algorithm, self.dataset)) for pruner in self.sweep.pruners}
        about |= {"pruning": self.sweep.pruning} if self.sweep.pruning else {}
        about["objective"] = self.sweep.search.objective if self.sweep.search else ""
        about |= {"dataset": self.dataset, "algorithm": self.algorithm, "dimensions": {n: _exactly(v) for n, v in self.dimensions.items()}}
        mark = hashlib.sha256(json.dumps(about, sort_keys=True).encode()).hexdigest()[:8]
        return f"{sweep}/{self.algorithm}/{'-'.join(self.dataset.rsplit('-v', 1)[0].split('/')[-2:])}/{mark}"

    def check(self) -> None:
        """Raise UserError if a value or an end of a range makes no valid trial."""
        for name, values in self.dimensions.items():
            for value in (values.low, values.high) if isinstance(values, Range) else values:
                for pruner in self.sweep.pruners if name == "sparsity" else ():
                    self.trials({name: value, "pruner": pruner})
                self.trials({name: value})

    def _axis(self, value: Any, default: Any) -> Range | tuple[Any, ...]:
        return value if isinstance(value, Range) else values_of(value, default)

    def _value(self, name: str, chosen: Mapping[str, Label]) -> Any:
        """The value chosen for `name`, else its first value."""
        values = self.dimensions[name]
        if isinstance(values, Range):
            return chosen.get(name, values.low)
        return values[chosen[name]] if name in chosen else next(iter(values.values()))


def spaces(sweep: Sweep) -> tuple[Space, ...]:
    """The spaces of an adaptive sweep, one for each dataset and algorithm; none for a grid. Raises UserError as `expand` does."""
    if sweep.search is None:
        return ()
    made = tuple(Space(sweep, dataset, algorithm) for dataset in sweep.datasets for algorithm in sweep.algorithms)
    for space in made:
        space.check()
    return made


def repeats(made: Sequence[Sequence[str]]) -> int:
    """How many of the newest suggestions, by their trial keys, are repeats in a row, or infeasible and so without trials."""
    seen: set[tuple[str, ...]] = {()}
    count = 0
    for keys in map(tuple, made):
        count = count + 1 if keys in seen else 0
        seen.add(keys)
    return count


def _exactly(values: Range | Mapping[Label, Any]) -> str:
    """As `str` has always said it, and the ends of a range that this would round in full."""
    if isinstance(values, Range) and any(float(f"{end:g}") != end for end in (values.low, values.high)):
        return f"{values} {values.low!r} {values.high!r}"
    return str(values)


def _label(value: Any) -> Label:
    return value if isinstance(value, Label) else str(value)
