"""What may be typed after `winnow`, put together from the commands' files."""

from __future__ import annotations

import argparse
import shutil
from collections.abc import Callable
from itertools import groupby

from service.cli.commands import Command, commands
from trainables import command_line
from trainables.version import version

PROGRAM = "winnow"
EXAMPLES = f"""examples:
  {PROGRAM} plan quickstart
  {PROGRAM} run quickstart --set seeds=0,1,2 --set updates=50000
  {PROGRAM} submit mujoco_sparsity --follow
  {PROGRAM} export td3_bc/halfcheetah-medium/snip@95/s0 --to cheetah
"""


NARROWEST = 40  # columns, for what is wrapped


class Parser(command_line.Parser):
    """Its help ends with `details(width)`, which is made only when it is asked for, and with `example`."""

    details: Callable[[int], str] | None = None
    example = ""

    def format_help(self) -> str:
        parts = [self.epilog, self.details and self.details(max(NARROWEST, shutil.get_terminal_size().columns - 2)), self.example]
        formatter = self.formatter_class(prog=self.prog)
        for part in filter(None, parts):
            formatter.add_text(part)
        epilog, self.epilog = self.epilog, formatter.format_help()
        try:
            return super().format_help()
        finally:
            self.epilog = epilog


def parser() -> argparse.ArgumentParser:
    """The parsed arguments hold `call`, the function of the command."""
    raw, known = argparse.RawDescriptionHelpFormatter, commands()
    top = Parser(prog=PROGRAM, description=_listed(list(known.values())), epilog=EXAMPLES, formatter_class=raw)
    top.add_argument("--version", action="version", version=f"winnow {version()}")
    below = top.add_subparsers(required=True, metavar="COMMAND", dest="command", title="each command has its own --help")
    for name, command in known.items():
        sub = below.add_parser(name, description=command.help, formatter_class=raw)
        command.arguments(sub)
        sub.example = f"example:\n  {PROGRAM} {command.example}"
        sub.set_defaults(call=command.call)
    return top


def _listed(known: list[Command]) -> str:
    """A line for each command, under the heading of its room."""
    lines = []
    for room, group in groupby(known, lambda command: command.room):
        lines += ["", f"{room.rstrip('.')}:", *(f"  {command.name:<10}{command.help}" for command in group)]
    return "\n".join(lines[1:])
