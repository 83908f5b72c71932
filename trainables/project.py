"""A project is a folder with a `winnow.toml`: what that sets, and the plug-ins and sweeps beside it, count wherever below it one works.

    winnow.toml                              settings, all optional: SETTINGS, and the tables [defaults], options of `run`, and [prices]
    sweeps/ pruners/ algorithms/ environments/   one file each, found by its name beside those that ship with Winnow

A sweep's file may also be given by its path, in a project or not. Then it is the module of its own name, as it is to `python mine.py`.

A setting is the default of an environment variable, so that all processes below know it, and the command line beats both. Imports no
torch.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import re
import shlex
import sys
import tomllib
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

from trainables.errors import UserError, one_line, unknown

FILE = "winnow.toml"
VARIABLE = "WINNOW_PROJECT"
GIVEN = "WINNOW_FILES"  # paths of the sweeps' files that were given by path, as in PATH
PACKAGE = "winnow_project"  # under which a project's files are imported
SETTINGS = {
    "storage": "WINNOW_STORAGE", "cache": "WINNOW_CACHE", "datasets": "MINARI_DATASETS_PATH", "tracking": "MLFLOW_TRACKING_URI",
    "experiment": "MLFLOW_EXPERIMENT_NAME", "study_storage": "WINNOW_STUDY_STORAGE", "import": "WINNOW_IMPORT",
}  # fmt: skip
PART = re.compile(r"(?P<whole>.+)\.part(?P<number>[1-9]\d{0,5})", re.S)
TABLES = ("defaults", "prices")
PRICED = {"cpu", "gpu"}
FOLDERS = ("storage", "cache", "datasets")  # relative to the project
_applied: dict[str, str] = {}  # the environment variables that are set here from settings
_executed: dict[str, tuple[Path, bytes]] = {}  # by module: the file that was imported, and its text then


@cache
def root() -> Path | None:
    """The project that this process works in: $WINNOW_PROJECT, else the nearest folder with a winnow.toml, from the current one upwards.

    None where there is none. Raises UserError where the variable names a folder without one, and for a project of another user, whose
    code would run, that the variable does not name."""
    if given := os.environ.get(VARIABLE):
        if not (Path(given) / FILE).is_file():
            raise UserError(f"{VARIABLE} {given} holds no {FILE}; `winnow init {shlex.quote(given)}` makes one")
        return Path(given).absolute()
    try:
        here = Path.cwd()
    except FileNotFoundError:
        raise UserError("the current folder has been removed; change to another one") from None
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
        if name not in SETTINGS and name not in TABLES:
            raise unknown(f"setting of {folder / FILE}", name, (*SETTINGS, *TABLES))
        right, wanted = _kind(name, value)
        if not right:
            raise UserError(f"{folder / FILE}: {name} = {value!r} is not {wanted}")
    return said


def _kind(name: str, value: object) -> tuple[bool, str]:
    """Whether a setting's value is of its kind, and what that is."""
    if name == "defaults":
        return isinstance(value, dict), "a table"
    if name == "prices":
        known = (
            isinstance(value, dict) and value.keys() <= PRICED and all(type(each) in (int, float) and each >= 0 for each in value.values())
        )
        return known, "a table of the prices of an hour of `cpu` and of `gpu`"
    if name == "import":
        return isinstance(value, list) and all(isinstance(each, str) for each in value), "a list of strings"
    return isinstance(value, str), "a string"


def expanded(path: str | Path) -> Path:
    """The path with the home folder that its `~` or `~user` stands for. Raises UserError where there is no such folder."""
    try:
        return Path(path).expanduser()
    except RuntimeError:
        home = Path(path).parts[0]
        raise UserError(
            f"{str(path)!r}: {home} is not a home folder here; {'set HOME' if home == '~' else 'write the whole path'}"
        ) from None


def apply() -> None:
    """Make the project's settings those of this process and of the processes that it starts; a variable that is set stays."""
    folder = root()
    said = {} if folder is None else {name: value for name, value in settings().items() if name not in TABLES}
    for name, variable in SETTINGS.items():
        if os.environ.get(variable) != _applied.get(variable):  # somebody else has set it
            continue
        value = said.get(name)
        if name in FOLDERS and value is not None and not value.startswith("s3:"):
            value = str((folder or Path()) / expanded(value))
        _put(variable, ",".join(value) if isinstance(value, list) else value)
    if os.environ.get(VARIABLE) in (None, _applied.get(VARIABLE)):
        _put(VARIABLE, str(folder) if folder is not None else None)
    if folder is not None and str(folder) not in sys.path:
        sys.path.append(str(folder))  # for the modules that `import` names


def _put(variable: str, value: str | None) -> None:
    """Set an environment variable for a setting, or take it back."""
    if value is None:
        os.environ.pop(variable, None)
        _applied.pop(variable, None)
    else:
        os.environ[variable] = _applied[variable] = value


def renew() -> None:
    """Look for the project again, and read again what has changed in it: a notebook's process outlives files, and may change its folder."""
    if os.environ.get(VARIABLE) == _applied.get(VARIABLE):
        _put(VARIABLE, None)
    root.cache_clear()
    settings.cache_clear()
    importlib.invalidate_caches()
    if os.environ.get(GIVEN):  # but for files that were moved meanwhile
        os.environ[GIVEN] = os.pathsep.join(text for text in os.environ[GIVEN].split(os.pathsep) if ((root() or Path()) / text).is_file())
    for name, (path, text) in [*_executed.items()]:
        if not path.is_file() or path.read_bytes() != text:
            loaded = sys.modules.get(name)
            for alias in [alias for alias, module in sys.modules.items() if module is loaded]:
                del sys.modules[alias]
            del _executed[name]
    if (package := sys.modules.get(PACKAGE)) is not None and package.__path__ != [str(root())]:  # another project's
        for name in [name for name in sys.modules if name == PACKAGE or name.startswith(f"{PACKAGE}.")]:
            del sys.modules[name]


def places() -> list[str]:
    """The folders within the project that its settings name, relative to it: results and datasets, no code."""
    folder, said = root(), settings()
    inside = [Path(os.path.normpath((folder or Path()) / expanded(said[name]))) for name in FOLDERS if name in said]
    return [path.relative_to(folder).as_posix() for path in inside if folder is not None and path != folder and path.is_relative_to(folder)]


def environment_variables(*, copied: bool = False) -> dict[str, str]:
    """What processes elsewhere need to know of it, that see the same folders or, with `copied`, have a copy of the project."""
    paths = {GIVEN: os.environ[GIVEN]} if os.environ.get(GIVEN) else {}
    return paths | ({VARIABLE: str(root())} if root() and not copied else {})


def files(kind: str) -> dict[str, Path]:
    """The project's plug-ins or sweeps of a kind, the name of a folder, by their names; those starting with `_` are none.

    Sweeps that were given by path are among them."""
    folder = root()
    found = {} if folder is None else {path.stem: path for path in (folder / kind).glob("*.py") if not path.stem.startswith("_")}
    return found | (given() if kind == "sweeps" else {})


def given() -> dict[str, Path]:
    """The files of sweeps that were given by path, by their names."""
    texts = [text for text in os.environ.get(GIVEN, "").split(os.pathsep) if text]
    return {Path(text).stem: (root() or Path()) / text for text in texts}


def named(sweep: str) -> str:
    """The name of a sweep that was given by its name or by its file's path, which this process and those that it starts then know.

    Raises UserError for a path that leads to no such file, or whose name cannot be a sweep's."""
    if number := part(sweep):
        return f"{named(whole(sweep))}.part{number}"
    if not (sweep.endswith(".py") or "/" in sweep):
        return sweep
    path, folder = expanded(sweep).absolute(), root()
    path = Path(os.path.normpath(path))
    if not path.is_file() or path.suffix != ".py":
        raise UserError(f"no sweep {sweep!r}: {path} is not a Python file; `winnow list` shows the sweeps that have a name")
    if not re.fullmatch(r"[A-Za-z][A-Za-z0-9_]*", path.stem):
        raise UserError(f"no sweep {sweep!r}: the file's name is the sweep's, so it needs letters, digits and _ alone")
    if folder is not None and path == folder / "sweeps" / path.name:
        return path.stem
    if (other := files("sweeps").get(path.stem)) and other != path:
        raise UserError(f"two sweeps would be called {path.stem!r}: {other} and {path}; rename one of them")
    if path.stem not in given():
        text = path.relative_to(folder) if folder is not None and path.is_relative_to(folder) else path
        os.environ[GIVEN] = os.pathsep.join([*filter(None, [os.environ.get(GIVEN)]), str(text)])
    return path.stem


def whole(sweep: str) -> str:
    """The sweep whose trials a part trains: `quickstart` of `quickstart.part2`, and of itself."""
    found = PART.fullmatch(sweep)
    return found["whole"] if found else sweep


def part(sweep: str) -> int:
    """2 of `quickstart.part2`, a further driver's part of the sweep; 0 of the sweep itself."""
    found = PART.fullmatch(sweep)
    return int(found["number"]) if found else 0


def typed(sweep: str) -> str:
    """A sweep as it is typed here: its name, or the path of one that was given by path."""
    if number := part(sweep):
        return f"{typed(whole(sweep))}.part{number}"
    path = given().get(sweep)
    if path is None:
        return sweep
    here = Path.cwd()
    return f"./{path.relative_to(here)}" if path.is_relative_to(here) else str(path)


def taken(file: Path, kind: str, by: str = "ships with Winnow") -> UserError:
    """For a file that has the name of another one."""
    return UserError(f"{file} has the name of {'an' if kind[0] in 'ae' else 'a'} {kind} that {by}; give it another one")


def load(kind: str, name: str) -> ModuleType:
    """Import one of the project's files, or one that was given by path. What its code raises comes as a UserError that names the file."""
    if kind == "sweeps" and name in given():
        return _load_given(name, given()[name])
    folder = root()
    assert folder is not None
    if PACKAGE not in sys.modules:
        package = ModuleType(PACKAGE)
        package.__path__ = [str(folder)]
        sys.modules[PACKAGE] = package
    known, file = sys.modules.get(f"{kind}.{name}"), folder / kind / f"{name}.py"
    if known is not None and getattr(known, "__file__", None) == str(file):  # a script in the project imports it
        return known
    try:
        loaded = importlib.import_module(f"{PACKAGE}.{kind}.{name}")
    except UserError:
        raise
    except Exception as error:  # a file of the user's may raise anything
        raise UserError(f"{file} cannot be imported: {type(error).__name__}: {one_line(error)}") from error
    _executed[loaded.__name__] = file, file.read_bytes()
    if kind == "environments":  # as a script in the project imports it, and data names it: it is not executed once more
        sys.modules.setdefault(f"{kind}.{name}", loaded)
    return loaded


def _load_given(name: str, path: Path) -> ModuleType:
    """Import a file as the module of its own name, with its neighbours importable, too: so its classes are found by `name:Class`."""
    loaded = sys.modules.get(name)
    if loaded is not None and getattr(loaded, "__file__", None) == str(path):
        return loaded
    if loaded is not None or name in sys.stdlib_module_names:
        raise UserError(f"{path} has the name of the module {name}, which is in use; give it another one")
    if str(path.parent) not in sys.path:
        sys.path.append(str(path.parent))
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules[name] = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except BaseException as error:
        del sys.modules[name]
        if isinstance(error, UserError) or not isinstance(error, Exception):
            raise
        raise UserError(f"{path} cannot be imported: {type(error).__name__}: {one_line(error)}") from error
    _executed[name] = path, path.read_bytes()
    return module
