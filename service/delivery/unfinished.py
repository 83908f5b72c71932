"""What an unfinished trial takes along to another storage: its newest whole checkpoint, and its log up to that."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from service.spool import complete
from service.spool import lines as spool
from service.storage import paths
from trainables.storage import checkpoint_files
from trainables.trial import Trial


@dataclass(frozen=True)
class Unfinished:
    """The files of a trial by their path in its folder, and the checkpoint's update."""

    update: int
    parts: Mapping[str, bytes]


def take_along(storage: Path, trial: Trial) -> Unfinished | None:
    """None where there is no whole checkpoint, or one before what the log has committed, and for a trial that has ended since.

    A driver may be at work: a checkpoint is read before the log, which then holds all that came before it."""
    about = paths.trial_json(storage, trial.key)
    for update in checkpoint_files.updates(storage, trial.key):
        files = [of(storage, trial.key, update) for of in (checkpoint_files.tensor_file, checkpoint_files.head_file)]
        with contextlib.suppress(FileNotFoundError):  # the driver removes old ones
            tensors, head = (file.read_bytes() for file in files)
            lines = spool.read(paths.spool(storage, trial.key))
            if spool.end_line(lines) or spool.committed_update(lines) > update:  # what is committed would not be written again
                return None
            if checkpoint_files.vouched(head, tensors, trial.key, update):
                end = max((placed.end for placed in lines if placed.update <= update), default=0)
                parts = {"trial.json": about.read_bytes(), "spool.jsonl": paths.spool(storage, trial.key).read_bytes()[:end]}
                masks = [path for path in [paths.masks_json(storage, trial.key)] if path.exists()]
                parts |= {path.name: path.read_bytes() for path in masks}
                return Unfinished(update, parts | {f"checkpoints/{files[0].name}": tensors, f"checkpoints/{files[1].name}": head})
    return None


def check(parts: Mapping[str, bytes], trial: Trial, update: object) -> dict[str, bytes]:
    """The same files of an archive, in the order in which they are written.

    Raises ValueError or KeyError unless log and checkpoint are whole and belong together.

    What the checkpoint holds is checked where training loads it (docs/decisions/019-what-a-checkpoint-proves.md)."""
    if isinstance(update, bool) or not isinstance(update, int):
        raise ValueError(f"update {str(update)[:40]!r} of its checkpoint is not an integer")
    complete.check_until(parts["spool.jsonl"], trial, update)
    tensors, head = (f"checkpoints/{update:09d}.{ending}" for ending in ("safetensors", "json"))
    if not checkpoint_files.vouched(parts[head], parts[tensors], trial.key, update):
        raise ValueError(f"its checkpoint at update {update} is altered or that of another trial")
    masks = ["masks.json"] * ("masks.json" in parts)
    order = ["spool.jsonl", tensors, head, *masks, "trial.json"]  # the log first: without its checkpoint it does no harm
    if extra := parts.keys() - set(order):
        raise ValueError(f"it has {min(extra)!r} beside its checkpoint at update {update}")
    return {name: parts[name] for name in order}
