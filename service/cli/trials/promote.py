"""`promote`: a policy in MLflow's registry."""

from __future__ import annotations

import argparse
from dataclasses import asdict
from pathlib import Path

from service.cli import arguments as shared

HELP = "register a trained policy as a version of a model in MLflow"
EXAMPLE = "promote 3f2a --name cheetah --alias champion"


def arguments(parser: argparse.ArgumentParser) -> None:
    shared.done_trial(parser)
    help = "the registered model (default: algorithm and data, e.g. td3_bc-halfcheetah-medium)"
    parser.add_argument("--name", metavar="MODEL", help=help)
    parser.add_argument("--alias", default="newest", help="alias for this version; it moves here from any other version (default newest)")
    shared.as_json(parser)


def call(arguments: argparse.Namespace, storage: Path) -> int:
    from service.delivery.promote import promote

    version, uri = promote(arguments.trial, storage, name=arguments.name, alias=arguments.alias, sweep=arguments.sweep)
    shared.show(arguments, version.describe(uri), asdict(version) | {"uri": f"models:/{version.model}/{version.number}"})
    return 0
