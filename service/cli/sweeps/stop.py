"""`stop`: the driver of a sweep leaves."""

from __future__ import annotations

import argparse
import sys
from dataclasses import asdict
from pathlib import Path

from service.cli import arguments as shared

HELP = "ask a sweep's driver to exit, whatever host it runs on"
EXAMPLE = "stop quickstart"


def arguments(parser: argparse.ArgumentParser) -> None:
    shared.sweep(parser)
    shared.as_json(parser)


def call(arguments: argparse.Namespace, storage: Path) -> int:
    """0 if no driver is left, else 1."""
    from service.inspection.stop import stop

    found = stop(arguments.sweep, storage)
    if found.left or arguments.json:
        shared.show(arguments, str(found), asdict(found))
    else:
        print(found, file=sys.stderr)
    return 0 if found.left else 1
