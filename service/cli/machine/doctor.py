"""`doctor`: what is missing here."""

from __future__ import annotations

import argparse
from pathlib import Path

from service.cli import arguments as shared

HELP = "check this machine and say how to fix what is missing"
EXAMPLE = "doctor --storage s3://bucket/prefix"


def arguments(parser: argparse.ArgumentParser) -> None:
    shared.storage(parser)
    shared.as_json(parser)


def call(arguments: argparse.Namespace, storage: Path) -> int:
    from service.inspection.doctor import examine

    return examine(storage, json=arguments.json)
