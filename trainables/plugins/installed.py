"""Plug-ins and sweeps that installed packages bring, by entry points: `steep = "their_package.steep"` in the group `winnow.pruners` is the
pruner `steep`, whose file is that module's. The groups are `winnow.pruners`, `winnow.algorithms`, `winnow.environments`, `winnow.sweeps`.

Nothing of a package is imported to find its files. Imports no torch.
"""

from __future__ import annotations

import importlib
import importlib.util
from functools import cache
from importlib.metadata import entry_points
from pathlib import Path
from types import ModuleType

from trainables.errors import UserError, one_line


@cache
def files(kind: str) -> dict[str, Path]:
    """The files of a kind by name. Raises UserError for an entry point whose module has none."""
    return {name: _file(kind, name, module) for name, module in _modules(kind).items()}


def load(kind: str, name: str) -> ModuleType:
    """Import one. What its code raises comes as a UserError that names it."""
    try:
        return importlib.import_module(_modules(kind)[name])
    except UserError:
        raise
    except Exception as error:  # a package's code may raise anything
        where = files(kind)[name]
        raise UserError(f"{where} cannot be imported: {type(error).__name__}: {one_line(error)}") from error


@cache
def _modules(kind: str) -> dict[str, str]:
    return {point.name: point.value for point in entry_points(group=f"winnow.{kind}")}


def _file(kind: str, name: str, module: str) -> Path:
    """The source of a module, found without importing the packages around it."""
    top, *below = module.split(".")
    try:
        spec = importlib.util.find_spec(top)
    except (ImportError, ValueError):
        spec = None
    found = [Path(folder).joinpath(*below) for folder in (spec.submodule_search_locations or ())] if spec else []
    tried = [place for path in found for place in (path.with_suffix(".py"), path / "__init__.py")]
    tried += [Path(spec.origin)] if spec and spec.origin and not below else []
    if file := next((path for path in tried if path.is_file()), None):
        return file
    raise UserError(
        f"the entry point {name} = {module!r} of winnow.{kind} does not lead to a Python file; fix or remove the package that brings it"
    )
