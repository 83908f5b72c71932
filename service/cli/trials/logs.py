"""`logs`: the history of one trial."""

from __future__ import annotations

import argparse
from pathlib import Path

from service.cli import arguments as shared
from service.cli import completion

HELP = "show one trial's history"
EXAMPLE = "logs 3f2a"


def arguments(parser: argparse.ArgumentParser) -> None:
    shared.completed(parser.add_argument("trial", help=shared.TRIAL), completion.trials)
    shared.storage(parser)
    shared.as_json(parser)


def call(arguments: argparse.Namespace, storage: Path) -> int:
    from service.inspection.logs import describe, story

    found = story(arguments.trial, storage)
    shared.show(arguments, describe(found), found)
    return 0
