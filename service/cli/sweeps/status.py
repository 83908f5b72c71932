"""`status`: how far a sweep is."""

from __future__ import annotations

import argparse
from pathlib import Path

from service.cli import arguments as shared

HELP = "show the state of a sweep's trials"
EXAMPLE = "status quickstart --watch"


def arguments(parser: argparse.ArgumentParser) -> None:
    shared.sweep(parser)
    shared.as_json(parser)
    parser.add_argument("--watch", action="store_true", help="refresh until nothing is left to do")


def call(arguments: argparse.Namespace, storage: Path) -> int:
    from service.inspection import status

    if arguments.watch:
        status.watch(arguments.sweep, storage)
    else:
        found = status.read(arguments.sweep, storage, whole=arguments.json)
        shared.show(arguments, status.describe(found), found.to_json() if arguments.json else {})
    return 0
