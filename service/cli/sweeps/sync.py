"""`sync`: what is committed, into MLflow."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from service.cli import arguments as shared
from service.terminal.waiting import waiting

if TYPE_CHECKING:
    from service.ledger.ledger import Ledger
    from service.tracking.runs import Tracking
    from service.tracking.shipping.shipper import Shipper

HELP = "bring MLflow up to date by hand"
EXAMPLE = "sync quickstart"


def arguments(parser: argparse.ArgumentParser) -> None:
    shared.sweep(parser)
    parser.add_argument("--restore", action="store_true", help="bring back what was deleted in MLflow: runs, or the experiment")
    parser.add_argument("--again", action="store_true", help="ship everything once more; what MLflow already holds does not change")
    shared.as_json(parser)


def call(arguments: argparse.Namespace, storage: Path) -> int:
    """1 where something is left."""
    from service.ledger import journal, lease
    from service.ledger.others import ledger_of
    from service.tracking.runs import Tracking

    name, points, again, tracking = arguments.sweep, 0, arguments.again, None
    while True:
        version, ledger = journal.versions(storage).get(name), ledger_of(name, storage)
        tracking = tracking or Tracking(storage, restore=arguments.restore)
        shipper = _shipper(name, storage, ledger, tracking, again=again)
        with waiting("shipping to MLflow"):
            left, again = _ship(shipper), False
            points += shipper.points
            if lease.alive(storage, name):
                break  # its driver ships on
            if journal.versions(storage).get(name) == version:
                shipper.close(("done", "stopped", "diverged") if ledger.adaptive else ("done",))
                break  # else a driver has ended meanwhile, and the sweep's run is to say how
    told = "; ".join(left) or "MLflow holds all that is committed"
    shared.show(arguments, f"{points} points shipped; {told}", {"points": points, "left": left})
    return 1 if left else 0


def _shipper(name: str, storage: Path, ledger: Ledger, tracking: Tracking, *, again: bool) -> Shipper:
    from service.ledger.ledger import TERMINAL
    from service.ledger.manifest import Followed
    from service.results.summary import Summary
    from service.tracking.shipping.shipper import Shipper

    beside = Followed(storage, name)  # what its driver, if there is one, has written since

    def has_ended(key: str) -> bool:
        return beside.read().state(key) in TERMINAL

    summary = Summary(ledger, tracking)
    return Shipper(storage, name, ledger, tracking, again=again, artifacts=True, summary=summary, has_ended=has_ended)


def _ship(shipper: Shipper) -> list[str]:
    """Ship everything; returns a line for what is left."""
    from service.tracking.connection import DeletedError
    from service.tracking.shipping.shipper import PartlyShippedError

    try:
        shipper.ship()
    except DeletedError as error:
        raise DeletedError(shipper.remedy(str(error))) from None
    except PartlyShippedError as error:
        return [f"not shipped: {error}", *shipper.left_alone()]
    return shipper.left_alone()
