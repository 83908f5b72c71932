"""The sweeps that there are: every file of search_spaces/, and of the project's sweeps/, is one, and its name is the sweep's."""

from __future__ import annotations

import importlib
from pathlib import Path

from search_spaces.sweep.sweep import Sweep
from trainables import project
from trainables.errors import UserError, unknown

FOLDER = Path(__file__).parents[1]


def sweep_names() -> tuple[str, ...]:
    """Their names, sorted."""
    ours, theirs = {path.stem for path in FOLDER.glob("*.py") if path.stem != "__init__"}, project.files("sweeps")
    for name in ours & theirs.keys():
        raise project.taken(theirs[name], "sweep")
    return tuple(sorted(ours | theirs.keys()))


def load_sweep(name: str) -> Sweep:
    """`SWEEP` of the sweep's file; raises UserError for a wrong name and for a file that declares no sweep."""
    if name not in sweep_names():
        raise unknown("sweep", name, sweep_names())
    theirs = project.files("sweeps").get(name)
    file = theirs or f"search_spaces/{name}.py"
    try:
        sweep = (project.load("sweeps", name) if theirs else importlib.import_module(f"search_spaces.{name}")).SWEEP
    except (SyntaxError, AttributeError, TypeError, NameError, ImportError) as error:
        raise UserError(f"{file} declares no sweep: {error}") from error
    if not isinstance(sweep, Sweep):
        raise UserError(f"{file}: SWEEP is a {type(sweep).__name__}, not a Sweep")
    return sweep
