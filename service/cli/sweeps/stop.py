"""`stop`: the driver of a sweep leaves."""

from __future__ import annotations

import argparse
from pathlib import Path

from service.cli import arguments as shared

HELP = "ask the driver of a sweep to leave, on whatever host it is"
EXAMPLE = "stop quickstart"


def arguments(parser: argparse.ArgumentParser) -> None:
    shared.sweep(parser)


def call(arguments: argparse.Namespace, storage: Path) -> int:
    from service.inspection.stop import stop

    return stop(arguments.sweep, storage)
