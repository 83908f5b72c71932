"""`overlap`: masks, compared."""

from __future__ import annotations

import argparse
from pathlib import Path

from service.cli import arguments as shared

HELP = "compare masks between seeds and pruners"
EXAMPLE = "overlap quickstart"


def arguments(parser: argparse.ArgumentParser) -> None:
    shared.sweep(parser)
    shared.as_json(parser)


def call(arguments: argparse.Namespace, storage: Path) -> int:
    from service.ledger.others import ledger_of
    from service.results.mask_overlap import describe, overlaps, to_json  # imports torch

    found = overlaps(ledger_of(arguments.sweep, storage), storage)
    shared.show(arguments, describe(found), to_json(found))
    return 0
