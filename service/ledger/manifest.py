"""The manifest: one append-only journal per sweep, the truth about what is planned, leased, done, failed, diverged or stopped.

`Manifest` is that journal opened for writing by the driver that holds the sweep's lease; whoever only reads gets a Ledger.
"""

from __future__ import annotations

import json
import sys
import threading
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from service.ledger import journal
from service.ledger.journal import Journal
from service.ledger.lease import Lease
from service.ledger.ledger import Event, Ledger, replay
from trainables.errors import SupersededError, UserError
from trainables.trial import Trial


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
    return replay(where.content(), where.where)
