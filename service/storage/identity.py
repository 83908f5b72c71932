"""The identity of a storage: a random number that tells it from every other storage, in the small file `identity`.

It is made once, whoever comes first. A folder's file also holds the path at which the storage was last opened, so that a copy is noticed:
where the storage of that path still exists, this one is a copy and gets an identity of its own. A storage that was moved keeps its own.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
from pathlib import Path
from typing import Any
from uuid import uuid4

from service.storage import paths, s3, shared_files
from trainables.storage.files import write


def identity_of(storage: Path) -> str:
    """The storage's identity, made if it has none: 32 hexadecimal digits. Raises OSError if it cannot be written."""
    file = paths.identity(storage)
    known = _read(file)
    if not known:
        with contextlib.suppress(FileExistsError):  # another process or host was faster
            _create(file, _content(file))
        known = _read(file)
    elif _copied(file, known):
        write(file, _content(file))
        known = _read(file)
    elif _moved(file, known):
        with contextlib.suppress(OSError):  # a storage that may only be read
            write(file, json.dumps(known | {"folder": str(file.parent)}).encode())
    return _id(file, known)


def existing_identity(storage: Path) -> str:
    """The storage's identity; empty if it has none yet. Writes nothing."""
    known = _read(paths.identity(storage))
    return _id(paths.identity(storage), known) if known else ""


def _create(file: Path, content: bytes) -> None:
    """Create the file with all its content at once. Raises FileExistsError."""
    if s3.bucket_of(file):
        shared_files.create(file, content)
        return
    file.parent.mkdir(parents=True, exist_ok=True)
    temporary = file.with_name(f".{file.name}.{uuid4().hex}.tmp")
    try:
        shared_files.create(temporary, content)
        os.link(temporary, file)
    except OSError as error:
        if error.errno not in (errno.EPERM, errno.EOPNOTSUPP):  # a file system without hard links
            raise
        shared_files.create(file, content)
    finally:
        temporary.unlink(missing_ok=True)


def _content(file: Path) -> bytes:
    return json.dumps({"id": uuid4().hex, **({} if s3.bucket_of(file) else {"folder": str(file.parent)})}).encode()


def _copied(file: Path, known: dict[str, Any]) -> bool:
    """Whether the storage at the path that the file names still exists and is another one than this."""
    if not _moved(file, known):
        return False
    original = paths.identity(Path(known["folder"]))
    try:
        return _read(original).get("id") == known["id"] and not os.path.samefile(original, file)
    except OSError:
        return False


def _moved(file: Path, known: dict[str, Any]) -> bool:
    return known.get("folder", str(file.parent)) != str(file.parent)


def _read(file: Path) -> dict[str, Any]:
    """Empty if there is no such file; `{"id": ""}` for a damaged one."""
    try:
        content = shared_files.read(file)
    except FileNotFoundError:
        return {}
    try:
        known = json.loads(content)
    except ValueError:
        known = None
    return known if isinstance(known, dict) and isinstance(known.get("id"), str) else {"id": ""}


def _id(file: Path, known: dict[str, Any]) -> str:
    if not known.get("id"):
        raise OSError(errno.EIO, "does not hold a storage's identity; restore the file, or remove it for a new one", str(file))
    return str(known["id"])
