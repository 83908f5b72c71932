"""Compares what the cursors of a sweep claim with what MLflow holds: its database may be another, restored from a backup, or cleaned.

It costs a request per thousand runs, or some statements of a database, and one per finished run where artifacts are compared, too.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from service.ledger.ledger import Ledger
from service.spool import lines as spool
from service.storage import paths
from service.tracking.connection import TrackingError
from service.tracking.cursor import Cursor
from service.tracking.reading import PARENT, RunRow, is_deleted
from service.tracking.runs import STATUS, Tracking
from service.tracking.trial_params import filters_of, source_of

# The files that become artifacts of a run, by the kind of the line that reports them.
FILES: dict[str, tuple[Callable[[Path, str], Path], ...]] = {
    "attempt": (paths.trial_json,),
    "pruned": (paths.masks, paths.masks_json),
    "finished": (paths.policy, paths.policy_json),
}
EVALUATIONS = "evaluations.json"


@dataclass
class Compared:
    """Cursors that claim no more than MLflow holds, and the runs that are above those that they name; `deleted`: by trial key, "" for the
    sweep's run, what a person has deleted there."""

    cursors: dict[str, Cursor] = field(default_factory=dict)
    above: dict[str, str] = field(default_factory=dict)
    deleted: dict[str, str] = field(default_factory=dict)
    parent: str = ""


def compare(
    tracking: Tracking, sweep: str, ledger: Ledger, storage: Path, known: Mapping[str, Cursor], *, artifacts: bool,
    hold: Callable[[str, RunRow], None],
) -> Compared:  # fmt: skip
    """Compare the cursors `known`, by trial key. Marks this storage's runs, and brings back deleted ones if `tracking` restores. `hold`
    takes what MLflow holds of each trial, of which no more is kept here.

    Raises TrackingError, and DeletedError for a deleted experiment.
    """
    told = Compared()
    for block, held in tracking.held(known):
        for key in block:
            cursor, entry = known[key], ledger.entries[key]
            run = next((run for run in held.get(key, ()) if run.info.run_id == cursor.run_id), None)
            if run is not None and is_deleted(run) and tracking.mine(run, cursor.run_id):
                if not tracking.restores:
                    told.deleted[key] = f"run {run.info.run_id} ({run.info.run_name})"
                    told.cursors[key], told.above[key] = cursor, run.data.tags.get(PARENT, "")
                    continue
                tracking.restore(run.info.run_id)
            try:
                told.cursors[key] = _checked(cursor, run, tracking, storage, key, artifacts)
                if run is not None and told.cursors[key].run_id:  # older code has set fewer tags
                    tags = filters_of(entry.trial) | source_of(ledger.asked_by(entry))
                    tracking.log(cursor.run_id, (), {name: value for name, value in tags.items() if run.data.tags.get(name) != value})
            except TrackingError:
                raise
            except Exception:  # of a spool that makes no sense, which hides no other trial
                told.cursors[key] = cursor
            if run is not None and told.cursors[key].run_id:
                told.above[key] = run.data.tags.get(PARENT, "")
                hold(key, RunRow(run.info.run_id, run.info.status, run.data.metrics, run.data.tags))
    _compare_parent(tracking, sweep, set(told.above.values()), told)
    if not told.deleted.get("") and told.above:
        _move(tracking, sweep, ledger, told)
    return told


def lacking(cursor: Cursor, run: Any) -> bool:
    """Whether the run lacks a metric that the cursor claims, or shows an older value of it."""
    metrics = run.data.metrics
    return any(name not in metrics or repr(float(metrics[name])) != value for name, value in (cursor.held or {}).items())


def files_of(storage: Path, key: str, kinds: set[str]) -> dict[str, Path]:
    """The local files that the run must have as artifacts, by name."""
    local = [path_of(storage, key) for kind, files in FILES.items() if kind in kinds for path_of in files]
    return {file.name: file for file in local if file.exists()}


def _checked(cursor: Cursor, run: Any, tracking: Tracking, storage: Path, key: str, artifacts: bool) -> Cursor:
    """The cursor, at the start where MLflow holds less than it claims or the run is another storage's."""
    if run is None or not tracking.mine(run, cursor.run_id):
        return Cursor(cursor.tracking)
    tracking.take_over(run)
    if lacking(cursor, run) or (artifacts and _lacks_files(cursor, run, tracking, storage, key)):
        return Cursor(cursor.tracking, cursor.run_id)
    state = cursor.state.partition(",")[0]
    if state and (run.data.tags.get("winnow.state") != state or run.info.status != STATUS.get(state)):
        return replace(cursor, state="")
    return cursor


def _lacks_files(cursor: Cursor, run: Any, tracking: Tracking, storage: Path, key: str) -> bool:
    kinds = {str(placed.line.get("kind")) for placed in spool.read(paths.spool(storage, key)) if placed.end <= cursor.offset}
    wanted = files_of(storage, key, kinds).keys() | ({EVALUATIONS} if "finished" in kinds else set())
    return bool(wanted - tracking.artifacts(run.info.run_id))


def _compare_parent(tracking: Tracking, sweep: str, below: set[str], told: Compared) -> None:
    """Take over the sweep's run of older code, restore a deleted one or name it."""
    parents = tracking.parents(sweep)
    mine = [run for run in parents if tracking.mine(run, run.info.run_id if run.info.run_id in below else "")]
    if mine and all(map(is_deleted, mine)):
        newest = max(mine, key=lambda run: run.info.start_time)
        if tracking.restores:
            tracking.restore(newest.info.run_id)
            return
        told.parent = newest.info.run_id
        told.deleted[""] = f"the sweep's run {newest.info.run_id}"
        return
    for run in mine:
        tracking.take_over(run)


def _move(tracking: Tracking, sweep: str, ledger: Ledger, told: Compared) -> None:
    """Put runs whose sweep's run is gone for good below the present one."""
    alive = tracking.sweep_ids()
    for key, above in told.above.items():
        if above not in alive and not ledger.entries[key].reused:
            tracking.move_below(told.cursors[key].run_id, tracking.parent_run(sweep))
