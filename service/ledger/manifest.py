"""The manifest: the journal of a sweep, opened for writing by the driver that holds its lease. Readers get a `Ledger`.

The journal is append-only and the only record of which trials are planned, leased, done, failed, diverged or stopped.
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
from service.ledger.ledger import ALL_FORGOTTEN, Event, Ledger, extend, replay
from trainables.errors import SupersededError, UserError
from trainables.output import printable
from trainables.trial import Trial


class Manifest:
    """The journal of a sweep, open for its driver. An event is on disk when `record` returns. Recording is thread-safe."""

    def __init__(
        self, storage: Path, name: str, settings: Mapping[str, Any] | None = None, by: Mapping[str, str] | None = None,
        followed: Followed | None = None,
    ) -> None:  # fmt: skip
        """Take the lease, replay the journal, begin a new epoch. Raises UserError if another driver holds the lease.

        `settings`, those of the run that begins, are stored in the journal, and `by`, who has asked for it (service/planning/submitter.py).
        `followed` has replayed the journal before, as far as it went; this continues with its ledger."""
        self.lease = Lease(storage, name)
        self._journal, self.closed = journal.of(storage, name), False
        self._writing = threading.Lock()
        try:
            self._begin(settings, by, followed)
        except BaseException:  # e.g. of a full disk: the next try is not to meet this one's lease
            self.lease.release()
            raise

    def _begin(self, settings: Mapping[str, Any] | None, by: Mapping[str, str] | None, followed: Followed | None) -> None:
        while True:
            self.ledger, length = followed.hand_over(self._journal) if followed else _replay(self._journal)
            followed = None
            self.lease.check()
            self._journal.begin(length)
            try:
                about = {"owner": self.lease.owner, **({"settings": settings} if settings else {}), **({"by": by} if by else {})}
                self._record([Event(key="", state="opened", epoch=self.lease.epoch, time=time.time(), detail=about)])
                break
            except SupersededError:
                self.lease.check()  # raises if superseded; otherwise the previous driver wrote in between, so replay again

    def record(self, state: str, details: Mapping[str, Mapping[str, Any]]) -> None:
        """Each trial key of `details` enters `state`; one fsync for all. Raises SupersededError after a takeover."""
        self.record_all((key, state, detail) for key, detail in details.items())

    def record_all(self, events: Iterable[tuple[str, str, Mapping[str, Any]]]) -> None:
        """Record (key, state, detail) in order, atomically; one fsync."""
        now, epoch = time.time(), self.ledger.epoch
        self._record([Event(key=key, state=state, epoch=epoch, time=now, detail=detail) for key, state, detail in events])

    def plan(self, trials: Iterable[Trial]) -> None:
        """Record trials that are new to the journal as planned."""
        self.record("planned", {t.key: {"trial": t.to_json()} for t in trials if t.key not in self.ledger.entries})

    def suggest(self, suggestions: Sequence[Mapping[str, Any]], trials: Iterable[Trial], again: Iterable[str] = ()) -> None:
        """Record what a search has suggested, each as `study`, `params` and the `keys` of its trials; plan those that are new, and those of
        `again` once more; one fsync."""
        now, epoch = time.time(), self.ledger.epoch
        new = {trial.key: trial for trial in trials if trial.key not in self.ledger.entries}
        about = {key: {"trial": trial.to_json()} for key, trial in new.items()} | {key: {"retry": True, "resumed": True} for key in again}
        planned = [Event(key=key, state="planned", epoch=epoch, time=now, detail=detail) for key, detail in about.items()]
        self._record([self._about(suggested=suggestions), *planned] if suggestions else planned)

    def end_at_limit(self, limit: str) -> None:
        """Record that this epoch's run ends because it has reached `limit`."""
        self._note(limit=limit)

    def forget(self, keys: Iterable[str], *, everything: bool) -> None:
        """Record that trials are no longer the sweep's, before anything of them is removed; `everything`: that nothing before counts."""
        self._note(forgotten=sorted(keys), **({"all_forgotten": True} if everything else {}))

    def _note(self, **about: Any) -> None:
        """Record something about the sweep in an event that older code reads, too, and takes for the beginning of this epoch."""
        self._record([self._about(**about)])

    def _about(self, **about: Any) -> Event:
        detail = {"owner": self.lease.owner, "settings": self.ledger.settings, **about}
        return Event(key="", state="opened", epoch=self.lease.epoch, time=time.time(), detail=detail)

    def close(self) -> None:
        """End the epoch and close the journal. Idempotent."""
        self.lease.release()
        if not self.closed:
            self._journal.close()
            self.closed = True

    def _record(self, events: Sequence[Event]) -> None:
        if not events:
            return
        with self._writing:  # a signal may make another thread record the driver's exit
            self.lease.check()
            applied, before = [], self._journal.length
            try:
                for event in events:
                    self.ledger.apply(event)
                    applied.append(event)
                self._append("".join(json.dumps(asdict(event)) + "\n" for event in events).encode())
            except BaseException:
                # Undo events that are not on disk; else the next one would follow a state that no replay reaches.
                if self._journal.length == before:
                    for event in reversed([event for event in applied if event.key or "suggested" in event.detail]):
                        self.ledger.undo(event)
                raise

    def _append(self, content: bytes) -> None:
        self._journal.append(content)


class Followed:
    """The ledger of a sweep that others write, read again and again; each time only what is new is replayed."""

    def __init__(self, storage: Path, name: str) -> None:
        self._journal, self._content, self._length, self._ledger = journal.of(storage, name), b"", 0, Ledger()

    def read(self) -> Ledger:
        """Raises UserError for a damaged journal."""
        return self._read(self._journal)

    def hand_over(self, source: Journal) -> tuple[Ledger, int]:
        """The ledger of the same journal, for one who changes it, and the length of what was replayed; the next `read` starts over."""
        ledger, length = self._read(source), self._length
        self._content, self._length, self._ledger = b"", 0, Ledger()
        return ledger, length

    def _read(self, source: Journal) -> Ledger:
        content, before = source.content(), self._content
        self._content = b""  # nothing is known where this raises
        if before and content.startswith(before) and ALL_FORGOTTEN not in content[len(before) :]:
            self._ledger, self._length = extend(self._ledger, content, source.where, self._length)
        else:
            self._ledger, self._length = replay(content, source.where)
        self._content = content[: self._length]  # what a crash has torn is written again
        return self._ledger


def read(storage: Path, name: str) -> Ledger:
    """The ledger of a sweep, empty if it has no journal yet. Raises UserError for a damaged journal."""
    return _replay(journal.of(storage, name))[0]


def read_all(storage: Path, required: str | None = None, *, without: str = "", followed: Followed | None = None) -> dict[str, Ledger]:
    """The ledgers of all sweeps of a storage, by name, but for the sweep `without`; `followed` reads that of `required`.

    A journal that cannot be read is reported on stderr and skipped, unless it is that of the sweep `required`: then UserError is raised.
    Trials that cannot be read are reported, too; where a sweep is required, its own.
    """
    ledgers = {}
    for name in journal.sweep_names(storage):
        if name == without:
            continue
        try:
            ledger = ledgers[name] = followed.read() if followed and name == required else read(storage, name)
            if (left_out := ledger.left_out()) and name in (required, *([] if required or without else [name])):
                print(printable(f"sweep {name!r}: {left_out}", lines=False), file=sys.stderr)
        except UserError as error:
            if name == required:
                raise
            print(printable(f"sweep {name!r} is skipped: {error}", lines=False), file=sys.stderr)
    return ledgers


def _replay(source: Journal) -> tuple[Ledger, int]:
    return replay(source.content(), source.where)
