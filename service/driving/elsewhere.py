"""What other sweeps of a storage do at the same time: a trial that several have is trained by one driver, and the others wait for it."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from service.ledger import journal, lease
from service.ledger.ledger import Ledger
from service.ledger.manifest import Followed
from service.ledger.others import done_elsewhere
from trainables.errors import UserError


@dataclass
class _Other:
    """Another sweep's journal: the version that was read last, and what it says; None before it could be read."""

    followed: Followed
    version: object = None
    ledger: Ledger | None = None


class Elsewhere:
    """The other sweeps of a storage. Reads a journal again only where it has changed, and a lease only where something may be running."""

    def __init__(self, storage: Path, name: str) -> None:
        self._storage, self._name, self._versions = storage, name, journal.Versions(storage)
        self._others: dict[str, _Other] = {}
        self._beats: dict[str, tuple[bytes, float]] = {}  # of drivers on other hosts: what their lease was, and when it was first seen so

    def training(self, keys: Iterable[str]) -> dict[str, str]:
        """Those of the trials that the driver of another sweep has handed out to a worker, and that sweep."""
        wanted, found = list(keys), dict[str, str]()
        for name, ledger in self._ledgers().items():
            # What a driver that was killed had handed out stays so until the next one of its sweep plans it again.
            leased = [key for key in wanted if ledger.state(key) == "leased" and ledger.entries[key].events[-1].epoch == ledger.epoch]
            if leased and self._runs(name):
                found |= dict.fromkeys(leased, name)
        return found

    def done(self, keys: Iterable[str]) -> dict[str, str]:
        """Those of the trials that another sweep has done, running or not, and that sweep."""
        wanted = list(keys)
        return done_elsewhere(self._ledgers(), self._name, wanted) if wanted else {}

    def _ledgers(self) -> dict[str, Ledger]:
        """The ledgers of all other sweeps, by name."""
        found = {}
        for name, version in self._versions.look().items():
            if name == self._name:
                continue
            with contextlib.suppress(UserError):  # damaged, which its own driver says, or a folder that is no sweep's
                if name not in self._others:
                    self._others[name] = _Other(Followed(self._storage, name))
                if (other := self._others[name]).version != version:
                    other.ledger, other.version = other.followed.read(), version
            if name in self._others and (ledger := self._others[name].ledger) is not None:
                found[name] = ledger
        return found

    def _runs(self, name: str) -> bool:
        """Whether a driver holds the sweep's lease. One on another host is believed until its lease has not changed for some time."""
        about, content = lease.newest(self._storage, name)
        if about.get("state") != "held":
            return False
        if about.get("kernel") == lease.lock_scope(self._storage, name):
            return lease.alive(self._storage, name)
        now = time.monotonic()
        before, since = self._beats.get(name, (b"", now))
        self._beats[name] = content, since if content == before else now
        return now - self._beats[name][1] < lease.BOUND
