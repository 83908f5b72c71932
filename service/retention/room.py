"""What takes up space in a storage: of each trial by kind, measured in the folder or, on S3, in the bucket."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path

from service.storage import paths, s3
from service.storage.trial_objects import in_parallel

CHECKPOINTS, MODELS, CURVES, OTHER = "checkpoints", "policies and masks", "curves", "other"
KINDS = (CHECKPOINTS, MODELS, CURVES, OTHER)
Sizes = Counter[str]  # bytes by kind


def kind_of(name: str) -> str:
    """The kind of a trial's file, by its name in the trial's folder."""
    if name.startswith("checkpoints/"):
        return CHECKPOINTS
    if name.startswith(("policy.", "masks.")):
        return MODELS
    return CURVES if name.startswith("spool.jsonl") else OTHER


def of_trials(storage: Path, keys: Iterable[str] | None = None) -> dict[str, Sizes]:
    """The sizes of trials, by key; of all that the storage holds, without keys."""
    chosen = None if keys is None else set(keys)
    if bucket := s3.bucket_of(storage):
        found: dict[str, Sizes] = {}
        for name, size in bucket.sizes("trials/").items():
            key, _, file = name.removeprefix("trials/").partition("/")
            found.setdefault(key, Counter())[kind_of(file)] += size
        return {key: sizes for key, sizes in found.items() if chosen is None or key in chosen}
    present = {folder.name for folder in paths.trials(storage).glob("*")}
    wanted = sorted(present if chosen is None else present & chosen)
    return dict(in_parallel(lambda key: (key, _of_folder(paths.trials(storage) / key)), wanted))


def of_folder(folder: Path) -> int:
    """The bytes of all files below a folder; 0 where there is none."""
    total = 0
    for place, _, names in os.walk(folder):
        for name in names:
            try:
                total += os.lstat(os.path.join(place, name)).st_size
            except FileNotFoundError:  # removed meanwhile
                continue
    return total


def shown(size: float) -> str:
    """`0 B`, `12 kB`, `3.4 MB`, `1.2 GB`."""
    for unit, length in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if size >= length:
            return f"{size / length:.1f} {unit}" if size < 10 * length else f"{size / length:,.0f} {unit}"
    return f"{size:.0f} B"


def by_kind(sizes: Mapping[str, int]) -> str:
    """`checkpoints 12 MB, curves 3.4 kB`."""
    return ", ".join(f"{kind} {shown(sizes[kind])}" for kind in sizes if sizes[kind]) or "nothing"


def _of_folder(folder: Path) -> Sizes:
    sizes: Sizes = Counter()
    for place, _, names in os.walk(folder):
        for name in names:
            path = Path(place, name)
            try:
                sizes[kind_of(path.relative_to(folder).as_posix())] += path.lstat().st_size
            except FileNotFoundError:  # replaced meanwhile
                continue
    return sizes
