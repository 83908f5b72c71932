"""`archive`: finished trials in one file."""

from __future__ import annotations

import argparse
from pathlib import Path

from service.cli import arguments as shared

HELP = "write finished trials to one file, for another storage"
EXAMPLE = "archive quickstart --to quickstart.zip"


def arguments(parser: argparse.ArgumentParser) -> None:
    shared.sweeps(parser, "the sweeps whose finished trials to archive")
    parser.add_argument("--to", type=Path, metavar="FILE.zip", required=True, help="the file to write; an older one is replaced")
    shared.as_json(parser)


def call(arguments: argparse.Namespace, storage: Path) -> int:
    from service.delivery.archive import archive, version_notes
    from trainables import project

    file = project.expanded(arguments.to)
    count = archive(arguments.sweeps, file, storage)
    size, notes = file.stat().st_size, version_notes(arguments.sweeps, storage)
    text = "\n".join([f"{arguments.to}: {count} finished trials, {size / 1e3:,.0f} kB", *notes])
    shared.show(arguments, text, {"file": arguments.to, "trials": count, "bytes": size, "notes": notes})
    return 0
