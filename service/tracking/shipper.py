"""Ships spools to MLflow, outside the trainers. If MLflow is down it retries later; training is not affected.

`shipped.json` records how much of a trial's spool is in which run of which MLflow. It is written after each batch; a crash in between
ships that batch again, which is idempotent.
"""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from service.ledger.ledger import TERMINAL, Entry, Event, Ledger
from service.spool import lines as spool
from service.spool.lines import Placed
from service.storage import paths, trial_objects
from service.tracking import notes, plan_artifact
from service.tracking.connection import TrackingError, redacted, refused
from service.tracking.runs import METRICS_PER_CALL, Point, Tracking, finite
from trainables.errors import UserError
from trainables.storage.files import write

PERIOD = 2.0  # seconds between two passes
LONGEST_WAIT = 60.0  # seconds between two passes while MLflow is down
# The files that become artifacts of a run, by the kind of the line that reports them.
FILES: dict[str, tuple[Callable[[Path, str], Path], ...]] = {
    "attempt": (paths.trial_json,),
    "pruned": (paths.masks, paths.masks_json),
    "finished": (paths.policy, paths.policy_json),
}
TAGS = ("dataset_hash", "dataset_score", "reference", "revision", "host")


@dataclass(frozen=True)
class Cursor:
    """How far a trial's spool has been shipped to which run of which MLflow, and the state last set on that run."""

    tracking: str = ""
    run_id: str = ""
    offset: int = 0
    state: str = ""


class Shipper:
    """Ships the trials of a sweep's ledger; `check` raises after another driver has taken over."""

    def __init__(self, storage: Path, sweep: str, ledger: Ledger, tracking: Tracking, check: Callable[[], None] = lambda: None) -> None:
        self._storage, self._sweep, self._ledger, self._tracking = storage, sweep, ledger, tracking
        self._check = check
        self._cursors: dict[str, Cursor] = {}
        self._settled: dict[str, Event] = {}  # the event that ended a trial whose spool has been shipped since
        # A hash, as the address may hold a password.
        self._mlflow = hashlib.sha256(f"{tracking.uri} {tracking.experiment}".encode()).hexdigest()[:16]
        self._described = False
        self.stored = 0  # cursors written, which shows progress
        self._planned = 0  # number of trials in the plan on the sweep's run

    def ship(self) -> int:
        """One pass over all trials: ship committed lines, then states. Returns the number of points.

        Raises UserError, in one line: at once if MLflow is down, else after the other trials if one cannot be shipped.
        """
        shipped, trouble = 0, ""
        trial_objects.refresh(self._storage, self._ledger.keys_in("leased"))
        for key, entry in list(self._ledger.entries.items()):
            try:
                shipped += self._ship_trial(key, entry) if entry.events else 0
            except Exception as error:
                # Damaged files and what MLflow refuses concern one trial; any other error would hit the rest, too.
                trouble = trouble or redacted(error)
                if not isinstance(error, UserError) or (isinstance(error, TrackingError) and not refused(error)):
                    break
        if trouble:
            raise UserError(trouble)
        self._ship_plan()
        return shipped

    def _ship_trial(self, key: str, entry: Entry) -> int:
        """Ship new lines of a trial; after its end its spool is read one last time."""
        event = entry.events[-1]  # read before the spool, as the driver may record the end meanwhile
        if self._settled.get(key) is event:
            return 0
        shipped = self._ship_new(key, entry, event)
        if event.state in TERMINAL:
            self._settled[key] = event
        return shipped

    def _ship_new(self, key: str, entry: Entry, event: Event) -> int:
        cursor = self._cursors.get(key) or self._cursors.setdefault(key, self._stored(key))
        lines = spool.committed(spool.read(paths.spool(self._storage, key), cursor.offset))
        reused = bool(event.detail.get("sweep"))
        state = f"{event.state}, reused by {self._sweep}" if reused else event.state
        if not lines and (state == cursor.state or (state == "planned" and not cursor.run_id)):
            return 0
        self._check()
        parent = self._parent()
        run_id = self._tracking.trial_run(entry.trial, parent)
        if run_id != cursor.run_id:  # another MLflow, or a deleted run: ship everything again
            cursor = Cursor(self._mlflow, run_id)
            lines = spool.committed(spool.read(paths.spool(self._storage, key)))
        shipped = 0
        for chunk in _chunks(lines):
            points = finite(spool.points(chunk))
            self._ship_lines(run_id, entry, chunk, points)
            shipped += len(points)
            cursor = self._store(key, Cursor(self._mlflow, run_id, chunk[-1].end, cursor.state))
        if state != cursor.state:
            tags = {f"winnow.sweep.{self._sweep}": "reused" if reused else "trained"}
            self._tracking.set_state(run_id, event.state, event.detail, tags=tags, note="" if reused else self._note(entry, event))
            if event.state == "leased":
                self._tracking.set_state(parent, "leased", {})  # reopens the sweep's run; results.show closes it
            self._store(key, Cursor(self._mlflow, run_id, cursor.offset, state))
        return shipped

    def _ship_plan(self) -> None:
        """Log the plan on the sweep's run, once a trial has begun and again whenever it has grown."""
        entries = list(self._ledger.entries.values())
        if len(entries) > self._planned and any(len(entry.events) > 1 for entry in entries):
            self._tracking.log_bytes(self._parent(), *plan_artifact.to_file(entry.trial for entry in entries))
            self._planned = len(entries)

    def _note(self, entry: Entry, event: Event) -> str:
        committed = spool.committed(spool.read(paths.spool(self._storage, entry.trial.key)))
        return notes.of_trial(entry.trial, event, [placed.line for placed in committed])

    def _parent(self) -> str:
        """The sweep's run; this shipper's first call describes it."""
        run_id = self._tracking.parent_run(self._sweep)
        if not self._described:
            text = notes.of_sweep(self._sweep, [entry.trial for entry in self._ledger.entries.values()])
            self._tracking.describe(run_id, text, first=True)
            self._described = True
        return run_id

    def _ship_lines(self, run_id: str, entry: Entry, chunk: Sequence[Placed], points: Sequence[Point]) -> None:
        key, trial = entry.trial.key, entry.trial
        tags: dict[str, str] = {}
        for line in (placed.line for placed in chunk):
            self._tracking.log_artifacts(run_id, [path_of(self._storage, key) for path_of in FILES.get(line["kind"], ())])
            match line["kind"]:
                case "attempt":
                    tags |= {f"winnow.{name}": line[name] for name in TAGS if name in line}
                    profile: dict[str, str] = {name: str(line[name]) for name in ("dataset_score", "reference") if name in line}
                    self._tracking.log_dataset(run_id, trial.dataset, line.get("dataset_hash", "unknown"), profile)
                case "pruned":
                    if line.get("warnings"):
                        tags["winnow.warning"] = "; ".join(line["warnings"])
                case "finished":
                    tags["winnow.execution"] = line["execution"]
                    evaluations = spool.evaluations(spool.read(paths.spool(self._storage, key)))
                    self._tracking.log_text(run_id, "evaluations.json", json.dumps(evaluations))
        self._tracking.log(run_id, points, tags)

    def _stored(self, key: str) -> Cursor:
        """The cursor on disk if it is for this MLflow, else one at the start."""
        try:
            cursor = Cursor(**json.loads(paths.shipped(self._storage, key).read_bytes()))
        except (OSError, ValueError, TypeError):
            return Cursor(self._mlflow)
        return cursor if cursor.tracking == self._mlflow else Cursor(self._mlflow)

    def _store(self, key: str, cursor: Cursor) -> Cursor:
        write(paths.shipped(self._storage, key), json.dumps(asdict(cursor)).encode())
        self._cursors[key] = cursor
        self.stored += 1
        return cursor


class ShipperThread:
    """Calls the shipper every few seconds in the background."""

    def __init__(self, shipper: Shipper) -> None:
        self._shipper, self._stop = shipper, threading.Event()
        self._thread = threading.Thread(target=self._run, name="shipper", daemon=True)
        self.trouble = ""

    def start(self) -> None:
        """Start, if not started. Not done at construction, since importing MLflow would slow the driver's own start by seconds."""
        if not self.begun:
            self._thread.start()

    @property
    def begun(self) -> bool:
        return self._thread.ident is not None

    def finish(self, patience: float, *, while_it_gets_on: bool = False) -> bool:
        """Ship the rest; False, with the reason in `trouble`, if that takes longer than `patience` seconds. `while_it_gets_on` restarts
        that time as long as there is progress."""
        self._stop.set()
        self.start()
        self._thread.join(patience)
        before = -1
        while while_it_gets_on and self._thread.is_alive() and self._shipper.stored != before:
            before = self._shipper.stored
            self._thread.join(patience)
        if self._thread.is_alive():
            self.trouble = self.trouble or "MLflow does not answer"
            return False
        return not self.trouble

    def _run(self) -> None:
        wait = PERIOD
        while not self._stop.wait(wait):
            wait = PERIOD if self._pass() else min(LONGEST_WAIT, 2 * wait)
        self._pass()

    def _pass(self) -> bool:
        try:
            self._shipper.ship()
        except Exception as error:
            self.trouble = redacted(error)
            return False
        self.trouble = ""
        return True


def run_id_of(storage: Path, key: str) -> str:
    """The id of a trial's MLflow run; empty if nothing has been shipped yet."""
    try:
        return str(json.loads(paths.shipped(storage, key).read_bytes())["run_id"])
    except (OSError, ValueError, KeyError):
        return ""


def _chunks(lines: Sequence[Placed]) -> list[list[Placed]]:
    """Lines in groups of about one call's points at most."""
    chunks: list[list[Placed]] = []
    count = 0
    for placed in lines:
        size = len(placed.line.get("metrics", ()))
        if not chunks or count + size > METRICS_PER_CALL:
            chunks.append([])
            count = 0
        chunks[-1].append(placed)
        count += size
    return chunks
