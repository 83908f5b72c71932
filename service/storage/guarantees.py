"""What a storage must guarantee so that two drivers cannot write at the same time, and tests of it."""

from __future__ import annotations

import errno
import fcntl
import os
from collections.abc import Callable
from pathlib import Path
from uuid import uuid4

from service.storage import s3


def _exclusive(folder: Path) -> bool:
    """Only one caller can create a file; the lease relies on it."""
    flags = os.O_CREAT | os.O_EXCL | os.O_WRONLY
    os.close(os.open(folder / "once", flags))
    try:
        os.close(os.open(folder / "once", flags))
    except FileExistsError:
        return True
    return False


def _locked(folder: Path) -> bool:
    """A lock excludes others; drivers of one host rely on it."""
    with (folder / "lock").open("w") as first, (folder / "lock").open("w") as second:
        fcntl.flock(first, fcntl.LOCK_EX)
        try:
            fcntl.flock(second, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


def _renamed(folder: Path) -> bool:
    """Renaming replaces a file; checkpoints rely on it."""
    (folder / "old").write_text("old")
    (folder / "new").write_text("new")
    os.replace(folder / "new", folder / "old")
    return (folder / "old").read_text() == "new" and not (folder / "new").exists()


GUARANTEES: dict[str, Callable[[Path], bool]] = {"O_EXCL": _exclusive, "flock": _locked, "rename": _renamed}


def missing_guarantees(folder: Path) -> list[str]:
    """The guarantees that the file system of `folder` does not give; writes into the folder. Raises OSError where it is full."""
    missing = []
    for name, holds in GUARANTEES.items():
        try:
            given = holds(folder)
        except OSError as error:  # e.g. flock on a mount without locks
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                raise
            given = False
        if not given:
            missing.append(name)
    return missing


def check_bucket(bucket: s3.Bucket) -> None:
    """Test a bucket; raises UserError or OSError if it does not give what the service needs."""
    key = f"doctor/{uuid4().hex}"
    bucket.create(key, b"doctor", patience=s3.FIRST_PATIENCE)
    try:
        bucket.check_conditions(key)
    finally:
        bucket.delete([key])
