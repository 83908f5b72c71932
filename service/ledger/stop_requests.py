"""Members of a stack that are to stop early: a request is a file, which their worker finds at its next checkpoint, on whatever host."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path

from service.storage import paths
from trainables.storage.files import write


def request(storage: Path, sweep: str, why: Mapping[str, Mapping[str, str]]) -> None:
    """Ask that trials stop; `why` holds reason and message by trial key. Asked twice is asked once, for the first reason."""
    for key, about in why.items():
        if not (file := paths.stopped(storage, sweep, key)).exists():
            write(file, json.dumps(about).encode())


def requested(storage: Path, sweep: str, keys: Iterable[str]) -> dict[str, dict[str, str]]:
    """Those of the trials that are asked to stop, with reason and message."""
    files = {key: paths.stopped(storage, sweep, key) for key in keys}
    return {key: json.loads(file.read_bytes()) for key, file in files.items() if file.exists()}
