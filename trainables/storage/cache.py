"""The cache of a host: prepared tables, compiled kernels and copies of trials on S3. Nothing that others could have put there is used.

It is `$WINNOW_CACHE`, else `~/.cache/winnow`. Folders are made for their owner alone (0700); one of ours to which others may write is
closed to them before it is used. Below a folder that is everybody's, such as /tmp or an emptyDir of Kubernetes, each user has one of their
own.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path

from trainables import project
from trainables.errors import MachineError

OTHERS = stat.S_IWGRP | stat.S_IWOTH


def given() -> Path | None:
    """What `$WINNOW_CACHE` names, or this user's folder below it; None where it is not set."""
    if not (named := os.environ.get("WINNOW_CACHE")):
        return None
    folder = project.expanded(named).absolute()
    return folder / f"winnow-{os.geteuid()}" if _everybodys(folder) else folder


def _everybodys(folder: Path) -> bool:
    """Whether anybody may write to a folder that is not ours to close."""
    try:
        about = folder.stat()
    except OSError:
        return False
    return bool(about.st_mode & stat.S_IWOTH) and (bool(about.st_mode & stat.S_ISVTX) or about.st_uid != os.geteuid())


def root() -> Path:
    """The folder of this host's cache; it may not exist yet."""
    return given() or project.expanded("~/.cache/winnow")


def tables() -> Path:
    """The folder of prepared tables; it may not exist yet."""
    return given() or root() / "tables"


def private(folder: Path) -> Path:
    """`folder`, made where it is absent, and closed to others where it is ours; raises MachineError where it is somebody else's.

    Raises OSError where it can neither be made nor closed."""
    if not folder.exists():
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    about = folder.stat()
    if not _ours(about):
        raise MachineError(f"the cache {folder} belongs to another user (id {about.st_uid}); set WINNOW_CACHE to a folder of your own")
    if about.st_mode & OTHERS:
        folder.chmod(about.st_mode & ~OTHERS)
    return folder


def trusted(file: Path) -> bool:
    """Whether a file is there, and only its owner, who is this user or root, can have written it."""
    try:
        about = file.stat()
    except OSError:
        return False
    return _ours(about) and not about.st_mode & OTHERS


def _ours(about: os.stat_result) -> bool:
    return about.st_uid in (os.geteuid(), 0)
