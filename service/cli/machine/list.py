"""`list`: the sweeps that there are."""

from __future__ import annotations

import argparse
from pathlib import Path

from service.cli import arguments as shared
from service.terminal.waiting import waiting

HELP = "list the sweeps here and in MLflow, with their state and age"
EXAMPLE = "list"


def arguments(parser: argparse.ArgumentParser) -> None:
    shared.storage(parser)
    shared.as_json(parser)


def call(arguments: argparse.Namespace, storage: Path) -> int:
    from service.inspection import listing

    with waiting("reading MLflow"):
        found, trouble = listing.read(storage)
    shared.show(arguments, listing.describe(found, trouble), listing.to_json(found, trouble))
    return 0
