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
    parser.add_argument("--restore", action="store_true", help="bring back what was deleted in MLflow: runs, or the experiment")
    parser.add_argument("--again", action="store_true", help="ship everything once more; what MLflow already holds does not change")
    shared.as_json(parser)


def call(arguments: argparse.Namespace, storage: Path) -> int:
    """1 where something is left."""
    from service.ledger import lease
    from service.ledger.others import ledger_of
    from service.results.summary import Summary
    from service.tracking.connection import DeletedError
    from service.tracking.runs import Tracking
    from service.tracking.shipping.shipper import PartlyShippedError, Shipper

    name, ledger, trouble = arguments.sweep, ledger_of(arguments.sweep, storage), list[str]()
    tracking = Tracking(storage, restore=arguments.restore)
    shipper = Shipper(storage, name, ledger, tracking, again=arguments.again, artifacts=True, summary=Summary(ledger, tracking))
    with waiting("shipping to MLflow"):
        try:
            shipper.ship()
        except DeletedError as error:
            raise DeletedError(shipper.remedy(str(error))) from None
        except PartlyShippedError as error:
            trouble = [f"not shipped: {error}"]
        left = trouble + shipper.left_alone()
        if not lease.alive(storage, name):
            shipper.close(("done", "stopped", "diverged") if ledger.adaptive else ("done",))
    told = "; ".join(left) or "MLflow holds all that is committed"
    shared.show(arguments, f"{shipper.points} points shipped; {told}", {"points": shipper.points, "left": left})
    return 1 if left else 0
