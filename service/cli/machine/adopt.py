"""`adopt`: trials of another storage."""

from __future__ import annotations

import argparse
from pathlib import Path

from service.cli import arguments as shared
from trainables import project
from trainables.output import printable

HELP = "import the trials of an archive into this storage"
EXAMPLE = "adopt quickstart.zip"


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("file", type=Path, metavar="FILE.zip", help="a file that `winnow archive` wrote")
    shared.storage(parser)
    shared.as_json(parser)


def call(arguments: argparse.Namespace, storage: Path) -> int:
    from service.delivery.adopt import adopt, describe
    from service.delivery.archive import version_notes

    adopted = adopt(project.expanded(arguments.file), storage)
    notes = version_notes(adopted, storage)
    value = {
        name: {"adopted": len(each.imported), "unfinished": len(each.unfinished), "done": len(each.done), "begun": len(each.begun)}
        for name, each in adopted.items()
    }
    shared.show(
        arguments,
        "\n".join([describe(adopted, storage), *(printable(note, lines=False) for note in notes)]),
        {"sweeps": value, "notes": notes},
    )
    return 0
