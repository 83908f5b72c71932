"""Plug-ins are files: `pruners/snip.py` is the pruner `snip`. There is no registry; a plug-in is found by its file name,
here or in the project (project.py). Packages that bring some declare them (installed.py).

Names, titles and hyperparameters are read from the source without importing it, because planning must not import torch.
"""

from __future__ import annotations

import ast
import contextlib
import hashlib
import importlib
from collections.abc import Callable, Iterable
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

from trainables import project
from trainables.errors import UserError, one_line, unknown
from trainables.plugins import installed

ROOT = Path(__file__).parents[1]
OF_PROJECTS = ("pruners", "algorithms", "environments")


@cache
def _files(folder: str) -> dict[str, Path]:
    """The files of a folder's plug-ins by name, with those of installed packages and of the project; those of one kind may share a
    folder below.

    Raises UserError where two have one name."""
    found = {path.stem: path for path in (ROOT / folder).rglob("*.py") if not path.stem.startswith("_")}
    if folder not in OF_PROJECTS:
        return found
    kind, brought, theirs = folder.removesuffix("s"), installed.files(folder), project.files(folder)
    for name in found.keys() & (brought | theirs).keys():
        raise project.taken((brought | theirs)[name], kind)
    for name in brought.keys() & theirs.keys():
        raise project.taken(theirs[name], kind, f"an installed package brings ({brought[name]})")
    return found | brought | theirs


@cache
def names(folder: str) -> tuple[str, ...]:
    """All plug-ins of a folder (`pruners`, `algorithms`, `environments`), sorted; files starting with `_` are not plug-ins."""
    return tuple(sorted(_files(folder)))


def renew() -> None:
    """Read the project's plug-ins again, those that have changed and new ones: a notebook's process outlives its files."""
    of_files = (_files, names, source_hash, defines, title, networks, network_choices, layer_normalized, normalizes)
    for cached in (*of_files, ranges, pruner_settings, hyper_defaults):
        cached.cache_clear()


def check(folder: str, name: str) -> str:
    """Return `name` if `folder/name.py` exists; raise UserError, listing the names there are, otherwise."""
    if name not in names(folder):
        raise unknown(folder.removesuffix("s"), name, names(folder))
    return name


def load(folder: str, name: str) -> ModuleType:
    """Import the plug-in `trainables.<folder>.<name>`, or one of a folder below, of a package or of the project."""
    path = _files(folder)[check(folder, name)]
    if not ships(folder, name):
        return installed.load(folder, name) if name in installed.files(folder) else project.load(folder, name)
    file = path.relative_to(ROOT).with_suffix("")
    return importlib.import_module(f"trainables.{'.'.join(file.parts)}")


def ships(folder: str, name: str) -> bool:
    """Whether a plug-in ships with Winnow; else a project or an installed package brings it."""
    return _files(folder)[check(folder, name)].is_relative_to(ROOT)


@cache
def source_hash(folder: str, name: str) -> str:
    """The beginning of the SHA-256 of a plug-in's file; empty for one that ships with Winnow, which the code's revision covers."""
    return "" if ships(folder, name) else hashlib.sha256(_files(folder)[name].read_bytes()).hexdigest()[:16]


@cache
def defines(folder: str, name: str) -> frozenset[str]:
    """The names that a plug-in's file defines or imports, read from the source."""
    defined: set[str] = set()
    for node in _body(folder, name):
        if isinstance(node, ast.FunctionDef):
            defined.add(node.name)
        elif isinstance(node, ast.ImportFrom):
            defined |= {alias.asname or alias.name for alias in node.names}
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            defined |= _assigned(node)
    return frozenset(defined)


def _assigned(node: ast.Assign | ast.AnnAssign) -> set[str]:
    targets = node.targets if isinstance(node, ast.Assign) else [node.target] if node.value else []
    return {target.id for target in targets if isinstance(target, ast.Name)}


def constant(folder: str, name: str, identifier: str, default: Any = None) -> Any:
    """The literal that a plug-in's file assigns to `identifier`; `default` if it assigns none. Raises UserError for what is computed."""
    for node in _body(folder, name):
        if isinstance(node, ast.Assign | ast.AnnAssign) and node.value and identifier in _assigned(node):
            try:
                return ast.literal_eval(node.value)
            except (ValueError, TypeError):
                wanted = "which is read without running the file, so it has to be written out"
                raise UserError(f"{folder}/{name}.py: {identifier} = {ast.unparse(node.value)}, {wanted}") from None
    return default


@cache
def title(folder: str, name: str) -> str:
    """A plug-in's name as papers write it, from the TITLE in its file; the file's name if it has none."""
    return str(constant(folder, name, "TITLE", name))


@cache
def networks(algorithm: str) -> tuple[str, ...]:
    """The names of the algorithm's networks, from its LEARNING_RATES."""
    rates = constant("algorithms", algorithm, "LEARNING_RATES")
    if rates is None:
        raise UserError(f"algorithms/{algorithm}.py has no LEARNING_RATES")
    return tuple(rates)


@cache
def network_choices(algorithm: str) -> tuple[str, ...]:
    """The values of a trial's `network` that the algorithm can be trained with, from its NETWORKS; empty where all are."""
    return tuple(constant("algorithms", algorithm, "NETWORKS", ()))


@cache
def layer_normalized(algorithm: str) -> tuple[str, ...]:
    """The networks that the algorithm gives layer normalization itself (`norm=` of an MLP), read from its `networks`."""
    built = (node for node in _body("algorithms", algorithm) if isinstance(node, ast.FunctionDef) and node.name == "networks")
    dicts = (node for function in built for node in ast.walk(function) if isinstance(node, ast.Dict))
    pairs = (pair for made in dicts for pair in zip(made.keys, made.values, strict=True))
    return tuple(
        str(key.value)
        for key, value in pairs
        if isinstance(key, ast.Constant) and any(isinstance(part, ast.keyword) and part.arg == "norm" for part in ast.walk(value))
    )


@cache
def normalizes(algorithm: str) -> bool:
    """Whether the algorithm's NORMALIZE asks for normalized observations, read from the source."""
    return bool(constant("algorithms", algorithm, "NORMALIZE", False))


@cache
def ranges(folder: str, name: str) -> dict[str, str]:
    """A plug-in's own RANGES (trainables/trial/hyper_ranges.py), read from the source; empty where it has none."""
    return dict(constant(folder, name, "RANGES", {}))


@cache
def pruner_settings(pruner: str) -> dict[str, Any]:
    """The pruner's SETTINGS with their defaults, read from the source; empty where it has none."""
    return dict(constant("pruners", pruner, "SETTINGS", {}))


def of_all(folder: str, declared: Callable[[str], Iterable[str]]) -> tuple[str, ...]:
    """The names that `declared` finds for any plug-in of a folder, sorted; one whose file cannot be read for them has none."""
    found: set[str] = set()
    for name in names(folder):
        with contextlib.suppress(UserError):
            found |= set(declared(name))
    return tuple(sorted(found))


def _body(folder: str, name: str) -> list[ast.stmt]:
    path = _files(folder)[check(folder, name)]
    try:
        return ast.parse(path.read_bytes(), path.name).body
    except (SyntaxError, ValueError) as error:  # ValueError: null bytes
        raise UserError(f"{path} cannot be read: {type(error).__name__}: {one_line(error)}") from None


@cache
def hyper_defaults(algorithm: str) -> dict[str, Any]:
    """The fields of the algorithm's `class Hyper` with their defaults, read from the source (no import, hence no torch)."""
    for node in _body("algorithms", algorithm):
        if isinstance(node, ast.ClassDef) and node.name == "Hyper":
            return {
                field.target.id: ast.literal_eval(field.value)
                for field in node.body
                if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name) and field.value is not None
            }
    raise UserError(f"algorithms/{algorithm}.py has no class Hyper")
