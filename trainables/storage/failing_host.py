"""How long a worker waits before it reports that its host has failed a stack that had not made one update.

A host that fails every stack within seconds is always free, so it gets the next one: one bad node of eight would fail nearly all trials
of a sweep. Its workers therefore keep their places for a while: 5 seconds at first, twice as long with each failure in a row on this
host, up to 10 minutes. The count is in this user's cache on this host. Failures during a wait are of the same round and do not count
again.
"""

from __future__ import annotations

import contextlib
import json
import platform
import time
from pathlib import Path

from trainables.errors import UserError
from trainables.storage import cache, files

FIRST, LONGEST = 5.0, 600.0  # seconds, after the first failure in a row and at most
UNCOUNTED = 60.0  # seconds, where the cache cannot be written, which may be what is wrong with the host


def wait() -> float:
    """Count one more failure; returns how many seconds the worker is to wait."""
    try:
        file, now = _file(), time.time()
        failures, since = _read(file)
        if failures and 0 <= now - since < _seconds(failures):
            return _seconds(failures)
        cache.private(file.parent)
        files.write(file, json.dumps([failures + 1, now]).encode(), mode=0o600)
    except (OSError, UserError):
        return UNCOUNTED
    return _seconds(failures + 1)


def works() -> None:
    """A stack has made updates here: the next failure is a first one."""
    with contextlib.suppress(OSError, UserError):
        _file().unlink(missing_ok=True)


def _seconds(failures: int) -> float:
    return min(LONGEST, FIRST * 2.0 ** min(failures - 1, 30))


def _file() -> Path:
    """Several hosts may have one cache, e.g. in a home that they share."""
    return cache.root() / f"failures-{platform.node()}.json"


def _read(file: Path) -> tuple[int, float]:
    """The failures in a row, and when the last one of them was counted; none where that is unknown."""
    try:
        failures, since = json.loads(file.read_bytes())
        return max(0, int(failures)), float(since)
    except (OSError, ValueError, TypeError):
        return 0, 0.0
