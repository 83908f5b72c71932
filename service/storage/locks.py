"""File locks; reliable among processes of one kernel."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path


def flock(path: Path) -> int | None:
    """Lock a file; None if another process holds the lock. The kernel releases it when the process ends, even by SIGKILL."""
    file = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(file)
        return None
    return file
