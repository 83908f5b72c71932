"""`run`: the trials of a sweep's file."""

from __future__ import annotations

import argparse
from pathlib import Path

from service.cli import arguments as shared
from service.cli import training

HELP = "run a sweep, or continue it, then show its results"
EXAMPLE = "run quickstart --set updates=50000"


def arguments(parser: argparse.ArgumentParser) -> None:
    shared.sweep(parser)
    training.settings(parser)
    shared.study_storage(parser)
    shared.notify(parser)


def call(arguments: argparse.Namespace, storage: Path) -> int:
    from service.driving import session
    from service.planning.plan import make_plan

    return session.run(make_plan(arguments.sweep, training.run_settings(arguments), storage=storage), storage)
