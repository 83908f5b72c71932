"""The plan of a sweep as an artifact of its parent run, so that a report on any host knows which trials should exist.

planned.json.gz   {"trials": {key: the fields of the trial that differ from their default}}
planned.json      the same, as older code wrote small ones
"""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterable, Mapping
from dataclasses import MISSING, fields
from typing import Any

from service.tracking.runs import Tracking
from trainables.errors import UserError
from trainables.trial import MAPPINGS, Trial

NAMES = ("planned.json.gz", "planned.json")  # in the order in which they are looked for


def to_file(trials: Iterable[Trial]) -> tuple[str, bytes]:
    """Name and content of the artifact; deterministic."""
    content = json.dumps({"trials": {trial.key: _compact(trial) for trial in trials}}, separators=(",", ":")).encode()
    return NAMES[0], gzip.compress(content, mtime=0)


def from_file(name: str, content: bytes) -> tuple[dict[str, Trial], list[str]]:
    """The trials by key, and one line for each trial that this code cannot construct, e.g. for want of its pruner."""
    value: Mapping[str, Any] = json.loads(gzip.decompress(content) if name.endswith(".gz") else content)["trials"]
    trials, unknown = {}, []
    for key, settings in value.items():
        try:
            trials[key] = Trial.from_json(settings)
        except (UserError, TypeError) as error:
            unknown.append(f"{key}: {error}")
    return trials, unknown


def read(tracking: Tracking, parent: str) -> tuple[dict[str, Trial], list[str]] | None:
    """The plan on the parent run of a sweep; None if it has none, as runs of older code."""
    for name in NAMES:
        if (content := tracking.read_bytes(parent, name)) is not None:
            return from_file(name, content)
    return None


def _compact(trial: Trial) -> dict[str, Any]:
    values = {field.name: getattr(trial, field.name) for field in fields(Trial)}
    kept = {
        field.name: values[field.name]
        for field in fields(Trial)
        if field.name not in MAPPINGS and (field.default is MISSING or values[field.name] != field.default)
    }
    return kept | {name: dict(values[name]) for name in MAPPINGS if values[name]}
