"""A project is a folder with a `winnow.toml`: what that sets, and the plug-ins and sweeps beside it, count wherever below it one works.

    winnow.toml                              settings, all optional: SETTINGS, and a table [defaults] of options that `run` takes
    sweeps/ pruners/ algorithms/ environments/   one file each, found by its name beside those that ship with Winnow

A setting is the default of an environment variable, so that all processes below know it, and the command line beats both. Imports no
torch.
"""

from __future__ import annotations

import importlib
import os
import sys
import tomllib
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

from trainables.errors import UserError, unknown

FILE = "winnow.toml"
VARIABLE = "WINNOW_PROJECT"
PACKAGE = "winnow_project"  # under which a project's files are imported
SETTINGS = {
    "storage": "WINNOW_STORAGE", "cache": "WINNOW_CACHE", "datasets": "MINARI_DATASETS_PATH", "tracking": "MLFLOW_TRACKING_URI",
    "experiment": "MLFLOW_EXPERIMENT_NAME", "study_storage": "WINNOW_STUDY_STORAGE", "import": "WINNOW_IMPORT",
}  # fmt: skip
FOLDERS = ("storage", "cache", "datasets")  # relative to the project


@cache
def root() -> Path | None:
    """The project that this process works in: $WINNOW_PROJECT, else the nearest folder with a winnow.toml, from the current one upwards.

    None where there is none. Raises UserError where the variable names a folder without one, and for a project of another user, whose
    code would run, that the variable does not name."""
    if given := os.environ.get(VARIABLE):
        if not (Path(given) / FILE).is_file():
            raise UserError(f"{VARIABLE} {given} holds no {FILE}; `winnow init {given}` makes one")
        return Path(given).absolute()
    here = Path.cwd()
    folder = next((folder for folder in (here, *here.parents) if (folder / FILE).is_file()), None)
    if folder is not None and (folder / FILE).stat().st_uid not in (os.geteuid(), 0):
        raise UserError(f"{folder / FILE} is another user's, whose code would run; {VARIABLE}={folder} says that this is meant")
    return folder


@cache
def settings() -> Mapping[str, Any]:
    """What the project's winnow.toml says; empty without a project. Raises UserError for what it may not say."""
    folder = root()
    if folder is None:
        return {}
    try:
        said = tomllib.loads((folder / FILE).read_text())
    except (OSError, ValueError) as error:
        raise UserError(f"{folder / FILE} cannot be read: {error}") from None
    for name, value in said.items():
        if name not in SETTINGS and name != "defaults":
            raise unknown(f"setting of {folder / FILE}", name, (*SETTINGS, "defaults"))
        right, wanted = _kind(name, value)
        if not right:
            raise UserError(f"{folder / FILE}: {name} = {value!r} is not {wanted}")
    return said


def _kind(name: str, value: object) -> tuple[bool, str]:
    """Whether a setting's value is of its kind, and what that is."""
    if name == "defaults":
        return isinstance(value, dict), "a table"
    if name == "import":
        return isinstance(value, list) and all(isinstance(each, str) for each in value), "a list of texts"
    return isinstance(value, str), "a text"


def apply() -> None:
    """Make the project's settings those of this process and of the processes that it starts; a variable that is set stays."""
    folder = root()
    if folder is None:
        return
    for name, value in settings().items():
        if name == "defaults":
            continue
        if name in FOLDERS and not value.startswith("s3:"):
            value = str(folder / Path(value).expanduser())
        os.environ.setdefault(SETTINGS[name], ",".join(value) if isinstance(value, list) else value)
    os.environ[VARIABLE] = str(folder)
    if str(folder) not in sys.path:
        sys.path.append(str(folder))  # for the modules that `import` names


def places() -> list[str]:
    """The folders within the project that its settings name, relative to it: results and datasets, no code."""
    folder, said = root(), settings()
    inside = [Path(os.path.normpath((folder or Path()) / Path(said[name]).expanduser())) for name in FOLDERS if name in said]
    return [path.relative_to(folder).as_posix() for path in inside if folder is not None and path != folder and path.is_relative_to(folder)]


def environment_variables() -> dict[str, str]:
    """What processes elsewhere, that see the same folders, need to know of it."""
    return {VARIABLE: str(root())} if root() else {}


def files(kind: str) -> dict[str, Path]:
    """The project's plug-ins or sweeps of a kind, the name of a folder, by their names; those starting with `_` are none."""
    folder = root()
    return {} if folder is None else {path.stem: path for path in (folder / kind).glob("*.py") if not path.stem.startswith("_")}


def taken(file: Path, kind: str) -> UserError:
    """For a file of the project that has the name of one that ships with Winnow."""
    return UserError(f"{file} has the name of {'an' if kind[0] in 'ae' else 'a'} {kind} that ships with Winnow; give it another one")


def load(kind: str, name: str) -> ModuleType:
    """Import one of the project's files. What its code raises comes as a UserError that names the file."""
    folder = root()
    assert folder is not None
    if PACKAGE not in sys.modules:
        package = ModuleType(PACKAGE)
        package.__path__ = [str(folder)]
        sys.modules[PACKAGE] = package
    try:
        return importlib.import_module(f"{PACKAGE}.{kind}.{name}")
    except UserError:
        raise
    except Exception as error:  # a file of the user's may raise anything
        raise UserError(f"{folder / kind / name}.py cannot be imported: {type(error).__name__}: {error}") from error
