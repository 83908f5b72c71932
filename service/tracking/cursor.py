"""`shipped.json`: how much of a trial's spool is in which run of which MLflow, and what that run must therefore hold."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from service.storage import paths

if TYPE_CHECKING:
    from service.tracking.runs import Point  # which commands that read a cursor alone do without


@dataclass(frozen=True)
class Cursor:
    """How far a trial's spool has been shipped to which run of which MLflow, and the state last set on that run.

    held    the last value of each metric by then, as text; None where older code wrote the cursor
    """

    tracking: str = ""
    run_id: str = ""
    offset: int = 0
    state: str = ""
    held: Mapping[str, str] | None = field(default_factory=dict)


def read(storage: Path, key: str) -> Cursor:
    """The trial's cursor; one at the start if there is none."""
    try:
        return Cursor(**({"held": None} | json.loads(paths.shipped(storage, key).read_bytes())))
    except (OSError, ValueError, TypeError):
        return Cursor()


def run_id_of(storage: Path, key: str) -> str:
    """The id of a trial's MLflow run; empty if nothing has been shipped yet."""
    return read(storage, key).run_id


def last_values(points: Iterable[Point]) -> dict[str, str]:
    """What MLflow shows of points: each metric's value at its newest update, as text, so that NaN equals NaN."""
    newest: dict[str, tuple[int, int, float]] = {}
    for name, value, time, update in points:
        newest[name] = max(newest.get(name, (update, time, value)), (update, time, value))
    return {name: repr(value) for name, (_, _, value) in newest.items()}
