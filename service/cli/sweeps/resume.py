"""`resume`: everything that the runs of a sweep have planned and not done."""

from __future__ import annotations

import argparse
from pathlib import Path

from service.cli import arguments as shared
from service.cli import training

HELP = "finish everything that a sweep's runs have planned, failed trials included, with the options of its newest run"
EXAMPLE = "resume quickstart"


def arguments(parser: argparse.ArgumentParser) -> None:
    shared.sweep(parser)
    training.options(parser)
    training.origin(parser)
    shared.study_storage(parser)
    shared.notify(parser)


def call(arguments: argparse.Namespace, storage: Path) -> int:
    from service.driving import session
    from service.planning.plan import resume_plan

    changes = {name: getattr(arguments, name) for name in ("study_storage", "new_data", "same_code", "notify")}
    plan = resume_plan(arguments.sweep, storage, training.typed_options(arguments), **changes)
    return session.run(plan, storage)
