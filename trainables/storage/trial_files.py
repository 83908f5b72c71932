"""Where training puts the files of a trial under a storage root. No torch.

<storage>/trials/<key>/    checkpoints/  masks.safetensors  masks.json  policy.safetensors  policy.json

What the service adds, and every other path, is named in service/storage/paths.py.
"""

from __future__ import annotations

import re
from pathlib import Path

from trainables.errors import UserError

KEY = r"[0-9a-f]{16}"


def trials(storage: Path) -> Path:
    return storage / "trials"


def trial(storage: Path, key: str) -> Path:
    """The folder of a trial; `key` is `Trial.key`."""
    return trials(storage) / checked("trial key", key, KEY)


def checkpoints(storage: Path, key: str) -> Path:
    return trial(storage, key) / "checkpoints"


def masks(storage: Path, key: str) -> Path:
    """The masks, one bit per prunable weight."""
    return trial(storage, key) / "masks.safetensors"


def masks_json(storage: Path, key: str) -> Path:
    """What the masks are: densities, live units and inputs, sizes, saliency quantiles."""
    return trial(storage, key) / "masks.json"


def policy(storage: Path, key: str) -> Path:
    return trial(storage, key) / "policy.safetensors"


def policy_json(storage: Path, key: str) -> Path:
    return trial(storage, key) / "policy.json"


def checked(kind: str, name: str, pattern: str) -> str:
    if not re.fullmatch(pattern, name):
        raise UserError(f"{kind} {name!r} is not of the form {pattern}")
    return name
