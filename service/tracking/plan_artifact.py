"""The plan of a sweep as an artifact of its parent run: a report on another host then knows what should be there.

planned.json      {"trials": {key: the fields of the trial that are not at their default}}
planned.json.gz   the same, where it is large
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

NAMES = ("planned.json.gz", "planned.json")  # a plan only grows: the large one is the newer
LARGE = 100_000  # bytes


def to_file(trials: Iterable[Trial]) -> tuple[str, bytes]:
    """Name and content; the same trials give the same bytes."""
    content = json.dumps({"trials": {trial.key: _compact(trial) for trial in trials}}, separators=(",", ":")).encode()
    return (NAMES[0], gzip.compress(content, mtime=0)) if len(content) > LARGE else (NAMES[1], content)


def from_file(name: str, content: bytes) -> tuple[dict[str, Trial], list[str]]:
    """The trials by key, and in a line each why others are not among them: this code does not know their pruner, say."""
    value: Mapping[str, Any] = json.loads(gzip.decompress(content) if name.endswith(".gz") else content)["trials"]
    found, unknown = {}, []
    for key, given in value.items():
        try:
            found[key] = Trial.from_json(given)
        except (UserError, TypeError) as error:
            unknown.append(f"{key}: {error}")
    return found, unknown


def read(tracking: Tracking, parent: str) -> tuple[dict[str, Trial], list[str]] | None:
    """The plan that the parent run of a sweep holds; None where it holds none, as those of older code."""
    for name in NAMES:
        if (content := tracking.read_bytes(parent, name)) is not None:
            return from_file(name, content)
    return None


def _compact(trial: Trial) -> dict[str, Any]:
    given = {field.name: getattr(trial, field.name) for field in fields(Trial)}
    kept = {f.name: given[f.name] for f in fields(Trial) if f.name not in MAPPINGS and (f.default is MISSING or given[f.name] != f.default)}
    return kept | {name: dict(given[name]) for name in MAPPINGS if given[name]}
