"""The files of a checkpoint, without what is in them. No torch.

`<update>.safetensors` and then `<update>.json`, the head, which holds the hash of both: a torn or altered one is not a checkpoint.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from trainables.storage import trial_files

OURS = re.compile(r"[0-9]{9,12}\.(json|safetensors)|\.[0-9]{9,12}\.(json|safetensors)\.[0-9]+\.tmp")  # other files here are left alone


def head_file(storage: Path, key: str, update: int) -> Path:
    return trial_files.checkpoints(storage, key) / f"{update:09d}.json"


def tensor_file(storage: Path, key: str, update: int) -> Path:
    return head_file(storage, key, update).with_suffix(".safetensors")


def updates(storage: Path, key: str) -> list[int]:
    """The updates of a trial's checkpoints, newest first, also of altered ones."""
    names = [path.name for path in trial_files.checkpoints(storage, key).glob("*.json")]
    return sorted((int(name.removesuffix(".json")) for name in names if OURS.fullmatch(name)), reverse=True)


def vouched(head: bytes, content: bytes, key: str, update: int) -> dict[str, Any] | None:
    """The head of a checkpoint, without its hash; None unless head and tensors are as they were written, for this trial and update."""
    try:
        about = json.loads(head)
        claimed = about.pop("sha256")
        return about if claimed == hashed(about, content) and about["trial"] == key and about["update"] == update else None
    except (ValueError, AttributeError, TypeError, KeyError, RecursionError):
        return None


def hashed(head: Mapping[str, Any], content: bytes) -> str:
    """Covers both files, so that a flipped bit in the counts is noticed as well."""
    return hashlib.sha256(json.dumps(head, sort_keys=True).encode() + content).hexdigest()
