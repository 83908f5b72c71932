"""Commands that messages tell people to type: quoted for a shell, and with the storage that they are about."""

from __future__ import annotations

import shlex
from pathlib import Path

from service.storage import paths
from trainables import project


def command(verb: str, *words: str, storage: Path) -> str:
    """`winnow status quickstart --storage=/shared`; without `--storage` where that is the default here. A sweep that was given by path is
    named so."""
    given = [] if storage == paths.root() else [f"--storage={paths.shown(storage)}"]
    return shlex.join(["winnow", verb, *map(project.typed, words), *given])
