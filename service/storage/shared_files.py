"""Small files that coordinate drivers and commands across hosts (leases, stop requests): in a shared folder or on S3."""

from __future__ import annotations

import contextlib
import errno
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from service.storage import paths, s3
from trainables.errors import UserError
from trainables.storage.files import append, sync_folder, write

READ_ONLY = (errno.EROFS, errno.EACCES, errno.EPERM)


def create(path: Path, content: bytes) -> None:
    """Create a file. Exactly one caller succeeds, across hosts; the others get FileExistsError."""
    if bucket := s3.bucket_of(path):
        bucket.create(paths.remote(path)[1], content)
        return
    file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
    try:
        append(file, content)
        os.fsync(file)
    except OSError:  # a full disk: without its content the file would hold up whoever comes next
        path.unlink(missing_ok=True)
        raise
    finally:
        os.close(file)
    sync_folder(path.parent)


def overwrite(path: Path, content: bytes) -> None:
    """Overwrite a file by content of the same length, in place, so that it works on a full disk."""
    if bucket := s3.bucket_of(path):
        bucket.put(paths.remote(path)[1], content)
        return
    file = os.open(path, os.O_WRONLY)
    try:
        os.pwrite(file, content, 0)
        os.fsync(file)
    finally:
        os.close(file)


def put(path: Path, content: bytes) -> None:
    """Create or replace a file."""
    if bucket := s3.bucket_of(path):
        bucket.put(paths.remote(path)[1], content)
    else:
        write(path, content)


def write_if_allowed(path: Path, content: bytes) -> str:
    """Write a file that nothing depends on; returns why it cannot be written into a storage that may only be read, else nothing."""
    try:
        write(path, content)
    except OSError as error:
        if error.errno not in READ_ONLY:
            raise
        return f"{path} is not written: {error.strerror}"
    return ""


def exists(path: Path) -> bool:
    if bucket := s3.bucket_of(path):
        return bucket.exists(paths.remote(path)[1])
    return path.exists()


def read(path: Path) -> bytes:
    """Raises FileNotFoundError."""
    if bucket := s3.bucket_of(path):
        return bucket.get(paths.remote(path)[1])[0]
    return path.read_bytes()


def remove(path: Path) -> None:
    """Delete a file if it exists."""
    if bucket := s3.bucket_of(path):
        bucket.delete([paths.remote(path)[1]])
    else:
        path.unlink(missing_ok=True)


def tell(path: Path, about: Mapping[str, Any]) -> None:
    """Write for readers on any host what only this process knows, as JSON; remove the file where there is nothing to tell.

    What cannot be written stays untold."""
    with contextlib.suppress(OSError, UserError):
        put(path, json.dumps(about).encode()) if about else remove(path)


def names(folder: Path) -> list[str]:
    """The names of the files in a folder."""
    if bucket := s3.bucket_of(folder):
        return [key.rpartition("/")[2] for key in bucket.list(f"{paths.remote(folder)[1]}/")]
    return [path.name for path in folder.glob("*")]
