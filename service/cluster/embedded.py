"""What an embedded Ray has to itself: a folder that no other user can enter, a token, and its processes. Does not import Ray."""

from __future__ import annotations

import contextlib
import ctypes
import os
import resource
import shutil
import signal
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from service.planning import devices
from service.storage.locks import flock
from trainables.errors import UserError

PREFIX = "wr-"  # short: it counts towards the length of the names of sockets
LOCK = "lock"
# The longest name below the folder that is a socket's, and how long a socket's may be (sys/un.h).
SOCKET, LONGEST = "/r/session_2026-11-27_20-18-08_162141_4194304/sockets/plasma_store", 107
RANDOM = 8  # letters that mkdtemp adds
THREADS, THREADS_PER_WORKER = 250, 60  # of the head, its agents and this process, and of one worker: measured, with a margin
HEAD = "gcs_server"
PATIENCE, PAUSE = 2.0, 0.01  # seconds that killed processes may take to die, as one that waits for a disk does; between two looks
_SUBREAPER = 36  # PR_SET_CHILD_SUBREAPER


def check_possible() -> None:
    """Raise UserError where an embedded Ray cannot start here: its folder's name is too long, or too few processes are allowed."""
    _check_length(_parent())
    most, _ = resource.getrlimit(resource.RLIMIT_NPROC)
    if most == resource.RLIM_INFINITY or not os.geteuid():  # root is not limited
        return
    needed, running = THREADS + THREADS_PER_WORKER * devices.cores(), _threads_of_user()
    if most - running < needed:
        raise UserError(
            f"Ray needs some {needed} threads on this machine, and `ulimit -u` {most} leaves {max(0, most - running)}; raise it, "
            "or set RAY_ADDRESS to a cluster"
        )


@contextlib.contextmanager
def private_folder() -> Iterator[Path]:
    """A folder for Ray's sockets and logs that only this user can enter, removed at the end, with those that killed drivers have left.

    Ray opens its own folders to everybody. Raises UserError where the folder cannot be made."""
    parent = _parent()
    _check_length(parent)
    try:
        folder = Path(tempfile.mkdtemp(prefix=PREFIX, dir=parent))
    except OSError as error:
        raise UserError(f"{_named()} {parent} cannot hold Ray's files ({error.strerror}); set RAY_TMPDIR to another folder") from None
    lock = flock(folder / LOCK)
    _tidy(parent)
    try:
        yield folder / "r"
    finally:
        remove(folder)
        if lock is not None:
            os.close(lock)


def remove(folder: Path) -> None:
    """Remove an embedded Ray's private folder."""
    shutil.rmtree(folder, ignore_errors=True)


def adopt() -> None:
    """From now on this process is the parent of what Ray's processes leave behind when they die, so that `kill_all` reaches it."""
    ctypes.CDLL(None).prctl(_SUBREAPER, 1, 0, 0, 0)


def kill_all() -> None:
    """SIGKILL every process below this one, the head first, and wait until they are dead, but for those that the kernel holds.

    From the head, Ray in this process would hear that its node is lost as soon as an agent is, and end us in mid-sentence."""
    until = time.monotonic() + PATIENCE
    while (below := [pid for pid in descendants(os.getpid()) if _alive(pid)]) and time.monotonic() < until:
        for pid in sorted(below, key=lambda pid: not _name(pid).startswith(HEAD)):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(PAUSE)


def descendants(root: int) -> list[int]:
    """The processes below `root`."""
    found, left = [], [root]
    while left:
        below = _children(left.pop())
        found += below
        left += below
    return found


def _children(pid: int) -> list[int]:
    children: list[int] = []
    for tasks in _listed(Path(f"/proc/{pid}/task")):
        with contextlib.suppress(OSError):
            children += map(int, (tasks / "children").read_text().split())
    return children


def _listed(folder: Path) -> list[Path]:
    try:
        return list(folder.iterdir())
    except OSError:
        return []


def _name(pid: int) -> str:
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/comm").read_text()
    return ""


def _alive(pid: int) -> bool:
    """Whether a process still runs; one that is dead and not waited for does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


def _parent() -> Path:
    return Path(os.environ.get("RAY_TMPDIR") or tempfile.gettempdir()).absolute()


def _named() -> str:
    """What names the folder for temporary files."""
    return next((name for name in ("RAY_TMPDIR", "TMPDIR") if os.environ.get(name)), "the temporary folder")


def _check_length(parent: Path) -> None:
    room = LONGEST - len(f"/{PREFIX}") - RANDOM - len(SOCKET)
    if (length := len(os.fsencode(parent))) > room:
        raise UserError(
            f"{_named()} {parent} is {length} letters long, and Ray's sockets fit into a folder of at most {room}; "
            "set RAY_TMPDIR to a shorter one, such as /tmp"
        )


def _threads_of_user() -> int:
    """The threads of all processes of this user, which is what `ulimit -u` counts."""
    count = 0
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if folder.stat().st_uid == os.getuid():
                count += len(os.listdir(folder / "task"))
    return count


def _tidy(parent: Path) -> None:
    """Remove the folders of drivers that were killed: nobody holds their locks."""
    for folder in parent.glob(f"{PREFIX}*"):
        with contextlib.suppress(OSError):
            if folder.stat().st_uid == os.geteuid() and (folder / LOCK).exists() and (lock := flock(folder / LOCK)) is not None:
                remove(folder)
                os.close(lock)
