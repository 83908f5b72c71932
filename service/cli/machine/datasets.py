"""`datasets`: the commands of `python -m trainables.datasets`."""

from __future__ import annotations

import argparse
from pathlib import Path

from trainables.datasets.__main__ import add_commands

HELP = "list, show, collect, import or check datasets"
EXAMPLE = "datasets collect winnow/hopper/medium-v0"


def arguments(parser: argparse.ArgumentParser) -> None:
    add_commands(parser)


def call(arguments: argparse.Namespace, storage: Path) -> int:
    return int(arguments.act(arguments) or 0)
