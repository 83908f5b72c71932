"""Trials on S3. The bucket is the truth; a worker trains in a folder of its own and commits that, commands read a copy.

`heads/<key>.json` says of which objects a trial consists, with their hashes, and which attempt may write it. Objects are never changed:
a commit uploads new ones and then replaces the head on condition that it is still the one that this attempt wrote. So a trial is
always one whole state, and of two attempts only the newer one can commit. docs/decisions/009-object-storage.md.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import re
import shutil
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TypeVar
from uuid import uuid4

from service.ledger import lease
from service.storage import paths
from service.storage import s3 as objects
from service.storage.s3 import THREADS, Bucket
from trainables.errors import SupersededError
from trainables.storage.files import write

CHECKPOINT = r"checkpoints/\d{9}\.(json|safetensors)"  # only workers need them
NAMES = rf"{CHECKPOINT}|spool\.jsonl|(trial|masks|policy)\.json|(masks|policy)\.safetensors"
MANY = 50  # heads that are asked for one by one; of more, those that are new are found by listing all
_pulling = threading.Lock()
K = TypeVar("K")
V = TypeVar("V")


@dataclass(frozen=True)
class Head:
    """The files of a trial: name -> (object's key, sha256). `attempt` names who may replace it; `etag` is its version."""

    attempt: str = "nobody"
    files: Mapping[str, tuple[str, str]] = field(default_factory=dict)
    etag: str = ""

    @property
    def objects(self) -> set[str]:
        return {key for key, _ in self.files.values()}


def pull(storage: Path) -> None:
    """Bring this host's copy of all trials up to date, without checkpoints; nothing to do where the storage is a folder."""
    if bucket := objects.of(storage):
        found = bucket.list("heads/")
        refresh(storage, [Path(name).stem for name, etag in found.items() if _known(storage, Path(name).stem).etag != etag])


def refresh(storage: Path, keys: Sequence[str]) -> None:
    """The same for some trials: each spool is then as it was when this was called, or newer."""
    bucket = objects.of(storage)
    if bucket is None:
        return
    if len(keys) > MANY:
        found = bucket.list("heads/")
        keys = [key for key in keys if _known(storage, key).etag != found.get(_at(key), "")]
    with _pulling:
        _each(lambda key: _refresh(bucket, storage, key), keys)


class Attempt:
    """One worker's right to write a stack's trials, from its claim on; `storage` is a folder that is nobody else's."""

    def __init__(self, bucket: Bucket, name: str, epoch: int, keys: Iterable[str]) -> None:
        """Claim the trials, which fences off older attempts, and fetch their newest state. Raises SupersededError."""
        self._bucket, self._epoch = bucket, epoch
        home = paths.root(bucket.url)
        self._leases = paths.leases(home, name)
        lease.check(self._leases, epoch)
        self._token = uuid4().hex
        self._owner = f"{name} {epoch} {lease.owner()} {self._token}"
        self._lock, self.storage = _own_folder(paths.attempts(home), self._token)
        try:
            self._heads: dict[str, Head] = dict(_each(lambda key: (key, self._claim(key)), keys))
        except BaseException:
            self.close()
            raise

    def check(self) -> None:
        """Between commits nothing is written that anybody else could see."""

    def commit(self) -> None:
        """Upload what has changed of each trial and put its head in place. Raises SupersededError, and OSError where S3 is away."""
        lease.check(self._leases, self._epoch)
        self._heads |= dict(_each(lambda key: (key, self._push(key)), self._heads))

    def close(self) -> None:
        shutil.rmtree(self.storage, ignore_errors=True)
        os.close(self._lock)
        self.storage.with_suffix(".lock").unlink(missing_ok=True)

    def _claim(self, key: str) -> Head:
        while True:
            # Listed before the claim: what is there now and in no head belongs to attempts that can commit no more.
            left = set(self._bucket.list(f"trials/{key}/"))
            before = _head(self._bucket, key)
            try:
                head = self._replace(key, before, before.files)
                break
            except FileExistsError:
                continue  # another attempt claims it at this moment: the last one has it
        _fetch(self._bucket, head.files, paths.trial(self.storage, key), key)
        self._bucket.delete(left - head.objects)
        return head

    def _push(self, key: str) -> Head:
        before, folder = self._heads[key], paths.trial(self.storage, key)
        files: dict[str, tuple[str, str]] = {}
        for path in sorted(folder.rglob("*")):
            name = path.relative_to(folder).as_posix()
            if not re.fullmatch(NAMES, name):
                continue
            content = path.read_bytes()
            digest = _hash(content)
            if before.files.get(name, ("", ""))[1] == digest:
                files[name] = before.files[name]
                continue
            files[name] = f"trials/{key}/{name}.{self._token[:12]}.{digest[:12]}", digest
            self._bucket.put(files[name][0], content)
        try:
            head = self._replace(key, before, files)
        except FileExistsError:
            raise SupersededError(f"{key} is trained by {' '.join(_head(self._bucket, key).attempt.split()[:3])}") from None
        with contextlib.suppress(OSError):  # the next attempt's claim does it, too
            self._bucket.delete(before.objects - head.objects)
        return head

    def _replace(self, key: str, before: Head, files: Mapping[str, tuple[str, str]]) -> Head:
        """Put a head of ours in the place of `before`; raises FileExistsError where that is not the newest."""
        content = json.dumps({"attempt": self._owner, "files": files}, indent=1).encode()
        at = _at(key)
        etag = self._bucket.replace(at, content, before.etag) if before.etag else self._bucket.create(at, content)
        return Head(self._owner, files, etag)


def _refresh(bucket: Bucket, storage: Path, key: str) -> None:
    for _ in range(100):
        known = _known(storage, key)
        head = _head(bucket, key, known.etag)
        if head.etag == known.etag:
            return
        changed = {n: o for n, o in head.files.items() if known.files.get(n) != o and not re.fullmatch(CHECKPOINT, n)}
        try:
            _fetch(bucket, changed, paths.trial(storage, key), key)
        except FileNotFoundError:
            continue  # a commit has come between
        write(paths.head(storage, key), json.dumps(asdict(head)).encode())
        return
    raise OSError(errno.EIO, "its objects vanish while they are read", f"{bucket.url}/{_at(key)}")


def _head(bucket: Bucket, key: str, etag: str = "") -> Head:
    """The head as it is now, an empty one where there is none; with nothing but `etag` where it still is that version."""
    try:
        found = bucket.get(_at(key), etag)
    except FileNotFoundError:
        return Head()
    if found is None:
        return Head(etag=etag)
    try:
        about = json.loads(found[0])
        return Head(str(about["attempt"]), {name: (str(at), str(digest)) for name, (at, digest) in about["files"].items()}, found[1])
    except (ValueError, TypeError, KeyError, AttributeError):
        raise OSError(errno.EIO, "it is damaged", f"{bucket.url}/{_at(key)}") from None


def _known(storage: Path, key: str) -> Head:
    """The head that this host's copy of a trial was made from."""
    try:
        about = json.loads(paths.head(storage, key).read_bytes())
        return Head(about["attempt"], {name: (at, digest) for name, (at, digest) in about["files"].items()}, about["etag"])
    except (OSError, ValueError, TypeError, KeyError):
        return Head()


def _fetch(bucket: Bucket, files: Mapping[str, tuple[str, str]], folder: Path, key: str) -> None:
    """Write the files as their hashes say. A damaged checkpoint is left out, the one before it counts; anything else is an OSError."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, (at, digest) in files.items():
        if not re.fullmatch(NAMES, name) or not at.startswith(f"trials/{key}/"):
            raise OSError(errno.EIO, f"it names {name!r}, which is no file of a trial", f"{bucket.url}/{_at(key)}")
        content = (bucket.get(at) or (b"", ""))[0]
        if _hash(content) == digest:
            write(folder / name, content)
        elif not re.fullmatch(CHECKPOINT, name):
            raise OSError(errno.EIO, "it is damaged", f"{bucket.url}/{at}")


def _own_folder(folder: Path, token: str) -> tuple[int, Path]:
    """A new folder with the lock that says that its owner lives; those of the dead are removed."""
    folder.mkdir(parents=True, exist_ok=True)
    for left in folder.glob("*.lock"):
        if (lock := lease.flock(left)) is not None:
            shutil.rmtree(left.with_suffix(""), ignore_errors=True)
            left.unlink(missing_ok=True)
            os.close(lock)
    lock = lease.flock(folder / f"{token}.lock")
    if lock is None:
        raise OSError(errno.EAGAIN, "another process tidies it; try again", str(folder))
    (folder / token).mkdir()
    return lock, folder / token


def _each(call: Callable[[K], V], items: Iterable[K]) -> list[V]:
    """`call` of every item, some at a time; the first error is raised when all have ended."""
    with ThreadPoolExecutor(THREADS) as threads:
        return [future.result() for future in [threads.submit(call, item) for item in items]]


def _at(key: str) -> str:
    return f"heads/{key}.json"


def _hash(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
