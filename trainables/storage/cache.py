"""The cache of a host: prepared tables, compiled kernels and copies of trials on S3. Nothing that others could have put there is used.

It is `$WINNOW_CACHE`, else `~/.cache/winnow`. Folders are made for their owner alone (0700); one of ours to which others may write is
closed to them before it is used.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path

from trainables import project
from trainables.errors import MachineError

OTHERS = stat.S_IWGRP | stat.S_IWOTH


def given() -> Path | None:
    """What `$WINNOW_CACHE` names; None where it is not set."""
    named = os.environ.get("WINNOW_CACHE")
    return project.expanded(named).absolute() if named else None


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
