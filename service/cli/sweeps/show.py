"""`show`: a sweep's grid as a picture."""

from __future__ import annotations

import argparse
from pathlib import Path

from service.cli import arguments as shared

HELP = "show a sweep's grid, with a sign for each trial: done, running, failed"
EXAMPLE = "show quickstart"


def arguments(parser: argparse.ArgumentParser) -> None:
    shared.sweep(parser)
    shared.as_json(parser)


def call(arguments: argparse.Namespace, storage: Path) -> int:
    from service.inspection import picture

    found, driven = picture.read(arguments.sweep, storage)
    shared.show(arguments, picture.describe(arguments.sweep, found, driven), picture.to_json(arguments.sweep, found, driven))
    return 0
