"""How a switch reaches the code: at a report, ahead of each fsync and rename, or when a module is imported.

A change to a module of ours waits until it is imported: in Ray's workers the switches are installed before anything is.
"""

from __future__ import annotations

import importlib.abc
import importlib.machinery
import os
import sys
from collections.abc import Callable
from types import ModuleType
from typing import Any

Change = Callable[[Any], None]
_changes: dict[str, list[Change]] = {}
_passed = 0


def after(moment: str, act: Callable[[], None]) -> None:
    """Act, once, when the spools have taken in a report."""
    kind, _, update = moment.partition("@")
    acted: list[bool] = []

    def change(module: Any) -> None:
        take = module.StackSpool.__call__

        def taken(spool: Any, report: Any) -> None:
            take(spool, report)
            if not acted and type(report).__name__ == kind and report.update == int(update):
                acted.append(True)
                act()

        module.StackSpool.__call__ = taken

    when_imported("service.spool.writer", change)


class With:
    """A module with some names replaced."""

    def __init__(self, module: ModuleType, **names: Any) -> None:
        self._module = module
        self.__dict__.update(names)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._module, name)


def at_boundaries(hook: Callable[[int, str], None]) -> None:
    def guard(name: str, real: Callable[..., Any]) -> Callable[..., Any]:
        def guarded(*arguments: Any, **named: Any) -> Any:
            hook(pass_one(), name)
            return real(*arguments, **named)

        return guarded

    for name in ("fsync", "replace"):
        setattr(os, name, guard(name, getattr(os, name)))


def pass_one() -> int:
    """Count a boundary, and say which it is."""
    global _passed
    _passed += 1
    return _passed


def passed() -> int:
    """How many boundaries this process has passed."""
    return _passed


def when_imported(name: str, change: Change) -> None:
    if name in sys.modules:
        change(sys.modules[name])
        return
    if not _changes:
        sys.meta_path.insert(0, _Finder())
    _changes.setdefault(name, []).append(change)


class _Finder(importlib.abc.MetaPathFinder):
    def find_spec(self, name: str, path: Any, target: Any = None) -> Any:
        if name not in _changes:
            return None
        spec = importlib.machinery.PathFinder.find_spec(name, path)
        assert spec is not None
        assert spec.loader is not None
        run = spec.loader.exec_module

        def run_and_change(module: ModuleType) -> None:
            run(module)
            for change in _changes[name]:
                change(module)

        spec.loader.exec_module = run_and_change  # type: ignore[method-assign]
        return spec
