"""What is kept of finished trials: `--keep`."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable
from pathlib import Path

from service.storage import removal
from service.storage.trial_objects import in_parallel


class Keep:
    """Removes what `choice`, one of KEEP of the options, does not keep. What cannot be removed now goes at the end of a later run."""

    def __init__(self, storage: Path, choice: str) -> None:
        self._storage, self._choice = storage, choice

    def done(self, keys: Iterable[str]) -> None:
        """These trials are done: nobody continues from their checkpoints."""
        if self._choice != "all":
            in_parallel(lambda key: self._remove(key, ("checkpoints/",)), keys)

    def shipped(self, keys: Iterable[str]) -> None:
        """MLflow has all that there is of these trials, which are done."""
        without = {"final": ("checkpoints/",), "curves": ("checkpoints/", "policy.", "masks.")}.get(self._choice)
        if without:
            in_parallel(lambda key: self._remove(key, without), keys)

    def _remove(self, key: str, beginnings: tuple[str, ...]) -> None:
        with contextlib.suppress(OSError):
            removal.remove_files(self._storage, key, lambda name: name.startswith(beginnings))
