"""Locks among the processes of one kernel."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path


def flock(path: Path) -> int | None:
    """A lock that the kernel drops with the process, so a killed driver never leaves one behind; None where another has it."""
    lock = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(lock)
        return None
    return lock
