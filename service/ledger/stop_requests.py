"""Requests to stop single trials early: a file per trial, which its worker reads at its next checkpoint, on any host."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path

from service.storage import paths, shared_files


def request(storage: Path, sweep: str, reasons: Mapping[str, Mapping[str, str]]) -> None:
    """Request that trials stop; `reasons` holds reason and message by trial key. Idempotent: the first reason stays."""
    for key, reason in reasons.items():
        if not shared_files.exists(file := paths.trial_stop_request(storage, sweep, key)):
            shared_files.put(file, json.dumps(reason).encode())


def withdraw(storage: Path, sweep: str, keys: Iterable[str]) -> None:
    for key in keys:
        shared_files.remove(paths.trial_stop_request(storage, sweep, key))


def requested(storage: Path, sweep: str, keys: Iterable[str]) -> dict[str, dict[str, str]]:
    """Those of the trials that were requested to stop, with reason and message; on S3 one request where there are none."""
    known = set(shared_files.names(paths.trial_stop_requests(storage, sweep)))
    return {key: json.loads(shared_files.read(paths.trial_stop_request(storage, sweep, key))) for key in keys if key in known}
