"""The lease of a sweep: which driver may write. It works across hosts and compares no clocks (docs/decisions/006-lease.md).

`lease/<epoch>.json` is created with O_EXCL (on S3: with If-None-Match), so only one driver gets an epoch. A takeover and a release both
create the file of the next epoch, which ends the current one; its holder notices with one `stat` (on S3: one request).

The file also holds a random token. A holder that finds another one, or no file, knows that the storage was removed under it, or removed and
begun anew, where an epoch of the same number may be somebody else's.
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

from service.ledger.errors import GoneError
from service.storage import paths, s3, shared_files
from service.storage.commands import command
from service.storage.locks import flock, locked
from trainables.errors import SupersededError, UserError
from trainables.output import printable

BEAT = 2.0  # seconds between two heartbeats
BOUND = 20.0  # seconds without a heartbeat, by the watcher's clock, after which a driver on another host is presumed dead


class Lease:
    """Held by the driver of a sweep from construction to `release`. Raises UserError if another driver holds it."""

    def __init__(self, storage: Path, name: str, *, bound: float = BOUND) -> None:
        self._folder, self._beats = paths.leases(storage, name), 0
        self.gone = ""  # how the storage is gone, once that is known
        self.ended = False  # whether `release` has ended the epoch, and no other driver
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
        except FileNotFoundError as error:  # also what /proc says, and a mount whose server has lost its folder
            refused = f"there can be no folder {error.filename}"
            raise UserError(f"the storage cannot be made: {refused}; choose another with --storage") from error
        self._lock = flock(paths.lock(storage, name))
        if self._lock is None:
            raise _refusal(storage, name, holder(storage, name))
        try:
            self.epoch, self.owner = _take(storage, name, bound), owner()
            self._path = _file(self._folder, self.epoch)
            about, content = _read(self._path)
            self.token, self._about = str(about.get("token", "")), content.partition(b"\n")[2]
            shared_files.remove(paths.stop_request(storage, name))
        except BaseException:
            os.close(self._lock)  # which also ends an epoch that was taken: whoever gets the lock next knows its holder to be gone
            raise

    def check(self) -> None:
        """Raise SupersededError after a takeover, and GoneError; costs a `stat` and a small read."""
        self.check_there()
        check_epoch(self._folder, self.epoch)

    def check_there(self) -> None:
        """Raise GoneError where the storage is gone, or another one; also after `release`."""
        try:
            check_token(self._folder, self.epoch, self.token)
        except GoneError as error:
            self.gone = str(error)
            raise

    def beat(self) -> None:
        """Change the lease file; watchers only compare its content."""
        self._beats += 1
        shared_files.overwrite(self._path, b"%012d\n%s" % (self._beats, self._about))

    def release(self) -> None:
        """End the epoch: fences off workers that are still alive and lets the next driver start at once. Idempotent."""
        if self._lock is None:
            return
        lock, self._lock = self._lock, None  # first, so that our heartbeat does not mistake the release for a takeover
        try:
            self.check_there()  # else it would end the epoch of a driver that has begun the storage anew
            _create(self._folder, self.epoch + 1, {"state": "released", "owner": self.owner})
            self.ended = True
        except (OSError, GoneError):
            pass  # taken over meanwhile, or the storage cannot be written: others see the heartbeat end
        finally:
            os.close(lock)

    @property
    def held(self) -> bool:
        """True until `release`, even after another driver has taken over."""
        return self._lock is not None


def check_epoch(folder: Path, epoch: int, token: str = "") -> None:
    """Raise SupersededError if `epoch` is over, and GoneError if it is not the one of the lease with this token."""
    if token:
        check_token(folder, epoch, token)
    next_epoch = _file(folder, epoch + 1)
    if shared_files.exists(next_epoch):
        about = _read(next_epoch)[0]
        raise SupersededError(f"epoch {epoch} is over: {about.get('state', 'held')} by {about.get('owner', 'another driver')}")


def check_token(folder: Path, epoch: int, token: str) -> None:
    """Raise GoneError if the file of `epoch` is gone, or is another lease's."""
    file = _file(folder, epoch)
    url, key = paths.remote(file)
    named = f"{url}/{key}" if url else str(file)
    try:
        content = shared_files.read(file)
    except FileNotFoundError:
        raise GoneError(f"{named} is gone: the storage was removed under this run") from None
    if token.encode() not in content:
        raise GoneError(f"{named} is another run's: the storage was removed and begun anew under this run")


def holder(storage: Path, name: str) -> dict[str, Any]:
    """The newest lease: `state` (held, released), `owner` (host:pid), `kernel`, `processes`, `since`, `epoch`; empty if there is none."""
    epoch = _newest(paths.leases(storage, name))
    return _read(_file(paths.leases(storage, name), epoch))[0] | {"epoch": epoch} if epoch else {}


def newest(storage: Path, name: str) -> tuple[dict[str, Any], bytes]:
    """The newest lease, parsed and as the bytes that each heartbeat changes; both empty if there is none."""
    folder = paths.leases(storage, name)
    return _read(_file(folder, epoch)) if (epoch := _newest(folder)) else ({}, b"")


def alive(storage: Path, name: str, patience: float = 2.5 * BEAT) -> bool:
    """Whether a live driver holds the lease: by its lock for a driver on this kernel, else by watching for a heartbeat."""
    about = holder(storage, name)
    if not about or about.get("state") == "released":
        return False
    if about.get("kernel") == lock_scope(storage, name):
        return locked(paths.lock(storage, name))
    path, until = _file(paths.leases(storage, name), about["epoch"]), time.monotonic() + patience
    before = _read(path)[1]
    while time.monotonic() < until:
        time.sleep(0.2)
        if _read(path)[1] != before:
            return True
    return False


def owner() -> str:
    """This process, as `host:pid`."""
    return f"{platform.node()}:{os.getpid()}"


def kernel() -> str:
    """The id of the running kernel: flock is reliable only among processes of one kernel."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return platform.node()


def processes() -> str:
    """Names the processes among which ours has its number: each container numbers its own."""
    try:
        return os.readlink("/proc/self/ns/pid")
    except OSError:
        return platform.node()


def lock_scope(storage: Path, name: str) -> str:
    """Names the processes among which the sweep's flock is reliable: those of one kernel and, on S3, of one local folder for the bucket."""
    if s3.bucket_of(storage) is None:
        return kernel()
    file = paths.lock(storage, name)
    file.parent.mkdir(parents=True, exist_ok=True)
    file.touch()
    return f"{kernel()} {file.stat().st_dev}:{file.stat().st_ino}"


def _take(storage: Path, name: str, bound: float) -> int:
    """Acquire and return a new epoch. A driver on another host counts as alive if its file changes; timestamps are never compared."""
    folder, scope = paths.leases(storage, name), lock_scope(storage, name)
    seen: tuple[int, bytes] | None = None
    began = 0.0
    while True:
        epoch = _newest(folder)
        about, content = _read(_file(folder, epoch)) if epoch else ({}, b"")
        # We hold the flock, so a holder on our own kernel is dead.
        free = not epoch or about.get("state") == "released" or about.get("kernel") == scope
        if seen is None and not free:
            print(printable(f"{_running(name, about)}; waiting {bound:g} s for a sign of life", lines=False), file=sys.stderr, flush=True)
            seen, began = (epoch, content), time.monotonic()
        elif not free and seen != (epoch, content):
            raise _refusal(storage, name, about)
        if free or time.monotonic() - began > bound:
            now = time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime())
            try:
                about = {"state": "held", "owner": owner(), "kernel": scope, "processes": processes(), "since": f"{now} UTC"}
                _create(folder, epoch + 1, about)
                if bucket := s3.bucket_of(folder):
                    bucket.check_conditions(paths.remote(_file(folder, epoch + 1))[1])
                return epoch + 1
            except FileExistsError:
                continue  # another host was faster
        time.sleep(min(0.2, bound))


def _create(folder: Path, epoch: int, about: dict[str, str]) -> None:
    """Create the file of an epoch: a heartbeat counter, then its owner. Raises FileExistsError if it exists."""
    about = about | {"token": uuid4().hex}  # identifies our own file if the answer to its creation was lost
    shared_files.create(_file(folder, epoch), b"%012d\n%s\n" % (0, json.dumps(about).encode()))


def _newest(folder: Path) -> int:
    """The highest epoch; 0 if there is none."""
    stems = (name.removesuffix(".json") for name in shared_files.names(folder))
    return max((int(stem) for stem in stems if stem.isdecimal()), default=0)


def _read(path: Path) -> tuple[dict[str, Any], bytes]:
    """A lease file, parsed and as bytes; both empty while it is being written."""
    try:
        content = shared_files.read(path)
        return json.loads(content.partition(b"\n")[2]), content
    except (FileNotFoundError, ValueError):
        return {}, b""


def _file(folder: Path, epoch: int) -> Path:
    return folder / f"{epoch:06d}.json"


def _refusal(storage: Path, name: str, about: dict[str, Any]) -> UserError:
    return UserError(f"{_running(name, about)}; wait for it, or `{command('stop', name, storage=storage)}`")


def _running(name: str, about: dict[str, Any]) -> str:
    return f"sweep {name!r} is being run by {about.get('owner', 'another driver')} since {about.get('since', 'just now')}"
