"""The zip file of an archive, from anybody: read within limits, and only where it is a zip file such as `archive` writes."""

from __future__ import annotations

import stat
import zipfile
import zlib
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

PART = 64 << 20  # bytes: a spool of a million updates with the usual checkpoints has 0.5 MB
TENSORS = 1 << 30  # bytes of a checkpoint, which has four times an algorithm's networks; of ensembles they are large
RATIO = 100  # the numbers of a spool shrink to a tenth; a file of nothing but zeros to a thousandth
SLACK = 1 << 20  # bytes that any archive may have
METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
BROKEN = (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError)  # what zipfile raises for a file that is none


def largest(name: str) -> int:
    """How many bytes a part may have."""
    return TENSORS if name.endswith(".safetensors") else PART


def allowed(size: int) -> int:
    """How many bytes the parts of a zip file of so many bytes may have together."""
    return SLACK + RATIO * size


def read_parts(file: Path) -> dict[str, bytes]:
    """The content of each file of an archive, by name.

    Raises ValueError if it is no zip file, is encrypted, compressed in another way, not as packed or larger than it can be, OSError if it
    cannot be read. What the file claims of its sizes is checked first, then what comes out."""
    left = allowed(file.stat().st_size)
    try:
        with zipfile.ZipFile(file) as opened:
            parts = list(_checked(opened, left))
            content: dict[str, bytes] = {}
            for part in parts:
                with opened.open(part) as stream:
                    content[part.filename] = stream.read(min(largest(part.filename), left) + 1)
                left -= len(content[part.filename])
                if len(content[part.filename]) > largest(part.filename) or left < 0:
                    raise ValueError(f"{part.filename!r} is larger than it can be")
            return content
    except BROKEN as error:
        raise ValueError(str(error) or type(error).__name__) from error


def _checked(opened: zipfile.ZipFile, most: int) -> Iterator[zipfile.ZipInfo]:
    """The files of a zip file; raises ValueError for what no archive has."""
    parts = opened.infolist()
    name, count = Counter(part.filename for part in parts).most_common(1)[0] if parts else ("", 0)
    if count > 1:
        raise ValueError(f"it has {count} files called {name!r}")
    if sum(part.file_size for part in parts) > most:
        raise ValueError(f"its files are said to have {sum(part.file_size for part in parts):,} bytes, {most:,} are allowed")
    for part in parts:
        if part.flag_bits & 1:
            raise ValueError(f"{part.filename!r} is encrypted")
        if part.compress_type not in METHODS:
            raise ValueError(f"{part.filename!r} is compressed by method {part.compress_type}, not deflated")
        if part.file_size > largest(part.filename):
            raise ValueError(f"{part.filename!r} is said to have {part.file_size:,} bytes, {largest(part.filename):,} are allowed")
        if stat.S_ISLNK(part.external_attr >> 16):
            raise ValueError(f"{part.filename!r} is a symbolic link")
        if not part.is_dir():
            yield part
