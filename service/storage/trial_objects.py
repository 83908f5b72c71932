"""Trials on S3. The bucket is the truth; a worker trains in a folder of its own and commits that, commands read a copy.

`heads/<key>.json` says of which objects a trial consists, with their hashes, and which attempt may write it. Objects are never changed:
a commit uploads new ones and then replaces the head on condition that it is still the one that this attempt wrote. So a trial is
always one whole state, and of two attempts only the newer one can commit. docs/decisions/009-object-storage.md.
"""

from __future__ import annotations

import errno
import hashlib
import json
import re
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TypeVar

from service.storage import paths
from service.storage import s3 as objects
from service.storage.s3 import THREADS, Bucket
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
        keys = [key for key in keys if _known(storage, key).etag != found.get(address(key), "")]
    with _pulling:
        each(lambda key: _refresh(bucket, storage, key), keys)


def _refresh(bucket: Bucket, storage: Path, key: str) -> None:
    for _ in range(100):
        known = _known(storage, key)
        head = read_head(bucket, key, known.etag)
        if head.etag == known.etag:
            return
        changed = {n: o for n, o in head.files.items() if known.files.get(n) != o and not re.fullmatch(CHECKPOINT, n)}
        try:
            fetch(bucket, changed, paths.trial(storage, key), key)
        except FileNotFoundError:
            continue  # a commit has come between
        write(paths.head(storage, key), json.dumps(asdict(head)).encode())
        return
    raise OSError(errno.EIO, "its objects vanish while they are read", f"{bucket.url}/{address(key)}")


def read_head(bucket: Bucket, key: str, etag: str = "") -> Head:
    """The head as it is now, an empty one where there is none; with nothing but `etag` where it still is that version."""
    try:
        found = bucket.get(address(key), etag)
    except FileNotFoundError:
        return Head()
    if found is None:
        return Head(etag=etag)
    try:
        about = json.loads(found[0])
        return Head(str(about["attempt"]), {name: (str(at), str(digest)) for name, (at, digest) in about["files"].items()}, found[1])
    except (ValueError, TypeError, KeyError, AttributeError):
        raise OSError(errno.EIO, "it is damaged", f"{bucket.url}/{address(key)}") from None


def _known(storage: Path, key: str) -> Head:
    """The head that this host's copy of a trial was made from."""
    try:
        about = json.loads(paths.head(storage, key).read_bytes())
        return Head(about["attempt"], {name: (at, digest) for name, (at, digest) in about["files"].items()}, about["etag"])
    except (OSError, ValueError, TypeError, KeyError):
        return Head()


def fetch(bucket: Bucket, files: Mapping[str, tuple[str, str]], folder: Path, key: str) -> None:
    """Write the files as their hashes say. A damaged checkpoint is left out, the one before it counts; anything else is an OSError."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, (at, digest) in files.items():
        if not re.fullmatch(NAMES, name) or not at.startswith(f"trials/{key}/"):
            raise OSError(errno.EIO, f"it names {name!r}, which is no file of a trial", f"{bucket.url}/{address(key)}")
        content = (bucket.get(at) or (b"", ""))[0]
        if digest_of(content) == digest:
            write(folder / name, content)
        elif not re.fullmatch(CHECKPOINT, name):
            raise OSError(errno.EIO, "it is damaged", f"{bucket.url}/{at}")


def each(call: Callable[[K], V], items: Iterable[K]) -> list[V]:
    """`call` of every item, some at a time; the first error is raised when all have ended."""
    with ThreadPoolExecutor(THREADS) as threads:
        return [future.result() for future in [threads.submit(call, item) for item in items]]


def address(key: str) -> str:
    return f"heads/{key}.json"


def digest_of(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
