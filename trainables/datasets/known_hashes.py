"""The hash of a dataset's content, without opening the dataset: what `load_table` noted about exactly these files on this host.

Below the prepared tables: hashes/<stamp>.json. The stamp covers metadata.json and the environments' files, which the hash depends on (a
project's and those of installed packages, too), and of every other file of the dataset its name, size, times and inode. Imports neither
numpy nor torch: planning compares hashes.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
from pathlib import Path
from typing import Any

from trainables import plugins
from trainables.datasets import local
from trainables.errors import UserError
from trainables.plugins import ROOT
from trainables.storage import cache
from trainables.storage.files import write


def known_hash(dataset: str) -> str:
    """The content hash of the dataset as it is on this machine; empty where it is absent, or has not been opened since it changed."""
    try:
        path = _file(dataset)
        return str(json.loads(path.read_bytes())["hash"]) if cache.trusted(path) else ""
    except (OSError, ValueError, KeyError, TypeError, UserError):
        return ""


def note_hash(dataset: str, content: str) -> None:
    """Remember the content hash of a dataset that was just opened; does nothing where the cache cannot be written."""
    if known_hash(dataset) != content:
        with contextlib.suppress(OSError, UserError):
            path = _file(dataset)
            cache.private(path.parent)
            write(path, json.dumps({"hash": content, "dataset": dataset}).encode())
            path.chmod(0o600)


def _file(dataset: str) -> Path:
    folder = local.folder(dataset) / "data"
    seen: list[Any] = [dataset, str(folder.resolve()), hashlib.sha256((folder / "metadata.json").read_bytes()).hexdigest()]
    for path in sorted(path for path in folder.rglob("*") if path.is_file() and path.name != "metadata.json"):
        about = path.stat()
        seen.append([path.name, about.st_size, about.st_mtime_ns, about.st_ctime_ns, about.st_ino])
    seen += [path.read_text() for path in sorted((ROOT / "environments").rglob("*.py"))]
    seen += [[name, plugins.source_hash("environments", name)] for name in plugins.names("environments")]  # with a project's
    stamp = hashlib.sha256(json.dumps(seen).encode()).hexdigest()[:32]
    return cache.tables() / "hashes" / f"{stamp}.json"
