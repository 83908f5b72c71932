"""The journal of a sweep: a file that is appended to, or numbered parts on S3, each of which is created once, by one driver."""

from __future__ import annotations

import contextlib
import errno
import os
import re
from functools import partial
from pathlib import Path
from typing import Protocol

from service.ledger.errors import GoneError
from service.storage import paths, s3
from service.storage.s3 import THREADS, Bucket
from service.storage.trial_objects import TRIES, in_parallel
from trainables.errors import SupersededError, UserError
from trainables.storage.files import append, tidy_up, write

SWEEPS = "sweeps/"  # what the keys of all journals on S3 begin with
PAGE = 1000  # objects that S3 lists in one answer


class Journal(Protocol):
    """Append-only storage for the lines of a sweep; `where` names it in messages."""

    where: str
    length: int  # what is safely written: bytes, or the number of the last part

    def content(self) -> bytes: ...
    def begin(self, valid: int) -> None:
        """Start writing after the first `valid` bytes; what follows them was torn by a crash."""

    def append(self, content: bytes) -> None:
        """Append durably, all or nothing. Raises UserError if that fails, SupersededError if another driver has written."""

    def close(self) -> None: ...


class FileJournal:
    def __init__(self, path: Path) -> None:
        self._path, self._file, self.length, self.where = path, -1, 0, str(path)
        self._read = 0  # bytes that were there when it was read last

    def content(self) -> bytes:
        content = self._path.read_bytes() if self._path.exists() else b""
        self._read = len(content)
        return content

    def begin(self, valid: int) -> None:
        self._file = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
        if valid < self._read:  # only where something torn was read: what has come since may be a later driver's
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
    """Parts never change, so this host keeps a copy of each; named with its version, as after `forget` others come under the same names."""

    def __init__(self, bucket: Bucket, folder: Path) -> None:
        self._bucket, self._folder, self.where = bucket, folder, f"{bucket.url}/{paths.remote(folder)[1]}"
        self.length = 0

    def content(self) -> bytes:
        """The content of all parts; fetches those that are not on this host yet."""
        for _ in range(TRIES):
            with contextlib.suppress(FileNotFoundError):  # `forget` removes parts after they were listed
                return self._content()
        raise OSError(errno.EIO, "its parts keep going away while they are read", self.where)

    def _content(self) -> bytes:
        listed = self._bucket.list(f"{paths.remote(self._folder)[1]}/")
        copies = {key: self._copy(key, listed[key]) for key in sorted(listed) if key.endswith(".jsonl")}
        if missing := [key for key, copy in copies.items() if not copy.exists()]:
            tidy_up(self._folder)
            copies |= zip(missing, in_parallel(self._fetch, missing), strict=True)
        self.length = int(Path([*copies][-1]).stem) if copies else 0  # the first ones may be gone: a `forget` was killed
        return b"".join(copy.read_bytes() for copy in copies.values())

    def _fetch(self, key: str) -> Path:
        """Copy a part to this host, in the version that is there now."""
        content, version = self._bucket.get(key)
        write(copy := self._copy(key, version), content, tidy=False)
        return copy

    def _copy(self, key: str, version: str) -> Path:
        return self._folder / f"{Path(key).stem}.{re.sub(r'[^0-9A-Za-z]', '', version)}.jsonl"

    def begin(self, valid: int) -> None:
        """Nothing to cut off: a part exists whole or not at all."""

    def append(self, content: bytes) -> None:
        key = paths.remote(self._folder / f"{self.length + 1:08d}.jsonl")[1]
        try:
            version = self._bucket.create(key, content)
        except FileExistsError:
            raise SupersededError(f"another driver has written part {self.length + 1} of {self.where}") from None
        except OSError as error:
            raise _unwritable(self.where, error) from error
        self.length += 1
        with contextlib.suppress(OSError):  # the part is written: without its copy this host fetches it
            write(self._copy(key, version), content, tidy=False)

    def close(self) -> None:
        """Nothing to close."""


def of(storage: Path, name: str) -> Journal:
    """The journal of a sweep."""
    if bucket := s3.bucket_of(storage):
        return ObjectJournal(bucket, paths.manifest_parts(storage, name))
    return FileJournal(paths.manifest(storage, name))


def sweep_names(storage: Path) -> list[str]:
    """The names of the sweeps that have a journal."""
    return list(versions(storage))


def versions(storage: Path) -> dict[str, object]:
    """The sweeps that have a journal, by name, each with something that is another once the journal has changed."""
    return Versions(storage).look()


class Versions:
    """`versions` of a storage, for one who looks again and again: on S3 it lists only parts that are new."""

    def __init__(self, storage: Path) -> None:
        self._storage, self._bucket = storage, s3.bucket_of(storage)
        self._known: dict[str, dict[str, str]] = {}  # the parts of each journal, with their versions, in their order
        self._pages = 0.0  # how many requests a list of everything took last

    def look(self) -> dict[str, object]:
        if self._bucket is None:
            return _versions_of_files(self._storage)
        if 1 + len(self._known) < THREADS * self._pages:  # a page of a thousand takes longer than so many short answers at once
            names = sorted(self._bucket.folders(SWEEPS), key=lambda name: f"{name}/")  # as their keys are sorted
            found = dict(zip(names, in_parallel(partial(self._look_at, self._bucket), names), strict=True))
        else:
            found = self._list_all(self._bucket)
        self._known = {name: parts for name, parts in found.items() if parts}
        return dict(self._known)

    def _list_all(self, bucket: Bucket) -> dict[str, dict[str, str]]:
        listed, found = bucket.list(SWEEPS), dict[str, dict[str, str]]()
        self._pages = len(listed) / PAGE
        for key, version in sorted(listed.items()):
            names = key.split("/")
            if len(names) == 4 and names[2] == "manifest":
                found.setdefault(names[1], {})[names[3]] = version
        return found

    def _look_at(self, bucket: Bucket, name: str) -> dict[str, str]:
        """The parts of a journal. They are created one after another and removed from the first one on, so that those before the last one
        known are as they were as long as that one is; else the journal was forgotten, and perhaps begun anew."""
        known, folder = self._known.get(name, {}), f"{SWEEPS}{name}/manifest/"
        before, last = ["", *known][-2:] if known else ("", "")
        found = self._parts(bucket, folder, before)
        if last and found.get(last) != known[last]:
            return self._parts(bucket, folder, "")
        return known | found if found.keys() - known.keys() else known

    @staticmethod
    def _parts(bucket: Bucket, folder: str, before: str) -> dict[str, str]:
        listed = bucket.list(folder, after=folder + before if before else "")
        return {part: version for key, version in sorted(listed.items()) if "/" not in (part := key.removeprefix(folder))}


def _versions_of_files(storage: Path) -> dict[str, object]:
    found: dict[str, object] = {}
    for path in sorted(paths.sweeps(storage).glob("*/manifest.jsonl")):
        with contextlib.suppress(FileNotFoundError):  # forgotten meanwhile
            about = path.stat()
            found[path.parent.name] = about.st_ino, about.st_size, about.st_mtime_ns
    return found


def _unwritable(where: str, error: OSError) -> UserError:
    return UserError(f"{where} cannot be written ({error.strerror}); nothing is lost: fix that and run again")
