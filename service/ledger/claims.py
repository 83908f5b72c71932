"""Claims: which worker may write the files of a trial, in a shared folder or on S3."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import re
import shutil
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol
from uuid import uuid4

from service.ledger import lease
from service.ledger.lease import check_epoch
from service.storage import paths, s3, trial_objects
from service.storage.locks import flock
from service.storage.s3 import Bucket
from service.storage.trial_objects import Head
from trainables.errors import SupersededError
from trainables.storage.files import write


class Claim(Protocol):
    """One worker's right to write a stack's trials into the folder `storage`."""

    @property
    def storage(self) -> Path: ...
    def check(self) -> None:
        """Raise SupersededError if the epoch is over or another worker has claimed a trial."""

    def commit(self) -> None:
        """Publish what was written since the last commit."""

    def close(self) -> None: ...


@dataclass(frozen=True)
class Permit:
    """A driver's permission for its workers to write during its epoch; a worker turns it into a claim on the trials of its stack.

    `token` is that of the driver's lease; empty where it does not matter whether the storage is still the same.
    """

    storage: Path
    name: str
    epoch: int
    token: str = ""

    def claim(self, keys: Iterable[str]) -> Claim:
        """Make the caller the only writer of the trials' files; fences off an older worker that is still alive."""
        if bucket := s3.bucket_of(self.storage):
            return BucketClaim(bucket, self.name, self.epoch, keys, self.token)
        check_epoch(paths.leases(self.storage, self.name), self.epoch, self.token)
        token = f"{self.name} {self.epoch} {lease.owner()} {uuid4().hex}".encode()
        files = tuple(paths.attempt(self.storage, key) for key in keys)
        for file in files:
            write(file, token, below=self.storage)
        return FolderClaim(self.storage, paths.leases(self.storage, self.name), self.epoch, files, token, self.token)


@dataclass(frozen=True)
class FolderClaim:
    """A claim in a shared folder: each trial's `attempt` file holds the token of the newest claim."""

    storage: Path
    leases: Path
    epoch: int
    files: tuple[Path, ...]
    token: bytes
    lease: str = ""  # the token of the driver's lease

    def check(self) -> None:
        """Costs a `stat` and K + 1 small reads."""
        check_epoch(self.leases, self.epoch, self.lease)
        for file in self.files:
            token = file.read_bytes() if file.exists() else b"nobody"
            if token != self.token:
                raise SupersededError(f"{file.parent.name} is trained by {_holder(token.decode(errors='replace'))}")

    def commit(self) -> None:
        """Nothing to do: workers write into the storage itself."""

    def close(self) -> None:
        """Nothing to release."""


class BucketClaim:
    """A claim on S3: the worker trains in a private folder and uploads it with each commit; a trial's head names the newest claim."""

    def __init__(self, bucket: Bucket, name: str, epoch: int, keys: Iterable[str], token: str = "") -> None:
        """Claim the trials, which fences off older workers, and download their newest state. Raises SupersededError.

        `token` is that of the driver's lease."""
        self._bucket, self._epoch, self._lease = bucket, epoch, token
        home = paths.root(bucket.url)
        self._leases = paths.leases(home, name)
        check_epoch(self._leases, epoch, token)
        self._token = uuid4().hex
        self._owner = f"{name} {epoch} {lease.owner()} {self._token}"
        self._lock, self.storage = _private_folder(paths.attempts(home), self._token)
        try:
            self._heads: dict[str, Head] = dict(trial_objects.in_parallel(lambda key: (key, self._claim(key)), keys))
        except BaseException:
            self.close()
            raise

    def check(self) -> None:
        """Nothing to check: between commits nothing is written that others could see."""

    def commit(self) -> None:
        """Upload each trial's changed files, then replace its head. Raises SupersededError, and OSError if S3 does not answer."""
        check_epoch(self._leases, self._epoch, self._lease)
        self._heads |= dict(trial_objects.in_parallel(lambda key: (key, self._push(key)), self._heads))

    def close(self) -> None:
        shutil.rmtree(self.storage, ignore_errors=True)
        os.close(self._lock)
        self.storage.with_suffix(".lock").unlink(missing_ok=True)

    def _claim(self, key: str) -> Head:
        while True:
            # Listed before the claim: objects that no head names belong to workers that can no longer commit.
            uploaded = set(self._bucket.list(f"trials/{key}/"))
            before = trial_objects.read_head(self._bucket, key)
            try:
                head = self._replace(key, before, before.files)
                break
            except FileExistsError:
                continue  # another worker is claiming it at the same moment; the last one wins
        trial_objects.fetch(self._bucket, head.files, paths.trial(self.storage, key), key)
        self._bucket.delete(uploaded - head.objects)
        return head

    def _push(self, key: str) -> Head:
        before, folder = self._heads[key], paths.trial(self.storage, key)
        files: dict[str, tuple[str, str]] = {}
        for path in sorted(folder.rglob("*")):
            name = path.relative_to(folder).as_posix()
            if not re.fullmatch(trial_objects.NAMES, name):
                continue
            content = path.read_bytes()
            digest = trial_objects.digest_of(content)
            if before.files.get(name, ("", ""))[1] == digest:
                files[name] = before.files[name]
                continue
            files[name] = f"trials/{key}/{name}.{self._token[:12]}.{digest[:12]}", digest
            self._bucket.put(files[name][0], content)
        try:
            head = self._replace(key, before, files)
        except FileExistsError:
            winner = trial_objects.read_head(self._bucket, key).attempt
            raise SupersededError(f"{key} is trained by {_holder(winner)}") from None
        with contextlib.suppress(OSError):  # else the next claim deletes them
            self._bucket.delete(before.objects - head.objects)
        return head

    def _replace(self, key: str, before: Head, files: Mapping[str, tuple[str, str]]) -> Head:
        """Replace the head `before` by one of ours. Raises FileExistsError if `before` is no longer the newest."""
        content = json.dumps({"attempt": self._owner, "files": files}, indent=1).encode()
        name = trial_objects.head_name(key)
        etag = self._bucket.replace(name, content, before.etag) if before.etag else self._bucket.create(name, content)
        return Head(self._owner, files, etag)


def _holder(token: str) -> str:
    """Sweep, epoch and `host:pid` of a token, without its random part."""
    return " ".join(token.split()[:3])


def _private_folder(folder: Path, token: str) -> tuple[int, Path]:
    """A new folder, and the lock that shows that its owner is alive; removes the folders of dead owners."""
    folder.mkdir(parents=True, exist_ok=True)
    for path in folder.glob("*.lock"):
        if (lock := flock(path)) is not None:
            shutil.rmtree(path.with_suffix(""), ignore_errors=True)
            path.unlink(missing_ok=True)
            os.close(lock)
    lock = flock(folder / f"{token}.lock")
    if lock is None:
        raise OSError(errno.EAGAIN, "another process is cleaning it up; try again", str(folder))
    (folder / token).mkdir()
    return lock, folder / token
