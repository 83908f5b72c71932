"""What is given to the calls of `winnow`, checked as what is typed is: a wrong value is a UserError of one line."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from trainables import project
from trainables.errors import UserError
from trainables.trial import MAPPINGS
from trainables.trial.numbers import integer

ASKED = {"retry_failed": "bool", "fresh": "bool", "new_data": "bool", "same_code": "bool", "study_storage": "str", "notify": "str"}


def renew() -> None:
    """Take the project as it is now: its settings, and its files where they have changed since the last call."""
    from trainables import plugins
    from trainables.trial.pruner_traits import traits_of

    project.renew()
    plugins.renew()
    traits_of.cache_clear()
    project.apply()


def sweep(value: object) -> str:
    """The name of a sweep that is given by its name or its file's path."""
    if not isinstance(value, str | os.PathLike):
        raise UserError(
            f"a sweep is given by its name or the path of its file, such as ./mine.py with SWEEP = Sweep(...), not as {value!r}"
        )
    return project.named(str(os.fspath(value)))


def sweeps(values: Sequence[object], call: str) -> list[str]:
    """The names of one sweep or several; `call` is what wants them."""
    if not values:
        raise UserError(f"no sweep given; give at least one, e.g. winnow.{call}('quickstart')")
    return list(dict.fromkeys(sweep(value) for value in values))


def storage(value: object) -> Path:
    """The storage: the one given, else the project's or the one in the current folder."""
    from service.storage import paths

    if value is not None and not isinstance(value, str | Path):
        raise UserError(f"storage {value!r} is neither a folder nor s3://bucket/prefix")
    return paths.root(value)


def options(values: Mapping[str, Any]) -> dict[str, Any]:
    """Options of a run and what else may be ASKED of it, by name; `imports` are names of modules, with those in $WINNOW_IMPORT."""
    from service.planning.options import checked
    from trainables.environments import named_modules

    imports = values.get("imports", ())
    if isinstance(imports, str) or not isinstance(imports, Iterable) or not all(isinstance(each, str) for each in imports):
        raise UserError(f'imports = {imports!r} is not a list of modules, such as ["my_envs"]')
    found = checked({name: value for name, value in values.items() if name != "imports"}, "", ASKED)
    modules = named_modules(imports)
    return found | ({"imports": modules} if modules else {})


def overrides(settings: object) -> tuple[str, ...]:
    """Settings of a sweep as they are typed after `--set`: `seeds=0,1`; `(16, 16)` in a list is one value."""
    if not isinstance(settings, Mapping):
        raise UserError(f'settings {settings!r} are not a dict, such as {{"seeds": (0, 1), "hyper.alpha": 2.5}}')
    return tuple(f"{name}={_typed(name, value)}" for name, value in settings.items())


def _typed(name: object, value: Any) -> str:
    if isinstance(value, Mapping):
        raise UserError(f'setting {name} = {value!r} is a dict; each of its values is a setting of its own, such as "hyper.alpha": 2.5')
    value = _plain(value)
    if isinstance(value, str):
        return value  # as it would be typed: "0-2"
    if str(name).partition(".")[0] in MAPPINGS:  # read as Python, where (16,) is not 16
        return ",".join(map(repr, value)) if isinstance(value, tuple) and len(value) > 1 else repr(value)
    values = value if isinstance(value, tuple) else (value,)
    for each in values:
        if isinstance(each, str) and (not each or "," in each or each != each.strip()):
            raise UserError(f"{name} {each!r} is not one value: it is empty, or has a comma or spaces around it")
    return ",".join(str(each) for each in values)


def _plain(value: Any) -> Any:
    """Numbers of numpy and pandas as Python's, and whatever has several values as a tuple; so within tuples and lists."""
    value = value.tolist() if hasattr(value, "tolist") else value
    return tuple(map(_plain, value)) if isinstance(value, Iterable) and not isinstance(value, str | Mapping) else value


def fields(values: Mapping[str, Any]) -> dict[str, Any]:
    """Fields of a trial: whole numbers may be given as 2e4 and "20k"."""
    from dataclasses import fields as fields_of

    from trainables.errors import unknown
    from trainables.trial import Trial

    kinds = {field.name: str(field.type) for field in fields_of(Trial)}
    found = dict(values)
    for name, value in values.items():
        if name not in kinds:
            raise unknown("field of a trial", name, kinds)
        if name in MAPPINGS and not isinstance(value, Mapping):
            raise UserError(f'{name} {value!r} is not a dict, such as {{"alpha": 2.5}}')
        if kinds[name] == "str" and not isinstance(value, str):
            raise UserError(f"{name} {value!r} is not a string")
        if kinds[name] == "int" and (isinstance(value, str) or (isinstance(value, float) and value.is_integer())):
            found[name] = integer(name, str(value))
    return found
