"""What a storage must promise so that two drivers cannot write at the same time, and whether it keeps it."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable
from pathlib import Path
from uuid import uuid4

from service.storage import s3


def _exclusive(folder: Path) -> bool:
    """A file is made once: the lease."""
    flags = os.O_CREAT | os.O_EXCL | os.O_WRONLY
    os.close(os.open(folder / "once", flags))
    try:
        os.close(os.open(folder / "once", flags))
    except FileExistsError:
        return True
    return False


def _locked(folder: Path) -> bool:
    """A lock keeps others out: the drivers of a host."""
    with (folder / "lock").open("w") as first, (folder / "lock").open("w") as second:
        fcntl.flock(first, fcntl.LOCK_EX)
        try:
            fcntl.flock(second, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


def _renamed(folder: Path) -> bool:
    """A file takes another one's place: checkpoints."""
    (folder / "old").write_text("old")
    (folder / "new").write_text("new")
    os.replace(folder / "new", folder / "old")
    return (folder / "old").read_text() == "new" and not (folder / "new").exists()


PROMISES: dict[str, Callable[[Path], bool]] = {"O_EXCL": _exclusive, "flock": _locked, "rename": _renamed}


def broken(folder: Path) -> list[str]:
    """The promises that the file system of `folder` does not keep; writes into the folder."""
    found = []
    for name, holds in PROMISES.items():
        try:
            kept = holds(folder)
        except OSError:  # e.g. flock on a mount without locks
            kept = False
        if not kept:
            found.append(name)
    return found


def prove(bucket: s3.Bucket) -> None:
    """Raises UserError or OSError where the bucket is not as the service needs it."""
    key = f"doctor/{uuid4().hex}"
    bucket.create(key, b"doctor", patience=s3.FIRST)
    try:
        bucket.prove_conditions(key)
    finally:
        bucket.delete([key])
