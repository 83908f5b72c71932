"""`resume`: everything that the runs of a sweep have planned and not done."""

from __future__ import annotations

import argparse
from pathlib import Path

from service.cli import arguments as shared
from service.cli import training

HELP = "finish all that a sweep's runs have planned, failed trials too, with the options of its newest run"
EXAMPLE = "resume quickstart"


def arguments(parser: argparse.ArgumentParser) -> None:
    shared.sweep(parser)
    training.options(parser)
    shared.study_storage(parser)


def call(arguments: argparse.Namespace, storage: Path) -> int:
    from service.driving import session
    from service.planning.plan import resume_plan

    plan = resume_plan(arguments.sweep, storage, training.typed_options(arguments), arguments.study_storage)
    return session.run(plan, storage)
