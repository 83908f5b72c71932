"""`verify`: MLflow against what the trials wrote."""

from __future__ import annotations

import argparse
from pathlib import Path

from service.cli import arguments as shared
from service.terminal.waiting import waiting

HELP = "prove that MLflow holds exactly what the trials wrote"
EXAMPLE = "verify quickstart"


def arguments(parser: argparse.ArgumentParser) -> None:
    shared.sweep(parser)
    shared.as_json(parser)


def call(arguments: argparse.Namespace, storage: Path) -> int:
    """1 where there is a difference."""
    from service.inspection.status import ledger_of
    from service.tracking.verify import describe, differences

    ledger = ledger_of(arguments.sweep, storage)
    with waiting("comparing with MLflow"):
        found = differences(arguments.sweep, ledger, storage)
    shared.show(arguments, describe(ledger, found), {"trials": len(ledger.entries), "differences": found})
    return 1 if found else 0
