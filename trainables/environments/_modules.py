"""Which modules are imported for an environment: those that the user names. Data that names a module would otherwise run its code.

They come from `--import MODULE` and $WINNOW_IMPORT, where they stay, so that the processes that this one starts know them too. The
file of a sweep that was given by its path is among them.
"""

from __future__ import annotations

import importlib
import os
import re
import sys
from collections.abc import Collection, Iterable

from trainables import project
from trainables.errors import UserError, one_line

VARIABLE = "WINNOW_IMPORT"  # names separated by commas
NAME = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*")


def named_modules(more: Iterable[str] = ()) -> tuple[str, ...]:
    """The modules in $WINNOW_IMPORT, and `more`; raises UserError for what is no module's name."""
    given = [*os.environ.get(VARIABLE, "").split(","), *more]
    names = tuple(dict.fromkeys(name.strip() for name in given if name.strip()))
    for name in names:
        if not NAME.fullmatch(name):
            raise UserError(f"--import {name!r} is not the name of a module, such as my_package.envs")
    return names


def name_modules(modules: Iterable[str]) -> None:
    """Allow modules to be imported, in this process and in those that it starts from now on."""
    if names := named_modules(modules):
        os.environ[VARIABLE] = ",".join(names)


def environment_variables() -> dict[str, str]:
    """What processes elsewhere need to know of it."""
    return {VARIABLE: ",".join(named_modules())} if named_modules() else {}


def import_for(environment: str, declared: Collection[str]) -> None:
    """Import all named modules, which may register environments. Raises UserError, before that, where the environment's id asks for another
    one: a module is allowed that is named or imported, or in a named package, or `declared` by a file here."""
    module, separator, _ = environment.partition(":")
    names, files = named_modules(), project.given()
    for name in files:
        project.load("sweeps", name)
    if separator and module not in declared:
        check_named(module, f"environment {environment!r}")
    for name in names:
        try:
            importlib.import_module(name)
        except Exception as error:  # a module's code may raise anything
            raise UserError(f"--import {name}: it cannot be imported ({type(error).__name__}: {one_line(error)})") from None


def check_named(module: str, what: str) -> None:
    """Raise UserError where `what` is made by a module that is neither imported nor named, nor in a named package."""
    if module not in sys.modules and not any(f"{module}.".startswith(f"{name}.") for name in named_modules()):
        setting = f', or import = ["{module}"] in {project.FILE}' if project.root() else ""
        raise UserError(
            f"{what} is made by the module {module}, and only modules that you name are imported: "
            f"--import {module}, or {VARIABLE}={module}{setting}"
        )
