"""A storage that a group shares: a folder that is setgid and that its group may write to, made so by whoever sets it up."""

from __future__ import annotations

import os
import stat
from pathlib import Path

SHARED = stat.S_ISGID | stat.S_IRWXG  # what the mode of such a folder has
UMASK = 0o007  # the group may read and write what is made, others may not


def follow(storage: Path) -> None:
    """From here on, make files and folders for the group where the storage is shared; elsewhere the umask stays what it is."""
    if _shared(storage):
        os.umask(UMASK)


def open_to_group(file: Path) -> None:
    """Let the group write to a file that a library has made with a mode of its own, where the folder is shared."""
    if _shared(file.parent):
        file.chmod(file.stat().st_mode | stat.S_IRGRP | stat.S_IWGRP)


def _shared(folder: Path) -> bool:
    try:
        return folder.stat().st_mode & SHARED == SHARED
    except OSError:
        return False
