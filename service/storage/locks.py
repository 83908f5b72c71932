"""File locks; reliable among processes of one kernel."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path


def flock(path: Path) -> int | None:
    """Lock a file; None if another process holds the lock. The kernel releases it when the process ends, even by SIGKILL."""
    file = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(file)
        return None
    return file


def locked(path: Path) -> bool:
    """Whether a process holds the lock. Makes no file, and needs no permission to write."""
    try:
        file = os.open(path, os.O_RDONLY)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(file)
    return False
