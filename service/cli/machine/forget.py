"""`forget`: sweeps and trials that nobody needs any more."""

from __future__ import annotations

import argparse
from pathlib import Path

from service.cli import arguments as shared
from service.cli import completion
from service.terminal.waiting import waiting

HELP = "permanently remove sweeps, or failed trials, with their files and MLflow runs"
EXAMPLE = "forget quickstart --yes"


def arguments(parser: argparse.ArgumentParser) -> None:
    help = "sweeps to remove, with all their trials that no other sweep uses"
    shared.completed(parser.add_argument("sweeps", nargs="*", metavar="SWEEP", help=help), completion.sweeps)
    older = "only sweeps unchanged for this long, e.g. 30d or 12h; with no SWEEP given, any sweep"
    parser.add_argument("--older-than", metavar="AGE", help=older)
    parser.add_argument("--failed", action="store_true", help="remove only failed and diverged trials; keep the sweeps")
    parser.add_argument("--yes", action="store_true", help="remove; without it, only list what would be removed")
    shared.storage(parser)
    shared.as_json(parser)


def call(arguments: argparse.Namespace, storage: Path) -> int:
    """1 where something stays because a driver runs its sweep."""
    from service.retention.forget import age, choose, describe, forget
    from trainables.errors import UserError

    older = age(arguments.older_than) if arguments.older_than is not None else None
    if not arguments.sweeps and older is None and not arguments.failed:
        raise UserError("forget needs a SWEEP, --older-than AGE or --failed")
    with waiting("looking at the storage"):
        found, tracking = choose(storage, arguments.sweeps, older, arguments.failed)
    if arguments.yes:
        with waiting("removing it"):
            for each in found:
                if not each.running:
                    forget(each, tracking, storage)
    text = describe(found, tracking, storage, done=arguments.yes)
    if any(not each.running for each in found) and not arguments.yes:
        text += "\nnothing has been removed yet; add --yes to remove it"
    removed = arguments.yes and not all(each.running for each in found)
    shared.show(arguments, text, {"removed": removed, "forgotten": [each.to_json() for each in found]})
    return 1 if arguments.yes and any(each.running for each in found) else 0
