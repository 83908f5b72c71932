"""Prepared tables on this host, and whether each still is what its name says.

Below $WINNOW_CACHE, else ~/.cache/winnow/tables:
    <digest>.npy              rows [N, O+A+1+O+1], named by the hash of the rows and the episodes' lengths
    <digest>.npz              mean, std, episode_returns, episode_lengths, action_extremes
    index/<key>.json          digest, and the hash of the .npz, of the dataset files with this path, size and modification time
    verified/<host>.<digest>.json   size, modification time and inode of both files when their hashes were last compared

Opening hashes nothing as long as the files are those that were verified; files that have changed since are hashed once, and a table that
is not what its name says is prepared again.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import platform
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from trainables.errors import UserError
from trainables.storage import cache
from trainables.storage.files import runs

FORMAT = 3  # raise it when rows would come out differently, or the files lie elsewhere
Arrays = dict[str, npt.NDArray[Any]]
Rows = npt.NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class Prepared:
    """The files of a table, opened: `rows` are mapped into memory, private to whoever writes to them."""

    digest: str
    rows: Rows
    arrays: Arrays


def load(key: str, verify: bool = False) -> Prepared | None:
    """The table that the index has for `key`; None where there is none, where a file is gone or torn, and where one was altered.

    With `verify` the files are hashed even if they are those that were verified before."""
    try:
        entry = json.loads((cache.tables() / "index" / f"{key}.json").read_bytes())
        digest = str(entry["digest"])
        rows, arrays = cache.tables() / f"{digest}.npy", cache.tables() / f"{digest}.npz"
        if not (cache.trusted(rows) and cache.trusted(arrays)):
            return None
        if verify or not _verified(digest):
            if _digest_of(rows, arrays) != digest or _hash_of(arrays) != entry["arrays"]:
                return None
            _note(digest)
        with np.load(arrays) as file:
            found = {name: file[name] for name in file.files}
        # Private copy-on-write: torch wants writable memory, the pages stay shared.
        return Prepared(digest, np.load(rows, mmap_mode="c"), found)
    except (OSError, ValueError, KeyError, TypeError, EOFError):
        return None


def prepare(key: str, about: dict[str, str], shape: tuple[int, int], fill: Callable[[Rows], Arrays]) -> None:
    """Write a table of `shape` and then its index entry with what is `about` it; `fill` writes the rows and returns the other arrays.

    Two processes may do this at once, each renames complete files into place. Room for the rows is taken before they are written, so a
    full disk is an OSError here and not a bus error later.
    """
    (cache.private(cache.tables()) / "index").mkdir(exist_ok=True, mode=0o700)
    _tidy()
    with _scratch(".npy") as path:
        rows = _with_room(path, shape)
        arrays = fill(rows)
        digest = _digest(rows, arrays["episode_lengths"])
        del rows  # unmapped, so that all of it is in the file
        with path.open("rb") as file:
            os.fsync(file.fileno())
        path.replace(cache.tables() / f"{digest}.npy")
    _write(cache.tables() / f"{digest}.npz", lambda file: np.savez(file, **arrays))  # type: ignore[arg-type]
    entry = about | {"digest": digest, "arrays": _hash_of(cache.tables() / f"{digest}.npz")}
    _write(cache.tables() / "index" / f"{key}.json", lambda file: file.write(json.dumps(entry).encode()))
    _note(digest)


def _with_room(path: Path, shape: tuple[int, int]) -> Rows:
    """A new file of rows, mapped, whose room on the disk is taken."""
    rows: Rows = np.lib.format.open_memmap(path, mode="w+", dtype=np.float32, shape=shape)
    with path.open("r+b") as file, contextlib.suppress(AttributeError):  # not every system has it
        os.posix_fallocate(file.fileno(), 0, path.stat().st_size)
    path.chmod(0o600)
    return rows


def _digest(rows: Rows, lengths: npt.NDArray[Any]) -> str:
    digest = hashlib.sha256(np.ascontiguousarray(rows).data)
    digest.update(np.asarray(lengths, np.int64).tobytes())
    return digest.hexdigest()


def _digest_of(rows: Path, arrays: Path) -> str:
    with np.load(arrays) as file:
        return _digest(np.load(rows, mmap_mode="r"), file["episode_lengths"])


def _hash_of(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _mark(digest: str) -> Path:
    return cache.tables() / "verified" / f"{platform.node()}.{digest}.json"


def _state(digest: str) -> list[list[int]]:
    """What changes when one of the two files is written."""
    seen = [(cache.tables() / f"{digest}{suffix}").stat() for suffix in (".npy", ".npz")]
    return [[about.st_size, about.st_mtime_ns, about.st_ctime_ns, about.st_ino] for about in seen]


def _verified(digest: str) -> bool:
    try:
        return cache.trusted(_mark(digest)) and json.loads(_mark(digest).read_bytes()) == _state(digest)
    except (OSError, ValueError):
        return False


def _note(digest: str) -> None:
    """Remember that the two files are what their name says; where nothing can be written they are hashed again at each opening."""
    with contextlib.suppress(OSError, UserError):
        cache.private(cache.tables() / "verified")
        state = json.dumps(_state(digest)).encode()
        _write(_mark(digest), lambda file: file.write(state))


def _write(path: Path, fill: Callable[[BinaryIO], Any]) -> None:
    """A file whole or not at all, for its owner alone."""
    with _scratch(path.suffix) as scratch:
        with os.fdopen(os.open(scratch, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            fill(file)
            file.flush()
            os.fsync(file.fileno())
        scratch.replace(path)


@contextlib.contextmanager
def _scratch(suffix: str) -> Iterator[Path]:
    """The name of a file that is this process's alone, and is gone at the end."""
    path = cache.tables() / f".{platform.node()}.{os.getpid()}.{uuid.uuid4().hex}{suffix}"
    try:
        yield path
    finally:
        path.unlink(missing_ok=True)


def _tidy() -> None:
    """Remove what processes of this host that were killed have left half written."""
    for left in cache.tables().glob(f".{platform.node()}.*"):
        pid = left.name.removeprefix(f".{platform.node()}.").partition(".")[0]
        if pid.isdigit() and not runs(int(pid)):
            left.unlink(missing_ok=True)
