"""A sweep changed from the command line: `--set seeds=0-4 --set updates=20k`."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import fields, replace
from typing import Any

from search_spaces.sweep.sweep import AXES, VARIED, Sweep
from trainables import plugins
from trainables.errors import UserError, unknown
from trainables.trial import MAPPINGS, PLURALS, REWARDS
from trainables.trial.numbers import integer, integers, literal

KNOWN: dict[str, tuple[str, Callable[[str], Iterable[str]]]] = {
    "hyper": ("algorithms", plugins.hyper_defaults),
    "pruning": ("pruners", plugins.pruner_settings),
}


def override(sweep: Sweep, settings: Iterable[str]) -> Sweep:
    """The sweep with `seeds=0-2`, `updates=50k` or `hyper.alpha=1,2.5` in place of its own values; `search=none` makes a search a grid.

    Raises UserError for an unknown name (with the right ones) and for a value of the wrong type.
    """
    changes: dict[str, Any] = {}
    search: dict[str, Any] = {}
    as_grid = False
    given: dict[str, dict[str, Any]] = {name: {} for name in MAPPINGS}
    for setting in settings:
        name, (_, equals, text) = setting_name(setting), setting.partition("=")
        if not equals:
            raise UserError(f"--set {setting!r} is not of the form name=value, e.g. seeds=0,1,2")
        mapping, dot, key = name.partition(".")
        if dot and mapping in MAPPINGS:
            given[mapping][key] = _literal(name, text)
        elif name in VARIED and "," in text:
            changes[name] = _several(name, text, _kind(sweep, name))
        elif name == "search" and text.strip() == "none":
            as_grid = True
        elif name in AXES:
            changes[name] = _several(name, text, AXES[name])
        elif name in (choices := [f.name for f in fields(sweep) if f.name not in (*MAPPINGS, "search")]):
            changes[name] = _parse(name, text.strip(), _kind(sweep, name))
        elif name in (searched := [f"search.{f.name}" for f in fields(sweep.search)] if sweep.search else []):
            search[name.removeprefix("search.")] = _parse(name, text.strip(), type(getattr(sweep.search, name.removeprefix("search."))))
        else:
            raise unknown("override", name, [*choices, *(f"{mapping}.<name>" for mapping in MAPPINGS), *searched])
    grid: dict[str, Any] = {"search": None, "hyper": {}}  # its own `hyper` may have ranges, and is filled in below
    changed = replace(sweep, **changes, **(grid if as_grid else {"search": replace(sweep.search, **search) if sweep.search else None}))
    mappings: dict[str, Any] = {name: _still_meant(name, sweep, changed) | given[name] for name in MAPPINGS}
    return replace(changed, **mappings)


def setting_name(setting: str) -> str:
    """What a setting such as `seed=0` changes: `seeds`."""
    name = setting.partition("=")[0].strip()
    return PLURALS.get(name, name)


def _still_meant(mapping: str, sweep: Sweep, changed: Sweep) -> dict[str, Any]:
    """What the sweep says in a mapping, without what it says for algorithms or pruners that `changed` leaves out."""
    said = dict(getattr(sweep, mapping))
    if said and mapping in KNOWN:  # only then is a plug-in's file read, which may make no sense
        axis, known = KNOWN[mapping]
        now = {name for plug in getattr(changed, axis) for name in known(plug)}
        if said.keys() - now:
            before = {name for plug in getattr(sweep, axis) for name in known(plug)}
            return {name: value for name, value in said.items() if name in now or name not in before}
    return said


def _several(name: str, text: str, kind: type) -> tuple[Any, ...]:
    if kind is int:
        return integers(name, text)
    return tuple(_parse(name, part.strip(), kind) for part in text.split(",") if part.strip())


def _kind(sweep: Sweep, name: str) -> type:
    """The type of a field's values."""
    if name in REWARDS:
        return type(REWARDS[name])  # a sweep's file may say 1
    if name in VARIED:
        return type(sweep.values(name)[0])
    return type(getattr(sweep, name))


def _parse(name: str, text: str, kind: type) -> Any:
    if kind is bool:
        if text.lower() not in ("true", "false"):
            raise unknown(name, text, ("true", "false"))
        return text.lower() == "true"
    if kind is int:
        return integer(name, text)
    try:
        return kind(text)
    except ValueError:
        raise UserError(f"{name} {text!r} is not {'a number' if kind is float else 'valid'}") from None


def _literal(name: str, text: str) -> Any:
    try:
        return literal(text)
    except ValueError:
        raise UserError(f"{name} {text!r} is not a number, True or False, nor numbers with commas between, such as 64,64") from None
