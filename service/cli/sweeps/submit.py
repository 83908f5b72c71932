"""`submit`: a run as a job of a Ray cluster."""

from __future__ import annotations

import argparse
from pathlib import Path

from service.cli import arguments as shared
from service.cli import training
from trainables.errors import UserError

HELP = "run a sweep as a job of a Ray cluster"
EXAMPLE = "submit quickstart --address http://127.0.0.1:8265 --follow"


def arguments(parser: argparse.ArgumentParser) -> None:
    shared.sweep(parser)
    training.settings(parser)
    shared.study_storage(parser)
    shared.notify(parser)
    parser.add_argument("--address", help="the cluster's job server (default $RAY_API_SERVER_ADDRESS, else http://127.0.0.1:8265)")
    parser.add_argument("--follow", action="store_true", help="show the job's output until it ends, and return 0 only if it succeeds")
    shared.as_json(parser)


def call(arguments: argparse.Namespace, storage: Path) -> int:
    from service.cluster.job import submit

    if arguments.json and arguments.follow:
        raise UserError("--json goes without --follow, which shows what the job prints")
    settings = training.run_settings(arguments)
    where = {"address": arguments.address, "follow": arguments.follow, "json": arguments.json}
    return submit(arguments.sweep, settings, arguments.storage, **where)
