"""Files that a crash leaves whole or absent, with no temporary files left behind."""

from __future__ import annotations

import os
import re
from pathlib import Path


def make(folder: Path, below: Path | None = None) -> None:
    """Make a folder and what is missing above it; with `below`, nothing but what is below that.

    Raises FileNotFoundError where `below` is not there, so that nobody who is late makes a removed storage again."""
    if below is None:
        folder.mkdir(parents=True, exist_ok=True)
        return
    for path in reversed([folder, *folder.parents][: len(folder.relative_to(below).parts)]):
        path.mkdir(exist_ok=True)


def write(
    path: Path, content: bytes, *, flushed: bool = True, mode: int | None = None, below: Path | None = None, tidy: bool = True
) -> None:
    """Replace `path` by a file with `content`, on disk when this returns: temporary file, fsync, rename, fsync of the folder.

    Without `flushed` it is whole or absent as long as the machine does not crash, which may leave it empty. `mode`: of the
    file, whatever the umask. `below` as for `make`. Without `tidy`, for folders of thousands of files, which each write would list,
    what killed writers have left stays until `tidy_up`."""
    make(path.parent, below)
    if tidy:
        _tidy(path)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with open(temporary, "wb") as file:
            if mode is not None:
                os.fchmod(file.fileno(), mode)
            file.write(content)
            file.flush()
            if flushed:
                os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    if flushed:
        sync_folder(path.parent)


def append(file: int, content: bytes) -> None:
    """Append to an open file, all or nothing: a write that a full disk cut short is undone, or the next line would be joined to it."""
    start = os.lseek(file, 0, os.SEEK_END)
    try:
        while content:
            content = content[os.write(file, content) :]
    except OSError:
        os.ftruncate(file, start)
        raise


def sync_folder(folder: Path) -> None:
    """Flush the names in a folder to disk."""
    opened = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(opened)
    finally:
        os.close(opened)


def _tidy(path: Path) -> None:
    """Remove the temporary files that killed writers of `path` have left, and no file of anybody else."""
    _remove_left(path.parent, re.compile(re.escape(f".{path.name}.") + r"([1-9][0-9]{0,8})\.tmp"))


def tidy_up(folder: Path) -> None:
    """Remove the temporary files that killed writers have left in a folder in which nobody else writes."""
    if folder.is_dir():
        _remove_left(folder, re.compile(r"\..+\.([1-9][0-9]{0,8})\.tmp"))


def _remove_left(folder: Path, ours: re.Pattern[str]) -> None:
    for left in folder.iterdir():
        if (found := ours.fullmatch(left.name)) and not runs(int(found[1])) and left.is_file():
            left.unlink(missing_ok=True)


def runs(pid: int) -> bool:
    """Whether a process of this host has that number."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
