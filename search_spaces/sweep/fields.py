"""The fields of a sweep that `--set` takes, with their choices: for help texts and for Tab. Imports no torch."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

from search_spaces.sweep.ranges import Search
from search_spaces.sweep.sweep import ALL_RATES, AXES, VARIED, Sweep
from trainables import plugins
from trainables.datasets import local
from trainables.trial import CHOICES, MAPPINGS, REWARDS, TRAINING_CHOICES
from trainables.trial.protocols import PROTOCOLS

NAMES = {  # of the values in a field of MAPPINGS, by plug-in
    "hyper": ("algorithms", plugins.hyper_defaults),
    "sparsity_of": ("algorithms", plugins.networks),
    "pruning": ("pruners", plugins.pruner_settings),
}
SEVERAL = (*AXES, *VARIED)  # with commas between them
WORDS = {
    "seeds": "0,1,2 or 0-4",
    "sparsities": "shares of weights to remove, from 0 up to 1",
    "int": "a whole number, such as 20000, 20k or 2e4",
    "float": "a number",
}


def names() -> list[str]:
    """`seeds`, `updates`, `hyper.alpha`, `search.suggestions`, ..."""
    plain = [field.name for field in fields(Sweep) if field.name not in (*MAPPINGS, "search")]
    inside = [f"{mapping}.{name}" for mapping in MAPPINGS for name in names_in(mapping)]
    return [*plain, *inside, *(f"search.{field.name}" for field in fields(Search))]


def names_in(mapping: str) -> tuple[str, ...]:
    """The names that `hyper`, `sparsity_of` or `pruning` may have, whatever the algorithm and the pruner."""
    every = plugins.of_all(*NAMES[mapping])
    return (*every, ALL_RATES) if mapping == "hyper" else every


def choices(name: str) -> tuple[str, ...]:
    """What a field may be; empty for a number."""
    if name in ("algorithms", "pruners"):
        return plugins.names(name)
    if name == "datasets":
        from trainables.datasets.collect import tiers  # imports numpy

        return tuple(dict.fromkeys([*local.local_datasets(), *tiers.all_ids()]))
    if name == "protocol":
        return tuple(PROTOCOLS)
    if name == "published":
        return ("0", "1")
    listed = CHOICES | TRAINING_CHOICES
    found = listed.get(name, (False, True) if isinstance(_default(name), bool) else ())
    return tuple(str(choice).lower() if isinstance(choice, bool) else str(choice) for choice in found)


def described() -> list[tuple[str, str]]:
    """Each field, or group of fields, with what it may be."""
    rows = [(name, _text(name)) for name in (field.name for field in fields(Sweep)) if name not in (*MAPPINGS, "search")]
    for mapping, (folder, _) in NAMES.items():
        rows.append((f"{mapping}.NAME", f"of the {folder}: {', '.join(names_in(mapping))}"))
    return [*rows, ("search.NAME", f"of an adaptive sweep: {', '.join(field.name for field in fields(Search))}")]


def _text(name: str) -> str:
    if name == "datasets":
        here = local.local_datasets()
        return f"any that Minari knows; here: {', '.join(here) or 'none'}; `winnow datasets list` shows those that can be recorded"
    if found := choices(name):
        return ", ".join(found)
    return WORDS.get(name) or WORDS[_kind(name)]


def _default(name: str) -> Any:
    return next((field.default for field in fields(Sweep) if field.name == name), None)


def _kind(name: str) -> str:
    return AXES[name].__name__ if name in AXES else type(REWARDS.get(name, _default(name))).__name__
