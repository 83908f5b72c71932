"""What a sweep's MLflow run says about the sweep: its grid and how it stands. The shipper keeps it up, `verify` compares it.

A metric is logged when its value has changed, at the number of events in the sweep's journal as its step, so that its history has no more
points than its cell has seeds, and its newest point is what a later `sync` would log.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from typing import Any

from service.ledger.ledger import Ledger
from service.results import grid
from service.results.standing import NUMBERS, standing_of
from service.spool.scores import RETURN, SCORE
from service.tracking.reading import RunRow
from service.tracking.runs import TAG_LENGTH, Tracking
from service.tracking.trial_params import source_of

PERIOD = 20.0  # seconds between two writings while trials go on
SHARE = 0.02  # of the time, at most, that goes into them meanwhile
METRICS = (SCORE, RETURN)  # that the numbers are made of
TAGS = ("state", "stopped_at", "reason", "dataset_hash", "dataset_score")
BEST = "winnow.best"
METRIC, PARAM, TAG = "metric ", "param ", "tag "
OF_CELLS = tuple(f"{METRIC}{what}/" for what in NUMBERS)
OURS = (*OF_CELLS, f"{METRIC}trials/", f"{PARAM}grid.", f"{TAG}winnow.grid.", TAG + BEST)


class Summary:
    """The summary on one sweep's run, kept up by its shipper."""

    def __init__(self, ledger: Ledger, tracking: Tracking) -> None:
        self._ledger, self._tracking = ledger, tracking
        self._rows: dict[str, RunRow] = {}
        self._shown: dict[str, str] | None = None  # what MLflow shows of it; None until that is known
        self._next = 0.0

    def forget(self) -> None:
        """Find out again what MLflow holds."""
        self._rows.clear()
        self._shown = None

    def hold(self, key: str, row: RunRow) -> None:
        """Note what MLflow holds of a trial; tags that it does not mention stay as they are."""
        before = self._rows[key].tags if key in self._rows else {}
        tags = {name: value for tag in TAGS if (value := row.tags.get(name := f"winnow.{tag}")) is not None}
        metrics = {name: row.metrics[name] for name in METRICS if name in row.metrics}
        self._rows[key] = RunRow(row.run_id, row.status, metrics, {**before, **tags})

    def ship(self, parent: str, *, busy: bool) -> None:
        """Bring the sweep's run up to date; `busy`, while trials run, only now and then."""
        if busy and time.monotonic() < self._next:
            return
        begun = time.monotonic()
        if self._shown is None:
            self._shown = _shown_by(self._tracking.run(parent))
        shown, (params, tags, metrics) = self._shown, _wanted(self._ledger, self._rows)
        before = {name.removeprefix(METRIC): math.nan for name in shown if name.startswith(OF_CELLS)}
        metrics = {**before, **metrics}  # MLflow forgets no metric: a mean that is no more is nan
        step, now = self._ledger.length, int(1000 * time.time())
        self._tracking.log(
            parent,
            [(name, value, now, step) for name, value in metrics.items() if shown.get(METRIC + name) != repr(value)],
            {name: value for name, value in tags.items() if shown.get(TAG + name, "") != value},
            {name: value for name, value in params.items() if PARAM + name not in shown},
        )
        self._shown = shown | _as_text(metrics, params, tags)
        ended = time.monotonic()
        self._next = ended + max(PERIOD, (ended - begun) / SHARE)


def differences(run: Any, ledger: Ledger, rows: Mapping[str, RunRow]) -> list[str]:
    """What the sweep's run says otherwise than `rows`, its trials by what they wrote; a line each."""
    params, tags, metrics = _wanted(ledger, rows)
    wanted, shown = _as_text(metrics, params, tags), _shown_by(run)
    names = dict.fromkeys([*wanted, *(name for name in shown if name.startswith(OURS))])
    pairs = [(name, shown.get(name, ""), wanted.get(name, "nan" if name.startswith(OF_CELLS) else "")) for name in names]
    return [f"{name} is {there or 'missing'}, not {value or 'empty'}" for name, there, value in pairs if there != value]


def _wanted(ledger: Ledger, rows: Mapping[str, RunRow]) -> tuple[dict[str, str], dict[str, str], Mapping[str, float]]:
    """Params, tags and metrics."""
    standing = standing_of([entry.trial for entry in list(ledger.entries.values())], rows)
    tags = grid.tags_of(ledger) | {BEST: standing.best[:TAG_LENGTH]} | source_of(ledger.asked_by())
    return grid.params_of(ledger), tags, standing.metrics


def _shown_by(run: Any) -> dict[str, str]:
    return _as_text(run.data.metrics, run.data.params, run.data.tags)


def _as_text(metrics: Mapping[str, float], params: Mapping[str, str], tags: Mapping[str, str]) -> dict[str, str]:
    """All by kind and name; numbers as text, so that nan equals nan."""
    numbers = {METRIC + name: repr(float(value)) for name, value in metrics.items()}
    return numbers | {PARAM + name: value for name, value in params.items()} | {TAG + name: value for name, value in tags.items()}
