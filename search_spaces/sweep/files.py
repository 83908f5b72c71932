"""The sweeps that there are: every file of search_spaces/ is one, and its name is the sweep's."""

from __future__ import annotations

import importlib
from pathlib import Path

from search_spaces.sweep.sweep import Sweep
from trainables.errors import UserError, unknown

FOLDER = Path(__file__).parents[1]


def sweep_names() -> tuple[str, ...]:
    """Their names, sorted."""
    return tuple(sorted(path.stem for path in FOLDER.glob("*.py") if path.stem != "__init__"))


def load_sweep(name: str) -> Sweep:
    """`SWEEP` of `search_spaces/<name>.py`; raises UserError for a wrong name and for a file that declares no sweep."""
    if name not in sweep_names():
        raise unknown("sweep", name, sweep_names())
    try:
        sweep = importlib.import_module(f"search_spaces.{name}").SWEEP
    except (SyntaxError, AttributeError, TypeError, NameError, ImportError) as error:
        raise UserError(f"search_spaces/{name}.py declares no sweep: {error}") from error
    if not isinstance(sweep, Sweep):
        raise UserError(f"search_spaces/{name}.py: SWEEP is a {type(sweep).__name__}, not a Sweep")
    return sweep
