"""`verify`: MLflow against what the trials wrote."""

from __future__ import annotations

import argparse
from pathlib import Path

from service.cli import arguments as shared
from service.terminal.waiting import waiting

HELP = "check that MLflow holds exactly what the trials wrote, and (--data) that the data is what they saw"
EXAMPLE = "verify quickstart"


def arguments(parser: argparse.ArgumentParser) -> None:
    shared.sweep(parser)
    parser.add_argument("--data", action="store_true", help="also hash the prepared data again and compare it with what each trial saw")
    shared.imports(parser)
    shared.as_json(parser)


def call(arguments: argparse.Namespace, storage: Path) -> int:
    """1 where there is a difference."""
    from service.inspection import data
    from service.ledger.others import ledger_of
    from service.planning.run_settings import RunSettings
    from service.results import summary
    from service.tracking.verify import describe, differences
    from trainables.environments import name_modules

    ledger = ledger_of(arguments.sweep, storage)
    with waiting("comparing with MLflow"):
        found = differences(arguments.sweep, ledger, storage, summary.differences)
    text, value = describe(arguments.sweep, ledger, found, storage), {"trials": len(ledger.entries), "differences": found}
    if arguments.data:
        name_modules([*RunSettings.from_json(ledger.settings).options.imports, *getattr(arguments, "imports", ())])
        other = data.differences(ledger, storage)
        text, value = f"{text}\n{data.describe(other)}", value | {"data": other}
        found += other
    shared.show(arguments, text, value)
    return 1 if found else 0
