"""What a report reads of a sweep's trials, as one artifact of its parent run: a request per sweep in place of one per run and metric.

curves.json.gz    {"trials": {key: {"offset", "curves", "masks"}}}
    offset        how many bytes of the trial's spool the row is of
    curves        metric -> [[update, value], ...], ascending: scores, speeds, and densities of masks that change
    masks         network -> what a report shows of its mask; null where nothing was pruned yet

The shipper keeps it up, less often than the runs themselves. A row that is older than its run is not used: the report then reads the run.
"""

from __future__ import annotations

import gzip
import json
import time
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from service.spool import lines as spool
from service.spool.scores import RETURN, SCORE
from service.storage import paths
from service.tracking.cursor import Cursor
from service.tracking.runs import Tracking, finite

NAME = "curves.json.gz"
SPEED, STACK, DENSITY = "speed/updates_per_second", "speed/stack", "mask/density/"
OF_NETWORKS = ("density", "flops", "parameters", "live_inputs", "unseen_inputs")
PERIOD = 60.0  # seconds between two writings while trials go on
SHARE = 0.02  # of the time, at most, that goes into writing it meanwhile
Row = dict[str, Any]
MAKES_NO_SENSE: Row = {}  # of a trial whose spool holds what cannot be read


class CurveTable:
    """The table on one sweep's run, kept up by its shipper."""

    def __init__(self, storage: Path, tracking: Tracking) -> None:
        self._storage, self._tracking = storage, tracking
        self._rows: dict[str, Row] | None = None  # as MLflow holds them; None until that is known
        self._next = 0.0

    def forget(self) -> None:
        """Find out again what MLflow holds."""
        self._rows = None

    def ship(self, parent: str, cursors: Mapping[str, Cursor], *, busy: bool) -> None:
        """Bring the table up to the cursors of the sweep's trials; `busy`, while trials run, only now and then."""
        if busy and time.monotonic() < self._next:
            return
        begun, rows = time.monotonic(), self._rows if self._rows is not None else read(self._tracking, parent) or {}
        shipped = {key: cursor.offset for key, cursor in cursors.items() if cursor.offset}
        stale = [key for key, offset in shipped.items() if rows.get(key, {}).get("offset") != offset]
        if stale or rows.keys() - shipped.keys():
            renewed = {key: row_of(self._storage, key, shipped[key]) for key in stale}
            rows = {key: renewed.get(key) or rows[key] for key in shipped}
            self._tracking.log_bytes(parent, NAME, to_file(rows))
        self._rows = rows
        now = time.monotonic()
        self._next = now + max(PERIOD, (now - begun) / SHARE)


def row_of(storage: Path, key: str, offset: int) -> Row:
    """A trial's row, of the first `offset` bytes of its spool."""
    lines = [placed for placed in spool.read(paths.spool(storage, key)) if placed.end <= offset]
    curves: dict[str, dict[int, float]] = {}
    for name, value, _, update in sorted(finite(spool.points(lines)), key=lambda point: (point[3], point[2])):
        if name in (SCORE, RETURN, SPEED, STACK) or name.startswith(DENSITY):
            curves.setdefault(name, {})[update] = value
    pruned = any(placed.line["kind"] == "pruned" for placed in lines)
    masks = _masks(paths.masks_json(storage, key)) if pruned else None
    return {"offset": offset, "curves": {name: list(map(list, curve.items())) for name, curve in curves.items()}, "masks": masks}


def _masks(file: Path) -> dict[str, Any] | None:
    """What a report shows of a trial's masks; None where there is no such file, or a damaged one, which is `verify`'s to name."""
    try:
        return {network: _shown(about) for network, about in json.loads(file.read_bytes())["networks"].items()} or None
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def to_file(rows: Mapping[str, Row]) -> bytes:
    """The artifact; the same rows give the same bytes."""
    return gzip.compress(json.dumps({"trials": rows}, separators=(",", ":")).encode(), compresslevel=5, mtime=0)


def read(tracking: Tracking, parent: str) -> dict[str, Row] | None:
    """The rows on a sweep's run, by trial key; None where there is no table, as on runs of older code, or none that can be read."""
    content = tracking.read_bytes(parent, NAME)
    try:
        return None if content is None else dict(json.loads(gzip.decompress(content))["trials"])
    except (OSError, EOFError, ValueError, KeyError, TypeError):  # damaged: what is missing is shipped again, or read from the runs
        return None


def differences(tracking: Tracking, parent: str, storage: Path, keys: Collection[str]) -> list[str]:
    """What is not as the trials wrote it, a line each; a trial whose spool makes no sense is `verify`'s to name."""
    rows, found = read(tracking, parent), []
    wanted = ((key, row) for key in keys if (row := _as_written(storage, key)) is not MAKES_NO_SENSE)
    if rows is None:  # no table is shipped before there is something to say
        return [f"artifact {NAME} is missing or damaged"] if any(row for _, row in wanted) else []
    for key, row in wanted:
        there = rows.get(key)
        if there and row and row["masks"] is None:
            there = there | {"masks": None}  # nothing here to compare it with
        if json.dumps(there) != json.dumps(row):  # as text, so that NaN equals NaN
            found.append(f"artifact {NAME} has not what trial {key} wrote")
    return found + [f"artifact {NAME} has trial {key}, which is not in the sweep" for key in rows if key not in keys]


def _as_written(storage: Path, key: str) -> Row | None:
    """A trial's row, of all that it has committed; None where that is nothing, and MAKES_NO_SENSE."""
    try:
        lines = spool.committed(spool.read(paths.spool(storage, key)))
        return row_of(storage, key, lines[-1].end) if lines else None
    except Exception:  # whatever senseless lines lead to
        return MAKES_NO_SENSE


def _shown(about: Mapping[str, Any]) -> dict[str, Any]:
    """What a report shows of a network's mask."""
    kept = {name: about[name] for name in OF_NETWORKS if name in about}
    return kept | {"layers": [{"density": each["density"]} for each in about["layers"]]}
