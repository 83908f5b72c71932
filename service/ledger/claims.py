"""Claims: which worker may write a trial's files, in a folder that all hosts share or on S3."""

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
        """Raise SupersededError where the epoch is over or another worker has claimed a trial."""

    def commit(self) -> None:
        """Publish what was written since the last commit."""

    def close(self) -> None: ...


@dataclass(frozen=True)
class Permit:
    """What a driver gives its workers: the right to write in its epoch. `claim` makes it one worker's for a stack's trials."""

    storage: Path
    name: str
    epoch: int

    def claim(self, keys: Iterable[str]) -> Claim:
        """From now on this attempt alone may write the trials' files; an older one that still lives is fenced off."""
        if bucket := s3.of(self.storage):
            return BucketClaim(bucket, self.name, self.epoch, keys)
        check_epoch(paths.leases(self.storage, self.name), self.epoch)
        token = f"{self.name} {self.epoch} {lease.owner()} {uuid4().hex}".encode()
        files = tuple(paths.attempt(self.storage, key) for key in keys)
        for file in files:
            write(file, token)
        return FolderClaim(self.storage, paths.leases(self.storage, self.name), self.epoch, files, token)


@dataclass(frozen=True)
class FolderClaim:
    """One attempt's right to write into `storage`."""

    storage: Path
    folder: Path
    epoch: int
    files: tuple[Path, ...]
    token: bytes

    def check(self) -> None:
        """Raise SupersededError where the epoch is over or another attempt has the trial: a `stat` and K small reads."""
        check_epoch(self.folder, self.epoch)
        for file in self.files:
            found = file.read_bytes() if file.exists() else b"nobody"
            if found != self.token:
                raise SupersededError(f"{file.parent.name} is trained by {' '.join(found.decode(errors='replace').split()[:3])}")

    def commit(self) -> None:
        """What is written is where it belongs."""

    def close(self) -> None:
        """Nothing is held."""


class BucketClaim:
    """One worker's right to write a stack's trials, from its claim on; `storage` is a folder that is nobody else's."""

    def __init__(self, bucket: Bucket, name: str, epoch: int, keys: Iterable[str]) -> None:
        """Claim the trials, which fences off older attempts, and fetch their newest state. Raises SupersededError."""
        self._bucket, self._epoch = bucket, epoch
        home = paths.root(bucket.url)
        self._leases = paths.leases(home, name)
        check_epoch(self._leases, epoch)
        self._token = uuid4().hex
        self._owner = f"{name} {epoch} {lease.owner()} {self._token}"
        self._lock, self.storage = _own_folder(paths.attempts(home), self._token)
        try:
            self._heads: dict[str, Head] = dict(trial_objects.each(lambda key: (key, self._claim(key)), keys))
        except BaseException:
            self.close()
            raise

    def check(self) -> None:
        """Between commits nothing is written that anybody else could see."""

    def commit(self) -> None:
        """Upload what has changed of each trial and put its head in place. Raises SupersededError, and OSError where S3 is away."""
        check_epoch(self._leases, self._epoch)
        self._heads |= dict(trial_objects.each(lambda key: (key, self._push(key)), self._heads))

    def close(self) -> None:
        shutil.rmtree(self.storage, ignore_errors=True)
        os.close(self._lock)
        self.storage.with_suffix(".lock").unlink(missing_ok=True)

    def _claim(self, key: str) -> Head:
        while True:
            # Listed before the claim: what is there now and in no head belongs to attempts that can commit no more.
            left = set(self._bucket.list(f"trials/{key}/"))
            before = trial_objects.read_head(self._bucket, key)
            try:
                head = self._replace(key, before, before.files)
                break
            except FileExistsError:
                continue  # another attempt claims it at this moment: the last one has it
        trial_objects.fetch(self._bucket, head.files, paths.trial(self.storage, key), key)
        self._bucket.delete(left - head.objects)
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
            raise SupersededError(
                f"{key} is trained by {' '.join(trial_objects.read_head(self._bucket, key).attempt.split()[:3])}"
            ) from None
        with contextlib.suppress(OSError):  # the next attempt's claim does it, too
            self._bucket.delete(before.objects - head.objects)
        return head

    def _replace(self, key: str, before: Head, files: Mapping[str, tuple[str, str]]) -> Head:
        """Put a head of ours in the place of `before`; raises FileExistsError where that is not the newest."""
        content = json.dumps({"attempt": self._owner, "files": files}, indent=1).encode()
        at = trial_objects.address(key)
        etag = self._bucket.replace(at, content, before.etag) if before.etag else self._bucket.create(at, content)
        return Head(self._owner, files, etag)


def _own_folder(folder: Path, token: str) -> tuple[int, Path]:
    """A new folder with the lock that says that its owner lives; those of the dead are removed."""
    folder.mkdir(parents=True, exist_ok=True)
    for left in folder.glob("*.lock"):
        if (lock := flock(left)) is not None:
            shutil.rmtree(left.with_suffix(""), ignore_errors=True)
            left.unlink(missing_ok=True)
            os.close(lock)
    lock = flock(folder / f"{token}.lock")
    if lock is None:
        raise OSError(errno.EAGAIN, "another process tidies it; try again", str(folder))
    (folder / token).mkdir()
    return lock, folder / token
