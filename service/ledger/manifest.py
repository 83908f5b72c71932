"""The manifest: one append-only journal per sweep, the truth about what is planned, leased, done, failed, diverged or stopped.

`Ledger` holds the rules and touches no file; `Manifest` adds the file (journal.py) and the driver's lease.
"""

from __future__ import annotations

import contextlib
import json
import sys
import threading
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from service.ledger import journal
from service.ledger.journal import Journal
from service.ledger.lease import Lease
from trainables.errors import SupersededError, UserError
from trainables.trial import Trial

# state now -> states that may follow. Anything else is a fault of the service, and raises with the trial's story.
TRANSITIONS: dict[str, tuple[str, ...]] = {
    "": ("planned",),
    "planned": ("leased", "done", "stopped"),  # done at once: another sweep of this storage did it; stopped: before it was its turn
    "leased": ("leased", "planned", "done", "failed", "diverged", "stopped"),  # leased again, by a later driver; planned: given back
    "failed": ("planned",),
    "diverged": ("planned",),
    "stopped": ("planned",),  # another sweep has done it since
    "done": (),
}
TERMINAL = ("done", "failed", "diverged", "stopped")


@dataclass(frozen=True, kw_only=True)
class Event:
    """One line of the journal: a trial enters a state. `epoch` is that of the driver's lease, higher for each later driver."""

    key: str
    state: str
    epoch: int = 0
    time: float = 0.0
    detail: Mapping[str, Any] = field(default_factory=dict)


class IllegalTransitionError(RuntimeError):
    """A state that cannot follow; the message tells all that happened to the trial."""


class StaleEpochError(RuntimeError):
    """An event of a driver whose lease another has taken over."""


@dataclass
class Entry:
    """What the journal says about one trial, the newest event last."""

    trial: Trial
    story: list[Event] = field(default_factory=list)

    @property
    def state(self) -> str:
        return self.story[-1].state if self.story else ""

    @property
    def detail(self) -> Mapping[str, Any]:
        return self.story[-1].detail if self.story else {}

    @property
    def reused(self) -> bool:
        """Whether another sweep did the trial."""
        return self.state == "done" and "sweep" in self.detail

    def tries(self) -> list[Event]:
        """What has happened since a person last asked for the trial: the first planning, or `resume`."""
        asked = max((i for i, event in enumerate(self.story) if event.detail.get("resumed")), default=0)
        return self.story[asked:]

    def failures(self, reason: str, reached: int) -> int:
        """How often the trial has failed for `reason` at its committed update `reached`, this time counted, without getting any further.

        Those before a person last asked for it do not count, nor those before it last came further: it is making its way."""
        count = 1
        for detail in (
            event.detail for event in reversed(self.tries()) if event.state == "failed" and event.detail.get("reason") == reason
        ):
            if detail.get("update", 0) < max(0, reached):
                break
            count += 1
        return count

    def size(self) -> int | None:
        """The largest stack that it may be tried in, where a failure has set one."""
        return min((event.detail["size"] for event in self.tries() if event.state == "planned" and "size" in event.detail), default=None)


class Ledger:
    """The state of every trial of a sweep, by key, in the order of planning. Pure: events in, states out."""

    def __init__(self) -> None:
        self.entries: dict[str, Entry] = {}
        self.epoch = 0
        self.owner = ""

    def apply(self, event: Event) -> None:
        """Take in an event; raises IllegalTransitionError or StaleEpochError, and then changes nothing."""
        if event.epoch < self.epoch:
            raise StaleEpochError(f"{event.state} of {event.key} comes from epoch {event.epoch}; {self.owner} took over with {self.epoch}")
        if event.state == "opened":
            self.epoch, self.owner = event.epoch, str(event.detail.get("owner", "?"))
            return
        entry = self.entries.get(event.key)
        now = entry.state if entry else ""
        if event.state not in TRANSITIONS[now]:
            raise IllegalTransitionError(f"{event.key} cannot become {event.state!r}: {_story(entry)}")
        if entry is None:
            entry = self.entries[event.key] = Entry(Trial.from_json(event.detail["trial"]))
        entry.story.append(event)

    def take_back(self, event: Event) -> None:
        """Undo the last `apply`, which was of `event`, a trial's."""
        entry = self.entries[event.key]
        entry.story.pop()
        if not entry.story:
            del self.entries[event.key]

    def state(self, key: str) -> str:
        """`""` for a trial that the journal does not know."""
        return self.entries[key].state if key in self.entries else ""

    def keys_in(self, *states: str) -> list[str]:
        return [key for key, entry in self.entries.items() if entry.state in states]


class Manifest:
    """The journal opened for writing by the one driver of a sweep; every recorded event is on disk when record() returns."""

    def __init__(self, storage: Path, name: str) -> None:
        """Take the lease, replay, begin a new epoch; raises UserError where another driver holds the lease."""
        self.lease = Lease(storage, name)
        self._journal, self.closed = journal.of(storage, name), False
        self._writing = threading.Lock()
        while True:
            self.ledger, good = _replay(self._journal)
            self._journal.begin(good)
            try:
                self._record([Event(key="", state="opened", epoch=self.lease.epoch, time=time.time(), detail={"owner": self.lease.owner})])
                break
            except SupersededError:
                self.lease.check()  # else the last words of the driver before this one came between

    def record(self, state: str, details: Mapping[str, Mapping[str, Any]]) -> None:
        """Each trial key of `details` enters `state`; one fsync for all. Raises SupersededError where another driver took over."""
        self.record_all((key, state, detail) for key, detail in details.items())

    def record_all(self, events: Iterable[tuple[str, str, Mapping[str, Any]]]) -> None:
        """(key, state, detail) in order, all of them or none on disk; one fsync."""
        now, epoch = time.time(), self.ledger.epoch
        self._record([Event(key=key, state=state, epoch=epoch, time=now, detail=detail) for key, state, detail in events])

    def plan(self, trials: Iterable[Trial]) -> None:
        """Trials that the journal does not know yet become planned."""
        self.record("planned", {t.key: {"trial": t.to_json()} for t in trials if t.key not in self.ledger.entries})

    def close(self) -> None:
        """End the epoch and the writing; twice is once."""
        self.lease.release()
        if not self.closed:
            self._journal.close()
            self.closed = True

    def _record(self, events: Sequence[Event]) -> None:
        if not events:
            return
        with self._writing:  # a signal's last words may come from another thread
            self.lease.check()
            applied, before = [], self._journal.length
            try:
                for event in events:
                    self.ledger.apply(event)
                    applied.append(event)
                self._append("".join(json.dumps(asdict(event)) + "\n" for event in events).encode())
            except BaseException:
                # What is not on disk has not happened: the next event would else follow a state that no replay will find.
                if self._journal.length == before:
                    for event in reversed([event for event in applied if event.state != "opened"]):
                        self.ledger.take_back(event)
                raise

    def _append(self, content: bytes) -> None:
        self._journal.append(content)


def read(storage: Path, name: str) -> Ledger:
    """The ledger of a sweep, empty where there is none yet; raises UserError for a damaged journal."""
    return _replay(journal.of(storage, name))[0]


def read_all(storage: Path, own: str | None = None) -> dict[str, Ledger]:
    """The ledgers of all sweeps of a storage, by name.

    One that cannot be read holds up nobody but its `own` sweep, for which UserError is raised: the others are told on stderr, and left out.
    """
    found = {}
    for name in journal.names(storage):
        try:
            found[name] = read(storage, name)
        except UserError as error:
            if name == own:
                raise
            print(f"sweep {name!r} is left out: {error}", file=sys.stderr)
    return found


def _replay(where: Journal) -> tuple[Ledger, int]:
    """The ledger and the length of the journal up to its last whole line: a crash may have torn the one after."""
    ledger, good = Ledger(), 0
    for number, raw in enumerate(where.content().splitlines(keepends=True), start=1):
        if not raw.endswith(b"\n"):
            break
        try:
            with contextlib.suppress(StaleEpochError):  # slipped through between a superseded driver's check and its write: not an event
                ledger.apply(Event(**json.loads(raw)))
        except UserError as error:  # a whole line, of a trial that this code cannot make
            raise UserError(f"{where.where} line {number}: {error}; put back what the trial needs, or remove its lines") from error
        except (ValueError, TypeError, KeyError, RuntimeError) as error:
            raise UserError(f"{where.where} line {number} is damaged ({error}); mend or remove that line") from error
        good += len(raw)
    return ledger, good


def _story(entry: Entry | None) -> str:
    if entry is None:
        return "it was never planned"
    steps = (f"{time.strftime('%Y-%m-%d %H:%M:%S', time.gmtime(e.time))} {e.state} (epoch {e.epoch})" for e in entry.story)
    return f"{entry.trial.name}: " + " -> ".join(steps)
