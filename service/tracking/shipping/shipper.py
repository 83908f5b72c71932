"""Ships spools to MLflow.

A trial's cursor is written after each batch; a crash in between ships that batch again, which is idempotent. The first pass compares what
the cursors claim with what MLflow holds (service/tracking/shipping/comparison.py).
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Protocol

from service.ledger.ledger import TERMINAL, Entry, Event, Ledger
from service.spool import lines as spool
from service.spool.lines import Placed
from service.storage import paths, trial_objects
from service.storage.commands import command
from service.tracking import cursor as cursors
from service.tracking import notes, plan_artifact
from service.tracking.connection import DeletedError, TrackingError, passes, redacted, refused
from service.tracking.cursor import Cursor, last_values
from service.tracking.curve_table import CurveTable
from service.tracking.reading import RunRow
from service.tracking.runs import Ended, Point, Tracking, finite
from service.tracking.shipping import comparison
from service.tracking.shipping.spooled import chunks_of, datasets_in, row_of, tags_in
from service.tracking.trial_params import source_of
from trainables.errors import UserError
from trainables.storage.files import write

AT_ONCE = 100  # trials whose runs are made in one transaction, during which nobody else writes to an sqlite file
SHOWN = 3  # deleted runs that are named
CREDENTIALS = r"(?<=://)[^/?#]*@"  # of an address: another password is not another MLflow


class PartlyShippedError(UserError):
    """Some trials could not be shipped; the others are, as MLflow answers."""


class Summary(Protocol):
    """What the sweep's run says of all its trials (service/results/summary.py)."""

    def forget(self) -> None: ...
    def hold(self, key: str, row: RunRow) -> None: ...
    def ship(self, parent: str, *, busy: bool) -> None: ...


class Shipper:
    """Ships the trials of a sweep's ledger; `check` raises where nothing may be written any more."""

    def __init__(
        self, storage: Path, sweep: str, ledger: Ledger, tracking: Tracking, check: Callable[[], None] = lambda: None, *,
        again: bool = False, artifacts: bool = False, summary: Summary | None = None, has_ended: Callable[[str], bool] = lambda key: False,
    ) -> None:  # fmt: skip
        """`again` ships everything once more; `artifacts`: these are compared, too. `summary` keeps up the sweep's own run. Where the
        ledger does not grow beside its driver, `has_ended` says whether a trial has ended by now."""
        self._storage, self._sweep, self._ledger, self.tracking = storage, sweep, ledger, tracking
        self._check, self._again, self._artifacts, self._summary, self._has_ended = check, again, artifacts, summary, has_ended
        self._cursors: dict[str, Cursor] = {}
        self._settled: dict[str, Event] = {}  # the event that ended a trial whose spool has been shipped since
        # A hash, as the address may hold a password; older code hashed the embedded database's address, too.
        address = "embedded" if tracking.embedded else re.sub(CREDENTIALS, "", tracking.uri)
        self._mlflow = _digest(f"{address} {tracking.experiment}")
        self._same_mlflow = {self._mlflow, _digest(f"{tracking.uri} {tracking.experiment}")}
        self._described = self._compared = False
        self.points = 0  # shipped so far
        self.stored = 0  # cursors written, which shows progress
        self._analyzed = -1  # of `stored`, when MLflow's database was analyzed last
        self._planned = 0  # number of trials in the plan on the sweep's run
        self._curves = CurveTable(storage, tracking)
        self.deleted: dict[str, str] = {}  # what somebody has deleted in MLflow and is left alone, by trial key; "" for the sweep's run
        self._parent_id = ""  # of a deleted sweep's run

    def ship(self) -> int:
        """One pass over all trials: ship committed lines, then states. Returns the number of points.

        Raises UserError, in one line: at once if MLflow is down, else after the other trials if one cannot be shipped.
        """
        self._check()
        shipped, troubles, down = 0, list[str](), False
        trial_objects.refresh(self._storage, self._ledger.keys_in("leased"))
        self._compare()
        ended = self._ended_without_run()
        try:
            shipped += self._ship_ended(ended)
        except TrackingError:
            self._compared = False
            raise
        for key, entry in list(self._ledger.entries.items()):
            if key not in ended and self._ended_has_no_run(key, entry):
                continue  # it has ended meanwhile: one by one this pass would never catch up with a sweep of short trials
            try:
                shipped += self._ship_trial(key, entry) if entry.begun else 0
            except DeletedError as error:
                self.deleted[key] = str(error)
            except Exception as error:
                # Whatever is wrong with one trial stops no other, unless MLflow itself is down.
                troubles.append(redacted(error) if isinstance(error, UserError) else f"{entry.trial.name} ({key}): {redacted(error)}")
                self._compared = self._compared and not isinstance(error, TrackingError)  # perhaps its run is gone
                if isinstance(error, TrackingError) and not refused(error) and not self._answers():
                    down = True
                    break
        text = "; ".join(troubles[:1] + [f"and {len(troubles) - 1} more"] * (len(troubles) > 1))
        if down:
            raise UserError(text)
        if "" not in self.deleted:
            self._ship_plan()
            self._ship_tables()
        if troubles:
            raise PartlyShippedError(text)
        if self.stored > 2 * self._analyzed:
            self.tracking.analyze()
            self._analyzed = self.stored
        return shipped

    def ask(self) -> None:
        """Raise where MLflow would never take anything from here: before anything is trained."""
        try:
            self.tracking.check()
        except DeletedError as error:
            raise DeletedError(self.remedy(str(error))) from None
        except UserError as error:
            if not passes(error):
                raise UserError(f"{error}; check MLFLOW_TRACKING_URI with `winnow doctor`") from None

    def left_alone(self) -> list[str]:
        """One line for what somebody has deleted in MLflow."""
        if not self.deleted:
            return []
        some = "; ".join(list(self.deleted.values())[:SHOWN]) + ("; ..." if len(self.deleted) > SHOWN else "")
        fix = command("sync", self._sweep, "--restore", storage=self._storage)
        return [f"somebody has deleted in MLflow, and this leaves alone: {some}; `{fix}` brings it back"]

    def close(self, ended: Collection[str] = ("done",)) -> None:
        """Set the state of the sweep's run, where no driver is there to do so; `ended` are the states that count as an answer."""
        if "" in self.deleted or not any(entry.begun for entry in self._ledger.entries.values()):
            return
        states = [entry.state for entry in self._ledger.entries.values()]
        absent = sum(state not in ended for state in states)
        state = "done" if not absent else "failed" if all(state in TERMINAL for state in states) else "planned"
        parent = self._parent()
        if self.tracking.state_of(parent) != state:
            message = {"message": f"{absent} of {len(states)} trials have no score"} if absent else {}
            self.tracking.set_state(parent, state, message)

    def _compare(self) -> None:
        """Once, and again after MLflow has refused something: start over what MLflow does not hold."""
        if self._compared:
            return
        self._settled.clear()
        self._curves.forget()
        if self._summary:
            self._summary.forget()
        self.deleted.clear()
        self.tracking.forget()
        known = {key: self._stored(key) for key, entry in list(self._ledger.entries.items()) if entry.begun}
        if self._again:
            known = {key: Cursor(self._mlflow, cursor.run_id) for key, cursor in known.items()}
        hold = self._summary.hold if self._summary else lambda key, row: None
        told = comparison.compare(self.tracking, self._sweep, self._ledger, self._storage, known, artifacts=self._artifacts, hold=hold)
        self._cursors, self.deleted, self._parent_id = told.cursors, told.deleted, told.parent
        self._compared, self._again = True, False

    def _answers(self) -> bool:
        """Whether MLflow answers at all."""
        try:
            self.tracking.parents(self._sweep)
        except UserError:
            return False
        return True

    def remedy(self, text: str) -> str:
        return text.replace("`winnow sync SWEEP --restore`", f"`{command('sync', self._sweep, '--restore', storage=self._storage)}`")

    def _ended_without_run(self) -> dict[str, Entry]:
        return {key: entry for key, entry in list(self._ledger.entries.items()) if self._ended_has_no_run(key, entry)}

    def _ended_has_no_run(self, key: str, entry: Entry) -> bool:
        return entry.state in TERMINAL and key not in self._settled and key not in self.deleted and not self._cursor(key).run_id

    def _ship_ended(self, ended: Mapping[str, Entry]) -> int:
        """Ship trials that have ended and have no run yet, some at once, where MLflow's database is at hand. What is left is shipped one by
        one, which also says what is wrong with it."""
        shipped, keys = 0, list(ended)
        for start in range(0, len(keys), AT_ONCE):
            self._check()
            whole, told = dict[str, Ended](), dict[str, tuple[Event, list[Placed]]]()
            for key in keys[start : start + AT_ONCE]:
                entry, event = ended[key], ended[key].events[-1]
                with contextlib.suppress(Exception):  # of a spool that makes no sense
                    lines = self._lines(key)
                    whole[key], told[key] = self._whole(entry, event, lines), (event, lines)
            try:
                runs = self.tracking.create_ended(whole)
            except TrackingError as error:
                if passes(error):
                    raise
                return shipped
            for key, run_id in runs.items():
                event, lines = told[key]
                try:
                    for placed in lines:
                        self._ship_files(run_id, key, placed.line["kind"])
                except TrackingError:
                    raise
                except Exception:  # as above; its run is there, and has no cursor yet
                    continue
                held = last_values(whole[key].points)
                self._store(key, Cursor(self._mlflow, run_id, lines[-1].end if lines else 0, self._state(event), held))
                self._hold(key, run_id, event, lines, held)
                self._settled[key] = event
                self.points += len(whole[key].points)
                shipped += len(whole[key].points)
        return shipped

    def _whole(self, entry: Entry, event: Event, lines: Sequence[Placed]) -> Ended:
        times = [int(placed.line["time"]) for placed in lines if "time" in placed.line] or [int(1000 * event.time)]
        return Ended(
            begun=min(times), ended=max(times),
            trial=entry.trial, parent=self._parent(), state=event.state, detail=event.detail,
            tags=tags_in(lines) | self._tags_of(entry, event), points=finite(spool.points(lines)),
            datasets=datasets_in(entry.trial, lines), note=self._note(entry, event),
        )  # fmt: skip

    def _ship_trial(self, key: str, entry: Entry) -> int:
        """Ship new lines of a trial; after its end its spool is read one last time."""
        if key in self.deleted:
            return 0
        event = entry.events[-1]  # read before the spool, as the driver may record the end meanwhile
        if self._settled.get(key) is event:
            return 0
        shipped = self._ship_new(key, entry, event)
        if event.state in TERMINAL:
            self._settled[key] = event
        return shipped

    def _ship_new(self, key: str, entry: Entry, event: Event) -> int:
        cursor = self._cursor(key)
        lines, state = self._lines(key, cursor.offset), self._state(event)
        if not lines and (state == cursor.state or (state == "planned" and not cursor.run_id)):
            return 0
        if event.state not in TERMINAL and cursor.state.partition(",")[0] in TERMINAL and self._has_ended(key):
            return 0  # since the ledger was read; its driver has shipped that
        self._check()
        parent = self._parent()
        run_id = self.tracking.trial_run(entry.trial, parent, cursor.run_id)
        if run_id != cursor.run_id:  # another MLflow, or a deleted run: ship everything again
            cursor, lines = Cursor(self._mlflow, run_id), self._lines(key)
        chunks, points, tags, shipped = chunks_of(lines), list[Point](), dict[str, str](), 0
        for number, chunk in enumerate(chunks, 1):
            points, tags = finite(spool.points(chunk)), tags_in(chunk)
            for placed in chunk:
                self._ship_files(run_id, key, placed.line["kind"])
            for about in datasets_in(entry.trial, chunk):
                self.tracking.log_dataset(run_id, about)
            held = {**(cursor.held or {}), **last_values(points)}
            cursor = replace(cursor, tracking=self._mlflow, offset=chunk[-1].end, held=held)
            shipped += len(points)
            if number < len(chunks) or state == cursor.state:
                self.tracking.log(run_id, points, tags)
                self.points += len(points)
                self._store(key, cursor)
                points, tags = [], {}
        if state != cursor.state:  # with the last points: each call of MLflow is some transactions
            tags |= self._tags_of(entry, event)
            self.tracking.set_state(run_id, event.state, event.detail, tags=tags, note=self._note(entry, event), points=points)
            self.points += len(points)
            if event.state == "leased" and "" not in self.deleted:
                self.tracking.reopen(parent)  # results.show closes it
            cursor = self._store(key, replace(cursor, tracking=self._mlflow, state=state))
        self._hold(key, run_id, event, lines, cursor.held or {})
        return shipped

    def _cursor(self, key: str) -> Cursor:
        return self._cursors.get(key) or self._cursors.setdefault(key, self._stored(key))

    def _lines(self, key: str, offset: int = 0) -> list[Placed]:
        return spool.committed(spool.read(paths.spool(self._storage, key), offset))

    def _state(self, event: Event) -> str:
        """What the cursor says of a state, so that the same one of another kind is shipped, too."""
        return f"{event.state}, reused by {self._sweep}" if event.detail.get("sweep") else event.state

    def _tags_of(self, entry: Entry, event: Event) -> dict[str, str]:
        how = "reused" if event.detail.get("sweep") else "trained"
        return {f"winnow.sweep.{self._sweep}": how} | source_of(self._ledger.asked_by(entry))

    def _hold(self, key: str, run_id: str, event: Event, lines: Sequence[Placed], held: Mapping[str, str]) -> None:
        """Tell the summary what MLflow holds of a trial now."""
        if self._summary:
            news = [placed.line for placed in lines] or [spool.origin(paths.spool(self._storage, key))]  # another sweep has shipped it
            self._summary.hold(key, row_of(run_id, event, news, held))

    def _ship_plan(self) -> None:
        """Log the plan on the sweep's run, once a trial has begun and again whenever it has grown."""
        entries = list(self._ledger.entries.values())
        if len(entries) > self._planned and any(entry.begun for entry in entries):
            self.tracking.log_bytes(self._parent(), *plan_artifact.to_file(entry.trial for entry in entries))
            self._planned = len(entries)

    def _ship_tables(self) -> None:
        """Keep up what the sweep's run says of all trials, and the table that reports read, once there is something to say."""
        cursors = {key: cursor for key, cursor in self._cursors.items() if key not in self.deleted}
        busy = bool(self._ledger.keys_in("leased"))
        if any(cursor.offset for cursor in cursors.values()):
            self._curves.ship(self._parent(), cursors, busy=busy)
        if self._summary and any(cursor.run_id for cursor in cursors.values()):
            self._summary.ship(self._parent(), busy=busy)

    def _note(self, entry: Entry, event: Event) -> str:
        """Empty where another sweep has trained the trial, which has written it."""
        lines = [] if event.detail.get("sweep") else self._lines(entry.trial.key)
        return "" if event.detail.get("sweep") else notes.of_trial(entry.trial, event, [placed.line for placed in lines])

    def _parent(self) -> str:
        """The sweep's run, even a deleted one that is left alone; this shipper's first call describes it."""
        if "" in self.deleted:
            return self._parent_id
        run_id = self.tracking.parent_run(self._sweep)
        if not self._described:
            text = notes.of_sweep(self._sweep, [entry.trial for entry in self._ledger.entries.values()])
            self.tracking.describe(run_id, text, first=True)
            self._described = True
        return run_id

    def _ship_files(self, run_id: str, key: str, kind: str) -> None:
        """Log the files that a line reports."""
        self.tracking.log_artifacts(run_id, [path_of(self._storage, key) for path_of in comparison.FILES.get(kind, ())])
        if kind == "finished":
            evaluations = spool.evaluations(spool.read(paths.spool(self._storage, key)))
            self.tracking.log_bytes(run_id, comparison.EVALUATIONS, json.dumps(evaluations).encode())

    def _stored(self, key: str) -> Cursor:
        """The cursor on disk if it is for this MLflow, else one at the start."""
        cursor = cursors.read(self._storage, key)
        if cursor.tracking not in self._same_mlflow:
            return Cursor(self._mlflow)
        if cursor.held is None:  # written by older code
            try:
                lines = [placed for placed in spool.read(paths.spool(self._storage, key)) if placed.end <= cursor.offset]
                cursor = replace(cursor, held=last_values(finite(spool.points(lines))))
            except Exception:  # of a spool that makes no sense: nothing to compare with
                cursor = replace(cursor, held={})
        return cursor

    def _store(self, key: str, cursor: Cursor) -> Cursor:
        self._check()
        # What a crash of the machine loses is made again from what MLflow holds; on a busy disk two flushes take 0.2 s.
        write(paths.shipped(self._storage, key), json.dumps(asdict(cursor)).encode(), flushed=False)
        self._cursors[key] = cursor
        self.stored += 1
        return cursor


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]
