"""Trials on S3, which commands read through a copy on this host (docs/decisions/009-object-storage.md). Workers: ledger/claims.py.

`heads/<key>.json` lists the objects of a trial with their hashes, and the worker that may write it. Objects never change: a commit
uploads new ones, then replaces the head if it is still the one that this worker wrote. So a trial is always in one consistent state, and
of two workers only the newer one can commit.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import re
import shutil
import tempfile
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TypeVar

from service.storage import paths, s3
from service.storage.s3 import THREADS, Bucket
from trainables.storage.files import tidy_up, write

CHECKPOINT = r"checkpoints/\d{9}\.(json|safetensors)"  # needed only by workers
NAMES = rf"{CHECKPOINT}|spool\.jsonl|(trial|masks|policy)\.json|(masks|policy)\.safetensors"
ONE_BY_ONE = 50  # for more heads than this, one listing finds those that have changed
TRIES = 100  # of reading a trial between two commits
_pulling = threading.Lock()
K = TypeVar("K")
V = TypeVar("V")


@dataclass(frozen=True)
class Head:
    """The files of a trial: name -> (object, sha256). `attempt` names the worker that may replace it; `etag` is its version."""

    attempt: str = "nobody"
    files: Mapping[str, tuple[str, str]] = field(default_factory=dict)
    etag: str = ""

    @property
    def objects(self) -> set[str]:
        return {key for key, _ in self.files.values()}


def pull(storage: Path) -> None:
    """Update this host's copy of all trials, without checkpoints. Does nothing if the storage is a folder."""
    if bucket := s3.bucket_of(storage):
        tidy_up(paths.heads(storage))
        etags = bucket.list("heads/")
        gone = [path.stem for path in paths.heads(storage).glob("*.json") if head_name(path.stem) not in etags]
        refresh(storage, gone + [Path(name).stem for name, etag in etags.items() if _known(storage, Path(name).stem).etag != etag])


def refresh(storage: Path, keys: Sequence[str]) -> None:
    """Update the copies of some trials; each is then at least as new as the bucket was at the call."""
    bucket = s3.bucket_of(storage)
    if bucket is None:
        return
    if len(keys) > ONE_BY_ONE:
        etags = bucket.list("heads/")
        keys = [key for key in keys if _known(storage, key).etag != etags.get(head_name(key), "")]
    with _pulling:
        in_parallel(lambda key: _refresh(bucket, storage, key), keys)


def _refresh(bucket: Bucket, storage: Path, key: str) -> None:
    for _ in range(TRIES):
        known = _known(storage, key)
        head = read_head(bucket, key, known.etag)
        if head.etag == known.etag:
            return
        changed = {n: o for n, o in head.files.items() if known.files.get(n) != o and not re.fullmatch(CHECKPOINT, n)}
        try:
            fetch(bucket, changed, paths.trial(storage, key), key)
        except FileNotFoundError:
            continue  # a commit came in between
        for name in known.files.keys() - head.files.keys():  # `forget` has removed them
            if re.fullmatch(NAMES, name):
                (paths.trial(storage, key) / name).unlink(missing_ok=True)
        if not head.etag:
            shutil.rmtree(paths.trial(storage, key), ignore_errors=True)
            paths.head(storage, key).unlink(missing_ok=True)
            return
        write(paths.head(storage, key), json.dumps(asdict(head)).encode(), tidy=False)  # all heads are in one folder
        return
    raise OSError(errno.EIO, "its objects keep changing while they are read", f"{bucket.url}/{head_name(key)}")


@contextlib.contextmanager
def whole(storage: Path, key: str) -> Iterator[Path]:
    """A storage in which the trial has all its files, with its checkpoints: this one, or for S3 a copy for as long as the context lasts."""
    if (bucket := s3.bucket_of(storage)) is None:
        yield storage
        return
    with tempfile.TemporaryDirectory(prefix="winnow-") as folder:
        for _ in range(TRIES):
            shutil.rmtree(paths.trials(Path(folder)), ignore_errors=True)
            with contextlib.suppress(FileNotFoundError):  # a commit came in between
                fetch(bucket, read_head(bucket, key).files, paths.trial(Path(folder), key), key)
                break
        else:
            raise OSError(errno.EIO, "its objects keep changing while they are read", f"{bucket.url}/{head_name(key)}")
        yield Path(folder)


def read_head(bucket: Bucket, key: str, etag: str = "") -> Head:
    """The current head; empty if there is none, and with nothing but `etag` if it is still that version."""
    try:
        answer = bucket.get_newer(head_name(key), etag)
    except FileNotFoundError:
        return Head()
    if answer is None:
        return Head(etag=etag)
    try:
        about = json.loads(answer[0])
        return Head(str(about["attempt"]), {name: (str(at), str(digest)) for name, (at, digest) in about["files"].items()}, answer[1])
    except (ValueError, TypeError, KeyError, AttributeError):
        raise OSError(errno.EIO, "it is damaged", f"{bucket.url}/{head_name(key)}") from None


def _known(storage: Path, key: str) -> Head:
    """The head of this host's copy of a trial; empty if there is no copy."""
    try:
        about = json.loads(paths.head(storage, key).read_bytes())
        return Head(about["attempt"], {name: (at, digest) for name, (at, digest) in about["files"].items()}, about["etag"])
    except (OSError, ValueError, TypeError, KeyError):
        return Head()


def fetch(bucket: Bucket, files: Mapping[str, tuple[str, str]], folder: Path, key: str) -> None:
    """Download files and verify their hashes. Skips a damaged checkpoint, as the previous one remains; raises OSError for other damage."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, (at, digest) in files.items():
        if not re.fullmatch(NAMES, name) or not at.startswith(f"trials/{key}/"):
            raise OSError(errno.EIO, f"it names {name!r}, which is not a file of a trial", f"{bucket.url}/{head_name(key)}")
        content = bucket.get(at)[0]
        if digest_of(content) == digest:
            write(folder / name, content)
        elif not re.fullmatch(CHECKPOINT, name):
            raise OSError(errno.EIO, "it is damaged", f"{bucket.url}/{at}")


def in_parallel(call: Callable[[K], V], items: Iterable[K]) -> list[V]:
    """Call `call` on every item, in parallel; raises the first error when all have finished. Each call has the caller's patience."""
    with ThreadPoolExecutor(THREADS) as threads:
        futures = [threads.submit(copy_context().run, call, item) for item in items]
        try:
            return [future.result() for future in futures]
        except KeyboardInterrupt:  # there is no time for the calls that have not begun
            threads.shutdown(cancel_futures=True)
            raise


def head_name(key: str) -> str:
    """The object that holds the head of a trial."""
    return f"heads/{key}.json"


def digest_of(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
