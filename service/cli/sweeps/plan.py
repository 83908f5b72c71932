"""`plan`: what a run would do."""

from __future__ import annotations

import argparse
from pathlib import Path

from service.cli import arguments as shared
from service.cli import training

HELP = "what a run would do; starts nothing"
EXAMPLE = "plan quickstart --set seeds=0,1,2"


def arguments(parser: argparse.ArgumentParser) -> None:
    shared.sweep(parser)
    training.settings(parser)
    shared.as_json(parser)


def call(arguments: argparse.Namespace, storage: Path) -> int:
    from service.planning.description import describe, to_json
    from service.planning.plan import make_plan

    plan = make_plan(arguments.sweep, training.run_settings(arguments), storage=storage)
    shared.show(arguments, describe(plan), to_json(plan))
    return 0
