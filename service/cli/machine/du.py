"""`du`: what takes up space in a storage."""

from __future__ import annotations

import argparse
from pathlib import Path

from service.cli import arguments as shared
from service.terminal.waiting import waiting

HELP = "show storage used, by sweep and kind"
EXAMPLE = "du"


def arguments(parser: argparse.ArgumentParser) -> None:
    shared.storage(parser)
    shared.as_json(parser)


def call(arguments: argparse.Namespace, storage: Path) -> int:
    from service.retention import usage

    with waiting("measuring"):
        found = usage.read(storage)
    shared.show(arguments, usage.describe(found), found.to_json())
    return 0
