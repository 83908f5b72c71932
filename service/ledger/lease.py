"""The lease of a sweep: which driver, and which of its workers, may write. It holds across hosts and compares no clocks.

`lease/<epoch>.json` is made with O_EXCL (on S3: on condition that it is not there), so one driver gets an epoch. An epoch is over as
soon as the file of the next one exists: a takeover and a release both make it, and whoever holds the old epoch needs one `stat` (on
S3: one request) to know. docs/decisions/006-lease.md.
"""

from __future__ import annotations

import json
import os
import platform
import sys
import time
from pathlib import Path
from typing import Any
from uuid import uuid4

from service.storage import paths, s3, shared_files
from service.storage.locks import flock
from trainables.errors import SupersededError, UserError

BEAT = 2.0  # seconds between two heartbeats
BOUND = 20.0  # seconds without a heartbeat, by the watcher's own clock, after which a driver of another host is taken for dead


class Lease:
    """Held by the one driver of a sweep from `Lease(...)` to `release()`; raises UserError where another driver has it."""

    def __init__(self, storage: Path, name: str, *, bound: float = BOUND) -> None:
        self._folder, self._beats = paths.leases(storage, name), 0
        self._folder.mkdir(parents=True, exist_ok=True)
        self._lock = flock(paths.lock(storage, name))
        if self._lock is None:
            raise _held(name, holder(storage, name))
        try:
            self.epoch = _take(storage, name, bound)
        except BaseException:
            os.close(self._lock)
            raise
        self.owner = owner()
        self._path = _file(self._folder, self.epoch)
        self._about = _read(self._path)[1].partition(b"\n")[2]
        shared_files.remove(paths.stop_request(storage, name))

    def check(self) -> None:
        """Raise SupersededError unless this driver may still write: one `stat`."""
        check_epoch(self._folder, self.epoch)

    def beat(self) -> None:
        """Show life: the file changes, which is all that a watcher compares."""
        self._beats += 1
        shared_files.overwrite(self._path, b"%012d\n%s" % (self._beats, self._about))

    def release(self) -> None:
        """End the epoch: workers that are still alive are fenced off, and the next driver need not watch for signs of life."""
        if self._lock is None:
            return
        lock, self._lock = self._lock, None  # first, so that our own heart does not take the new epoch for another driver's
        try:
            _claim(self._folder, self.epoch + 1, {"state": "released", "owner": self.owner})
        except OSError:
            pass  # taken over meanwhile, or nothing can be written: then the end of the heartbeat says it
        finally:
            os.close(lock)

    @property
    def held(self) -> bool:
        """Whether it was not released; another driver may have taken it all the same."""
        return self._lock is not None


def check_epoch(folder: Path, epoch: int) -> None:
    """Raise SupersededError where `epoch` is over."""
    after = _file(folder, epoch + 1)
    if shared_files.exists(after):
        about = _read(after)[0]
        raise SupersededError(f"epoch {epoch} is over: {about.get('state', 'held')} by {about.get('owner', 'another driver')}")


def holder(storage: Path, name: str) -> dict[str, Any]:
    """What the newest lease says: `state` (held, released), `owner` (host:pid), `kernel`, `since`, `epoch`; empty where there is none."""
    epoch = _newest(paths.leases(storage, name))
    return _read(_file(paths.leases(storage, name), epoch))[0] | {"epoch": epoch} if epoch else {}


def alive(storage: Path, name: str, patience: float = 2.5 * BEAT) -> bool:
    """Whether a driver holds the lease: at once for one of this kernel, else by watching for a heartbeat."""
    about = holder(storage, name)
    if not about or about.get("state") == "released":
        return False
    if about.get("kernel") == place(storage, name):
        lock = flock(paths.lock(storage, name))
        if lock is not None:
            os.close(lock)
        return lock is None
    path, until = _file(paths.leases(storage, name), about["epoch"]), time.monotonic() + patience
    before = _read(path)[1]
    while time.monotonic() < until:
        time.sleep(0.2)
        if _read(path)[1] != before:
            return True
    return False


def owner() -> str:
    return f"{platform.node()}:{os.getpid()}"


def kernel() -> str:
    """The running kernel: flock is to be relied on among the processes of one, and only there."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return platform.node()


def place(storage: Path, name: str) -> str:
    """Among whom the sweep's flock is to be relied on: processes of one kernel, and on S3 of one folder that stands for it."""
    if s3.of(storage) is None:
        return kernel()
    file = paths.lock(storage, name)
    file.parent.mkdir(parents=True, exist_ok=True)
    file.touch()
    return f"{kernel()} {file.stat().st_dev}:{file.stat().st_ino}"


def _take(storage: Path, name: str, bound: float) -> int:
    """The epoch that is now ours. Of drivers of other hosts only observed change counts, never the time that they wrote."""
    folder, here = paths.leases(storage, name), place(storage, name)
    seen: tuple[int, bytes] | None = None
    began = 0.0
    while True:
        epoch = _newest(folder)
        about, content = _read(_file(folder, epoch)) if epoch else ({}, b"")
        # We hold the flock: a holder of our own kernel is dead.
        free = not epoch or about.get("state") == "released" or about.get("kernel") == here
        if seen is None and not free:
            print(f"{_story(name, about)}; watching for {bound:g} s whether it is alive", file=sys.stderr, flush=True)
            seen, began = (epoch, content), time.monotonic()
        elif not free and seen != (epoch, content):
            raise _held(name, about)
        if free or time.monotonic() - began > bound:
            now = time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime())
            try:
                _claim(folder, epoch + 1, {"state": "held", "owner": owner(), "kernel": here, "since": f"{now} UTC"})
                if bucket := s3.of(folder):
                    bucket.prove_conditions(paths.remote(_file(folder, epoch + 1))[1])
                return epoch + 1
            except FileExistsError:
                continue  # another host was faster
        time.sleep(min(0.2, bound))


def _claim(folder: Path, epoch: int, about: dict[str, str]) -> None:
    """Make the file of an epoch: a counter of heartbeats, then who has it. Raises FileExistsError where it was made already."""
    about = about | {"token": uuid4().hex}  # so that one whose answer was lost knows its own
    shared_files.create(_file(folder, epoch), b"%012d\n%s\n" % (0, json.dumps(about).encode()))


def _newest(folder: Path) -> int:
    """The highest epoch, 0 where there is none."""
    stems = (name.removesuffix(".json") for name in shared_files.names(folder))
    return max((int(stem) for stem in stems if stem.isdigit()), default=0)


def _read(path: Path) -> tuple[dict[str, Any], bytes]:
    """What a lease file says, and its bytes; one that is just being made says nothing yet."""
    try:
        content = shared_files.read(path)
        return json.loads(content.partition(b"\n")[2]), content
    except (FileNotFoundError, ValueError):
        return {}, b""


def _file(folder: Path, epoch: int) -> Path:
    return folder / f"{epoch:06d}.json"


def _held(name: str, about: dict[str, Any]) -> UserError:
    return UserError(f"{_story(name, about)}; wait for it, or `python -m service stop {name}`")


def _story(name: str, about: dict[str, Any]) -> str:
    return f"sweep {name!r} is being run by {about.get('owner', 'another driver')} since {about.get('since', 'just now')}"
