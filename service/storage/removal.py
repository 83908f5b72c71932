"""Removes trials and sweeps from a storage so that a kill at any moment leaves each one whole, or gone.

In a folder, what is removed is renamed out of its place first. On S3 the head of a trial is replaced by an empty one first. Both are
refused where a worker has claimed the trial since it was looked at.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
from collections.abc import Callable, Iterable
from pathlib import Path
from uuid import uuid4

from service.storage import paths, s3, trial_objects
from service.storage.s3 import Bucket
from trainables.storage.files import sync_folder

EMPTY = json.dumps({"attempt": "nobody", "files": {}}, indent=1).encode()


def versions(storage: Path, keys: Iterable[str]) -> dict[str, str]:
    """What changes whenever a worker claims one of the trials; empty for one that nobody has ever claimed."""
    if bucket := s3.bucket_of(storage):
        etags = bucket.list("heads/")
        return {key: etags.get(trial_objects.head_name(key), "") for key in keys}
    return {key: _attempt(storage, key) for key in keys}


def remove_trial(storage: Path, key: str, version: str) -> bool:
    """Remove all files of a trial; False, and nothing is removed, where it was claimed since it had that version. Idempotent."""
    if bucket := s3.bucket_of(storage):
        if not _remove_objects(bucket, key, version):
            return False
    elif _attempt(storage, key) != version:
        return False
    _take_away(storage, paths.trial(storage, key))
    paths.head(storage, key).unlink(missing_ok=True)
    return True


def remove_files(storage: Path, key: str, unwanted: Callable[[str], bool]) -> None:
    """Remove the files of a finished trial whose names, within its folder, are unwanted. Idempotent, and nothing where all are wanted."""
    if bucket := s3.bucket_of(storage):
        _leave_out(bucket, key, unwanted)
    folder = paths.trial(storage, key)
    for file in sorted(folder.rglob("*")):  # of a checkpoint the head goes before the tensors that it vouches for
        if file.is_file() and unwanted(file.relative_to(folder).as_posix()):
            file.unlink(missing_ok=True)


def remove_sweep(storage: Path, name: str) -> None:
    """Remove the folder of a sweep whose lease is held and whose journal says that all is forgotten."""
    if bucket := s3.bucket_of(storage):
        folder = f"{paths.remote(paths.sweep(storage, name))[1]}/"
        # Of the journal the newest part, which says that all is forgotten, goes last, and after it the leases: whoever comes before the
        # end has a later epoch than what is left of the journal.
        last = [f"{paths.remote(part)[1]}/" for part in (paths.manifest_parts(storage, name), paths.leases(storage, name))]
        bucket.delete(sorted(bucket.list(folder), key=lambda object: ([object.startswith(part) for part in reversed(last)], object)))
    elif paths.trials(storage).exists():
        sync_folder(paths.trials(storage))  # once for all of its trials, whose removal is not to be lost with the journal gone
    _take_away(storage, paths.sweep(storage, name))


def remove_leftovers(storage: Path) -> None:
    """Remove what a killed removal has taken away from its place."""
    shutil.rmtree(paths.forgotten(storage), ignore_errors=True)


def remove_bookkeeping(storage: Path, name: str) -> None:
    """Remove what Ray Tune has written about the runs of a sweep."""
    for folder in paths.ray_results(storage).glob(f"{name}-*"):
        if re.fullmatch(rf"{name}-\d{{8}}-\d{{6}}-\d+", folder.name):
            shutil.rmtree(folder, ignore_errors=True)


def _take_away(storage: Path, folder: Path) -> None:
    if not folder.exists():
        return
    away = paths.forgotten(storage) / f"{folder.name}.{uuid4().hex}"
    away.parent.mkdir(exist_ok=True)
    os.replace(folder, away)
    shutil.rmtree(away, ignore_errors=True)


def _remove_objects(bucket: Bucket, key: str, version: str) -> bool:
    objects = set(bucket.list(f"trials/{key}/"))  # listed before the head is replaced: a later worker's are not among them
    head = trial_objects.head_name(key)
    if trial_objects.read_head(bucket, key).etag != version:
        return False
    try:
        etag = bucket.replace(head, EMPTY, version) if version else ""
    except FileExistsError:
        return False
    bucket.delete(objects)
    if etag and trial_objects.read_head(bucket, key).etag == etag:
        bucket.delete([head])
    return True


def _leave_out(bucket: Bucket, key: str, unwanted: Callable[[str], bool]) -> None:
    """Commit the trial without some files, unless a worker has claimed it meanwhile; then delete their objects."""
    head = trial_objects.read_head(bucket, key)
    files = {name: file for name, file in head.files.items() if not unwanted(name)}
    if files == head.files:
        return
    content = json.dumps({"attempt": head.attempt, "files": files}, indent=1).encode()
    with contextlib.suppress(FileExistsError):
        bucket.replace(trial_objects.head_name(key), content, head.etag)
        bucket.delete(head.objects - {at for at, _ in files.values()})


def _attempt(storage: Path, key: str) -> str:
    try:
        return paths.attempt(storage, key).read_text(errors="replace")
    except FileNotFoundError:
        return ""
