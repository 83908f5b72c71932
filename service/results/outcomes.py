"""How the run of a trial ended, in the same words wherever it is shown: its last score, or why there is none."""

from __future__ import annotations

import math
from collections.abc import Iterable

from service.spool.scores import RETURN, SCORE
from service.tracking.runs import RunRow

DONE, MISSING = "done", "missing"
WORDS = {"RUNNING": "not finished", "SCHEDULED": "not finished", "KILLED": "interrupted", "FINISHED": "no number"}  # of MLflow's status


def metric_of(rows: Iterable[RunRow]) -> str:
    """What runs that may be compared are scored by: the normalized score, or the return where none of them has a score."""
    seen = [row.metrics for row in rows]
    return RETURN if any(RETURN in metrics for metrics in seen) and not any(SCORE in metrics for metrics in seen) else SCORE


def has(row: RunRow, metric: str) -> bool:
    """Whether a run ended well, with this metric, which is a number."""
    ended = row.status == "FINISHED" and row.tags.get("winnow.state") != "stopped"
    return ended and not math.isnan(row.metrics.get(metric, math.nan))


def absence(row: RunRow | None) -> str:
    """Why a seed has no last score: `missing`, `not finished`, `interrupted`, `stopped at N`, `failed: reason` or `no number`."""
    if row is None:
        return MISSING
    if row.tags.get("winnow.state") == "stopped":
        return f"stopped at {int(row.tags['winnow.stopped_at']):,}"
    if row.status == "FAILED":
        return f"failed: {row.tags.get('winnow.reason') or 'unknown reason'}"
    return WORDS.get(row.status, MISSING)


def outcome(row: RunRow | None, metric: str) -> str:
    """`done`, or why there is no last score."""
    return DONE if row is not None and has(row, metric) else absence(row)
