"""`forget`: sweeps and trials that nobody needs any more."""

from __future__ import annotations

import argparse
from pathlib import Path

from service.cli import arguments as shared
from service.cli import completion
from service.terminal.waiting import waiting

HELP = "remove sweeps, or trials that failed, with their files and MLflow runs, for good"
EXAMPLE = "forget quickstart --yes"


def arguments(parser: argparse.ArgumentParser) -> None:
    help = "sweeps, with all their trials that no other sweep uses"
    shared.completed(parser.add_argument("sweeps", nargs="*", metavar="SWEEP", help=help), completion.sweeps)
    parser.add_argument(
        "--older-than", metavar="AGE", help="those alone that have not changed for so long, e.g. 30d or 12h; all sweeps by default"
    )
    parser.add_argument("--failed", action="store_true", help="their failed and diverged trials alone; the sweeps stay")
    parser.add_argument("--yes", action="store_true", help="do it; without, it is only said what would be removed")
    shared.storage(parser)
    shared.as_json(parser)


def call(arguments: argparse.Namespace, storage: Path) -> int:
    """1 where something stays because a driver runs its sweep."""
    from service.retention.forget import age, choose, describe, forget
    from trainables.errors import UserError

    older = age(arguments.older_than) if arguments.older_than is not None else None
    if not arguments.sweeps and older is None and not arguments.failed:
        raise UserError("forget needs a SWEEP, --older-than AGE or --failed")
    with waiting("looking at what there is"):
        found, tracking = choose(storage, arguments.sweeps, older, arguments.failed)
    if arguments.yes:
        with waiting("removing it"):
            for each in found:
                if not each.running:
                    forget(each, tracking, storage)
    text = describe(found, tracking, storage, done=arguments.yes)
    if any(not each.running for each in found) and not arguments.yes:
        text += "\nnothing is removed yet; with --yes it is"
    removed = arguments.yes and not all(each.running for each in found)
    shared.show(arguments, text, {"removed": removed, "forgotten": [each.to_json() for each in found]})
    return 1 if arguments.yes and any(each.running for each in found) else 0
