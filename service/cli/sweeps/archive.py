"""`archive`: the trials of sweeps in one file."""

from __future__ import annotations

import argparse
from pathlib import Path

from service.cli import arguments as shared

HELP = "write finished trials to one file, for another storage"
EXAMPLE = "archive quickstart --to quickstart.zip"


def arguments(parser: argparse.ArgumentParser) -> None:
    shared.sweeps(parser, "sweeps whose finished trials to archive")
    parser.add_argument("--to", type=Path, metavar="FILE.zip", required=True, help="the file to write; an older one is replaced")
    parser.add_argument("--unfinished", action="store_true", help="include unfinished trials that have a checkpoint, to continue elsewhere")
    shared.as_json(parser)


def call(arguments: argparse.Namespace, storage: Path) -> int:
    from service.delivery.archive import archive, version_notes
    from trainables import project

    file = project.expanded(arguments.to)
    archived = archive(arguments.sweeps, file, storage, arguments.unfinished)
    size, notes = file.stat().st_size, version_notes(arguments.sweeps, storage)
    others = f" and {archived.unfinished} unfinished" * arguments.unfinished
    text = "\n".join([f"{arguments.to}: {archived.finished} finished{others} trials, {size / 1e3:,.0f} kB", *notes])
    if archived.behind:
        text += f"\n{archived.behind} more have begun and stay behind: no checkpoint of theirs is whole and fits their log"
    counts = {"trials": archived.finished, "unfinished": archived.unfinished, "behind": archived.behind}
    shared.show(arguments, text, {"file": arguments.to, **counts, "bytes": size, "notes": notes})
    return 0
