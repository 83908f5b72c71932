"""Winnow's three packages have plain names, and a folder of a user's project may have one of them: ours are imported all the same."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

HOME = Path(__file__).resolve().parents[1]
ROOMS = ("service", "search_spaces", "trainables")


def claim() -> None:
    """Import the three packages that lie beside this one, wherever the import path would find others of their names.

    Raises ImportError where another one is in use already: one process can hold one package of a name."""
    for name in ROOMS:
        if (loaded := sys.modules.get(name)) is not None and not _ours(loaded):
            raise ImportError(f"{_place(loaded)} is imported as {name!r}, the name of a package of Winnow's; import winnow ahead of it")
    before = sys.path[:]
    sys.path.insert(0, str(HOME))
    try:
        for name in ROOMS:
            importlib.import_module(name)
    finally:
        sys.path[:] = before


def _ours(module: object) -> bool:
    return HOME in Path(_place(module)).resolve().parents


def _place(module: object) -> str:
    """The file of a module; the folder of a package without one."""
    return str(getattr(module, "__file__", None) or next(iter(getattr(module, "__path__", [])), ""))
