"""The sweeps that there are: every file of search_spaces/ and search_spaces/studies/, and of the project's sweeps/, is one, and its name
is the sweep's.

So is a file that was given by its path, and one that an installed package brings."""

from __future__ import annotations

import importlib
from pathlib import Path
from types import ModuleType

from search_spaces.sweep.sweep import Sweep
from trainables import project
from trainables.errors import UserError, unknown
from trainables.plugins import installed

FOLDER = Path(__file__).parents[1]


def sweep_names() -> tuple[str, ...]:
    """Their names, sorted."""
    ours, theirs = _ours(), _theirs()
    for name in ours.keys() & theirs.keys():
        raise project.taken(theirs[name], "sweep")
    return tuple(sorted(ours.keys() | theirs.keys()))


def _ours() -> dict[str, Path]:
    """The files of sweeps that ship with Winnow, below search_spaces/."""
    files = (*FOLDER.glob("*.py"), *(FOLDER / "studies").glob("*.py"))
    return {file.stem: file.relative_to(FOLDER) for file in files if file.stem != "__init__"}


def _theirs() -> dict[str, Path]:
    """The files of sweeps that do not ship with Winnow."""
    brought, own = installed.files("sweeps"), project.files("sweeps")
    for name in brought.keys() & own.keys():
        raise project.taken(own[name], "sweep", f"an installed package brings ({brought[name]})")
    return brought | own


def load_sweep(name: str) -> Sweep:
    """`SWEEP` of the sweep's file, also of a part of it; raises UserError for a wrong name and for a file that declares no sweep."""
    name = project.whole(name)
    if name not in sweep_names():
        raise unknown("sweep", name, sweep_names())
    file = _theirs().get(name) or Path("search_spaces") / _ours()[name]
    try:
        sweep = _module(name).SWEEP
    except (SyntaxError, AttributeError, TypeError, NameError, ImportError) as error:
        takes = f"; a Sweep takes: {', '.join(Sweep.__dataclass_fields__)}" if "Sweep.__init__()" in str(error) else ""
        raise UserError(f"{file} declares no sweep: {error}{takes}") from error
    if not isinstance(sweep, Sweep):
        raise UserError(f"{file}: SWEEP is a {type(sweep).__name__}, not a Sweep")
    return sweep


def _module(name: str) -> ModuleType:
    if name in project.files("sweeps"):
        return project.load("sweeps", name)
    if name in installed.files("sweeps"):
        return installed.load("sweeps", name)
    return importlib.import_module(".".join(("search_spaces", *_ours()[name].with_suffix("").parts)))
