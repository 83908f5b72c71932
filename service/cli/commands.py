"""Commands are plug-ins: `service/cli/sweeps/status.py` is the command `status`. To add one is to add a file.

Such a file declares `HELP`, one line; `EXAMPLE`, what may be typed after `winnow`; `arguments(parser)`, which adds what it
takes; and `call(arguments, storage)`, which runs it and returns the exit code. It imports what is heavy inside `call`: every command is
parsed, and Tab answered, before torch or ray could be imported.
"""

from __future__ import annotations

import argparse
import importlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

ROOMS = ("sweeps", "trials", "machine")  # in the order of the help
DECLARED = ("HELP", "EXAMPLE", "arguments", "call")


@dataclass(frozen=True)
class Command:
    """A command's file, read. `room` is the docstring of its folder."""

    name: str
    room: str
    help: str
    example: str
    arguments: Callable[[argparse.ArgumentParser], None]
    call: Callable[[argparse.Namespace, Path], int]


def commands() -> dict[str, Command]:
    """All commands by their name, room by room; raises TypeError for a file that is not a command, or has another one's name."""
    found: dict[str, Command] = {}
    for file in (file for room in ROOMS for file in sorted((Path(__file__).parent / room).glob("*.py"))):
        if file.stem.startswith("_"):
            continue
        command = _read(file)
        if command.name in found:
            raise TypeError(f"two commands are called {command.name!r}: one in service/cli/{file.parent.name}/, and one elsewhere")
        found[command.name] = command
    return found


def _read(file: Path) -> Command:
    package = f"{__package__}.{file.parent.name}"
    module, room = importlib.import_module(f"{package}.{file.stem}"), importlib.import_module(package)
    if missing := [name for name in DECLARED if not hasattr(module, name)]:
        raise TypeError(f"service/cli/{file.parent.name}/{file.name} is not a command: it lacks {', '.join(missing)}")
    return Command(file.stem, room.__doc__ or "", module.HELP, module.EXAMPLE, module.arguments, module.call)
