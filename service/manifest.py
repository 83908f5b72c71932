"""The manifest: one append-only journal per sweep, the truth about what is planned, leased, done, failed or diverged.

`Ledger` holds the rules and touches no file; `Manifest` adds the file, its lock and its fsync.
"""

from __future__ import annotations

import fcntl
import json
import os
import platform
import time
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from trainables import paths
from trainables.errors import UserError
from trainables.trial import Trial

# state now -> states that may follow. Anything else is a fault of the service, and raises with the trial's story.
TRANSITIONS: dict[str, tuple[str, ...]] = {
    "": ("planned",),
    "planned": ("leased", "done"),  # done at once: another sweep of this storage did it
    "leased": ("leased", "planned", "done", "failed", "diverged"),  # leased again, by a later driver; planned: given back
    "failed": ("planned",),
    "diverged": ("planned",),
    "done": (),
}
TERMINAL = ("done", "failed", "diverged")


@dataclass(frozen=True, kw_only=True)
class Event:
    """One line of the journal: a trial enters a state. `epoch` counts the drivers that have opened the journal."""

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

    def state(self, key: str) -> str:
        """`""` for a trial that the journal does not know."""
        return self.entries[key].state if key in self.entries else ""

    def keys_in(self, *states: str) -> list[str]:
        return [key for key, entry in self.entries.items() if entry.state in states]


class Manifest:
    """The journal opened for writing by the one driver of a sweep; every recorded event is on disk when record() returns."""

    def __init__(self, storage: Path, name: str) -> None:
        """Take the lock, replay, begin a new epoch; raises UserError where another driver of this host holds the lock."""
        self.path = paths.manifest(storage, name)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._lock = _take_lock(paths.lock(storage, name), name)
        self.ledger, good = _replay(self.path)
        self._file = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        os.ftruncate(self._file, good)
        self._record([Event(key="", state="opened", epoch=self.ledger.epoch + 1, time=time.time(), detail={"owner": _owner()})])

    def record(self, state: str, details: Mapping[str, Mapping[str, Any]]) -> None:
        """Each trial key of `details` enters `state`; one fsync for all."""
        now, epoch = time.time(), self.ledger.epoch
        self._record([Event(key=key, state=state, epoch=epoch, time=now, detail=detail) for key, detail in details.items()])

    def plan(self, trials: Iterable[Trial]) -> None:
        """Trials that the journal does not know yet become planned."""
        self.record("planned", {t.key: {"trial": t.to_json()} for t in trials if t.key not in self.ledger.entries})

    def close(self) -> None:
        os.close(self._file)
        os.close(self._lock)

    def _record(self, events: Iterable[Event]) -> None:
        lines = []
        for event in events:
            self.ledger.apply(event)
            lines.append(json.dumps(asdict(event)) + "\n")
        os.write(self._file, "".join(lines).encode())
        os.fsync(self._file)


def read(storage: Path, name: str) -> Ledger:
    """The ledger of a sweep, empty where there is none yet; raises UserError for a damaged journal."""
    return _replay(paths.manifest(storage, name))[0]


def read_all(storage: Path) -> dict[str, Ledger]:
    """The ledgers of all sweeps of a storage, by name."""
    return {path.parent.name: _replay(path)[0] for path in sorted(paths.sweeps(storage).glob("*/manifest.jsonl"))}


def _replay(path: Path) -> tuple[Ledger, int]:
    """The ledger and the length of the journal up to its last whole line: a crash may have torn the one after."""
    ledger, good = Ledger(), 0
    for number, raw in enumerate(path.read_bytes().splitlines(keepends=True) if path.exists() else [], start=1):
        if not raw.endswith(b"\n"):
            break
        try:
            ledger.apply(Event(**json.loads(raw)))
        except (ValueError, TypeError, KeyError, RuntimeError) as error:
            raise UserError(f"{path} line {number} is damaged ({error}); mend or remove that line") from error
        good += len(raw)
    return ledger, good


def _take_lock(path: Path, name: str) -> int:
    """A lock that the kernel drops with the process, so a killed driver never leaves one behind; it holds on one host only."""
    lock = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        holder = os.read(lock, 200).decode(errors="replace").strip()
        os.close(lock)
        raise UserError(f"sweep {name!r} is being run by {holder or 'another process'}; wait for it or stop it") from None
    os.ftruncate(lock, 0)
    os.pwrite(lock, _owner().encode(), 0)
    return lock


def _owner() -> str:
    return f"{platform.node()}:{os.getpid()}"


def _story(entry: Entry | None) -> str:
    if entry is None:
        return "it was never planned"
    steps = (f"{time.strftime('%Y-%m-%d %H:%M:%S', time.gmtime(e.time))} {e.state} (epoch {e.epoch})" for e in entry.story)
    return f"{entry.trial.name}: " + " -> ".join(steps)
