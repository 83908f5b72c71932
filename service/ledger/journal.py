"""Where a sweep's journal lies: a file that is appended to, or on S3 numbered parts, each of which is made once, by one driver."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import Protocol

from service.storage import paths, s3
from service.storage.s3 import Bucket
from trainables.errors import SupersededError, UserError
from trainables.storage.files import append, write


class Journal(Protocol):
    """`where` is for people."""

    where: str
    length: int  # of what has been written to last, in bytes or parts

    def content(self) -> bytes: ...
    def begin(self, good: int) -> None:
        """Write after the first `good` bytes: what follows them was torn by a crash."""

    def append(self, content: bytes) -> None:
        """All of it or nothing, to last; raises UserError where it cannot be, SupersededError where another driver has written."""

    def close(self) -> None: ...


class FileJournal:
    def __init__(self, path: Path) -> None:
        self._path, self._file, self.length, self.where = path, -1, 0, str(path)

    def content(self) -> bytes:
        return self._path.read_bytes() if self._path.exists() else b""

    def begin(self, good: int) -> None:
        self._file = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        os.ftruncate(self._file, good)
        self.length = good

    def append(self, content: bytes) -> None:
        try:
            append(self._file, content)
            os.fsync(self._file)
        except BaseException as error:  # a signal, too: all of it or nothing
            with contextlib.suppress(OSError):  # what is left of a torn line the next replay cuts off
                os.ftruncate(self._file, self.length)
            if isinstance(error, OSError):
                raise cannot(self.where, error) from error
            raise
        self.length += len(content)

    def close(self) -> None:
        os.close(self._file)


class ObjectJournal:
    """The parts are kept on this host as well, since they never change."""

    def __init__(self, bucket: Bucket, folder: Path) -> None:
        self._bucket, self._folder, self.where = bucket, folder, f"{bucket.url}/{paths.remote(folder)[1]}"
        self.length = 0

    def content(self) -> bytes:
        """All parts; those that are not here yet are fetched."""
        there = sorted(key for key in self._bucket.list(f"{paths.remote(self._folder)[1]}/") if key.endswith(".jsonl"))
        for key in there:
            if not (path := self._folder / Path(key).name).exists():
                write(path, (self._bucket.get(key) or (b"", ""))[0])
        self.length = len(there)
        return b"".join((self._folder / Path(key).name).read_bytes() for key in there)

    def begin(self, good: int) -> None:
        """A part is whole or not there."""

    def append(self, content: bytes) -> None:
        path = self._folder / f"{self.length + 1:08d}.jsonl"
        try:
            self._bucket.create(paths.remote(path)[1], content)
        except FileExistsError:
            raise SupersededError(f"another driver has written part {self.length + 1} of {self.where}") from None
        except OSError as error:
            raise cannot(self.where, error) from error
        self.length += 1
        write(path, content)

    def close(self) -> None:
        """Nothing is open."""


def of(storage: Path, name: str) -> Journal:
    """The journal of a sweep."""
    if bucket := s3.of(storage):
        return ObjectJournal(bucket, paths.manifest_parts(storage, name))
    return FileJournal(paths.manifest(storage, name))


def names(storage: Path) -> list[str]:
    """The sweeps that have a journal."""
    if bucket := s3.of(storage):
        keys = (key.split("/") for key in bucket.list("sweeps/"))
        return sorted({parts[1] for parts in keys if len(parts) == 4 and parts[2] == "manifest"})
    return sorted(path.parent.name for path in paths.sweeps(storage).glob("*/manifest.jsonl"))


def cannot(where: str, error: OSError) -> UserError:
    return UserError(f"{where} cannot be written ({error.strerror}); nothing is lost, mend that and run again")
