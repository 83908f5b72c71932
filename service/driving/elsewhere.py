"""What other sweeps of a storage do at the same time: a trial that several have is trained by one driver, and the others wait for it."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterable
from pathlib import Path

from service.ledger import journal, lease, manifest
from service.ledger.ledger import Ledger
from service.ledger.manifest import Followed
from service.ledger.others import done_elsewhere
from trainables import project
from trainables.errors import UserError


class Elsewhere:
    """The other sweeps of a storage that a driver runs now. Reads only their leases where nobody runs one."""

    def __init__(self, storage: Path, name: str) -> None:
        self._storage, self._name = storage, name
        self._followed: dict[str, Followed] = {}  # the sweeps whose journals have been read
        self._beats: dict[str, tuple[bytes, float]] = {}  # of drivers on other hosts: what their lease was, and when it was first seen so

    def training(self, keys: Iterable[str]) -> dict[str, str]:
        """Those of the trials that the driver of another sweep has handed out to a worker, and that sweep."""
        ledgers = self._running()
        return {key: name for key in keys for name, ledger in ledgers.items() if ledger.state(key) == "leased"}

    def done(self, keys: Iterable[str]) -> dict[str, str]:
        """Those of the trials that another sweep has done, running or not, and that sweep."""
        if not (wanted := list(keys)):
            return {}
        done = done_elsewhere(manifest.read_all(self._storage), self._name)
        return {key: done[key] for key in wanted if key in done}

    def done_by_parts(self, keys: Iterable[str]) -> dict[str, str]:
        """Those of the trials that another driver of the same sweep has done, and its part; reads nothing where there is no other."""
        ledgers = {}
        for name in journal.sweep_names(self._storage):
            if name != self._name and project.whole(name) == project.whole(self._name):
                with contextlib.suppress(UserError):  # damaged, which its own driver says
                    ledgers[name] = self._ledger(name)
        done = done_elsewhere(ledgers, self._name)
        return {key: done[key] for key in keys if key in done}

    def _running(self) -> dict[str, Ledger]:
        ledgers = {}
        for name in journal.sweep_names(self._storage):
            with contextlib.suppress(UserError):  # damaged, which its own driver says, or a folder that is no sweep's
                if name != self._name and self._runs(name):
                    ledgers[name] = self._ledger(name)
        return ledgers

    def _ledger(self, name: str) -> Ledger:
        """Before each stack it is asked for twice, of a sweep that may have ten thousand trials."""
        return self._followed.setdefault(name, Followed(self._storage, name)).read()

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
