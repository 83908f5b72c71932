"""`sync`: what is committed, into MLflow."""

from __future__ import annotations

import argparse
from pathlib import Path

from service.cli import arguments as shared
from service.terminal.waiting import waiting

HELP = "bring MLflow up to date by hand"
EXAMPLE = "sync quickstart"


def arguments(parser: argparse.ArgumentParser) -> None:
    shared.sweep(parser)
    shared.as_json(parser)


def call(arguments: argparse.Namespace, storage: Path) -> int:
    from service.inspection.status import ledger_of
    from service.tracking.runs import Tracking
    from service.tracking.shipper import Shipper

    ledger = ledger_of(arguments.sweep, storage)
    with waiting("shipping to MLflow"):
        shipped = Shipper(storage, arguments.sweep, ledger, Tracking(storage)).ship()
    shared.show(arguments, f"{shipped} points shipped; MLflow holds all that is committed", {"points": shipped})
    return 0
