"""Requests to stop single trials early: a file per trial, which its worker reads at its next checkpoint, on any host."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path

from service.storage import paths
from trainables.storage.files import write


def request(storage: Path, sweep: str, reasons: Mapping[str, Mapping[str, str]]) -> None:
    """Request that trials stop; `reasons` holds reason and message by trial key. Idempotent: the first reason stays."""
    for key, reason in reasons.items():
        if not (file := paths.trial_stop_request(storage, sweep, key)).exists():
            write(file, json.dumps(reason).encode())


def requested(storage: Path, sweep: str, keys: Iterable[str]) -> dict[str, dict[str, str]]:
    """Those of the trials that were requested to stop, with reason and message."""
    files = {key: paths.trial_stop_request(storage, sweep, key) for key in keys}
    return {key: json.loads(file.read_bytes()) for key, file in files.items() if file.exists()}
