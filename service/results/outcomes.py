"""How a trial ended, in the same words wherever it is shown: its last score, or why there is none."""

from __future__ import annotations

import math
from collections.abc import Iterable

from service.ledger.ledger import LIMIT
from service.spool.scores import RETURN, SCORE
from service.tracking.reading import RunRow

Outcome = float | str  # the last score, or in words why there is none
DONE, MISSING = "done", "missing"
MEASURES = {SCORE: "normalized score", RETURN: "return"}  # metric -> what people call it
WORDS = {"RUNNING": "not finished", "SCHEDULED": "not finished", "KILLED": "interrupted", "FINISHED": "no number"}  # of MLflow's status


def metric_of(rows: Iterable[RunRow]) -> str:
    """The metric that comparable runs are scored by: the normalized score, or the return where none of them has a score."""
    seen = [row.metrics for row in rows]
    return RETURN if any(RETURN in metrics for metrics in seen) and not any(SCORE in metrics for metrics in seen) else SCORE


def outcome(row: RunRow | None, metric: str) -> Outcome:
    """The last score, or `missing`, `not finished`, `interrupted`, `limit reached`, `stopped at N`, `failed: reason` or `no number`."""
    if row is None:
        return MISSING
    if row.tags.get("winnow.state") == "stopped":
        return f"stopped at {int(row.tags['winnow.stopped_at']):,}"
    if row.status == "FAILED":
        return f"failed: {row.tags.get('winnow.reason') or 'unknown reason'}"
    score = row.metrics.get(metric, math.nan)
    if row.status == "FINISHED" and not math.isnan(score):
        return score
    if row.status == "KILLED" and row.tags.get("winnow.reason") == LIMIT:
        return "limit reached"
    return WORDS.get(row.status, MISSING)
