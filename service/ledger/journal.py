"""The journal of a sweep: a file that is appended to, or numbered parts on S3, each of which is created once, by one driver."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import Protocol

from service.ledger.errors import GoneError
from service.storage import paths, s3
from service.storage.s3 import Bucket
from trainables.errors import SupersededError, UserError
from trainables.storage.files import append, write


class Journal(Protocol):
    """Append-only storage for the lines of a sweep; `where` names it in messages."""

    where: str
    length: int  # what is safely written, in bytes or parts

    def content(self) -> bytes: ...
    def begin(self, valid: int) -> None:
        """Start writing after the first `valid` bytes; what follows them was torn by a crash."""

    def append(self, content: bytes) -> None:
        """Append durably, all or nothing. Raises UserError if that fails, SupersededError if another driver has written."""

    def close(self) -> None: ...


class FileJournal:
    def __init__(self, path: Path) -> None:
        self._path, self._file, self.length, self.where = path, -1, 0, str(path)

    def content(self) -> bytes:
        return self._path.read_bytes() if self._path.exists() else b""

    def begin(self, valid: int) -> None:
        self._file = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
        os.ftruncate(self._file, valid)
        self.length = valid

    def check_there(self) -> None:
        """Raise GoneError where the file was removed or replaced: what is appended would be lost."""
        if not (self._path.exists() and os.path.samestat(self._path.stat(), os.fstat(self._file))):
            raise GoneError(f"{self._path} is not the file that this run has opened: the storage was removed or replaced under it")

    def append(self, content: bytes) -> None:
        self.check_there()
        try:
            append(self._file, content)
            os.fsync(self._file)
        except BaseException as error:  # signals included
            with contextlib.suppress(OSError):  # else the next replay cuts off the torn line
                os.ftruncate(self._file, self.length)
            if isinstance(error, OSError):
                raise _unwritable(self.where, error) from error
            raise
        self.length += len(content)

    def close(self) -> None:
        os.close(self._file)


class ObjectJournal:
    """Parts never change, so this host keeps a copy of each."""

    def __init__(self, bucket: Bucket, folder: Path) -> None:
        self._bucket, self._folder, self.where = bucket, folder, f"{bucket.url}/{paths.remote(folder)[1]}"
        self.length = 0

    def content(self) -> bytes:
        """The content of all parts; fetches those that are not on this host yet."""
        keys = sorted(key for key in self._bucket.list(f"{paths.remote(self._folder)[1]}/") if key.endswith(".jsonl"))
        for key in keys:
            if not (path := self._folder / Path(key).name).exists():
                write(path, (self._bucket.get(key) or (b"", ""))[0])
        self.length = len(keys)
        return b"".join((self._folder / Path(key).name).read_bytes() for key in keys)

    def begin(self, valid: int) -> None:
        """Nothing to cut off: a part exists whole or not at all."""

    def append(self, content: bytes) -> None:
        path = self._folder / f"{self.length + 1:08d}.jsonl"
        try:
            self._bucket.create(paths.remote(path)[1], content)
        except FileExistsError:
            raise SupersededError(f"another driver has written part {self.length + 1} of {self.where}") from None
        except OSError as error:
            raise _unwritable(self.where, error) from error
        self.length += 1
        write(path, content)

    def close(self) -> None:
        """Nothing to close."""


def of(storage: Path, name: str) -> Journal:
    """The journal of a sweep."""
    if bucket := s3.bucket_of(storage):
        return ObjectJournal(bucket, paths.manifest_parts(storage, name))
    return FileJournal(paths.manifest(storage, name))


def sweep_names(storage: Path) -> list[str]:
    """The names of the sweeps that have a journal."""
    if bucket := s3.bucket_of(storage):
        keys = (key.split("/") for key in bucket.list("sweeps/"))
        return sorted({parts[1] for parts in keys if len(parts) == 4 and parts[2] == "manifest"})
    return sorted(path.parent.name for path in paths.sweeps(storage).glob("*/manifest.jsonl"))


def _unwritable(where: str, error: OSError) -> UserError:
    return UserError(f"{where} cannot be written ({error.strerror}); nothing is lost: fix that and run again")
