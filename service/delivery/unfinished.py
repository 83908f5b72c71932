"""What an unfinished trial takes along to another storage: its newest whole checkpoint, and its log up to that."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from service.delivery import archive_file
from service.spool import complete
from service.spool import lines as spool
from service.storage import paths
from trainables.storage import checkpoint_files
from trainables.trial import Trial


@dataclass(frozen=True)
class Unfinished:
    """The files of a trial by their path in its folder, in the order in which they are written, and the checkpoint's update."""

    update: int
    parts: Mapping[str, bytes]


def take_along(storage: Path, trial: Trial) -> Unfinished | None:
    """None where there is no checkpoint that `adopt` would take, or one before what the log has committed, and for a trial that has ended.

    A driver may be at work: a checkpoint is read before the log, which then holds all that came before it."""
    about = paths.trial_json(storage, trial.key)
    updates = checkpoint_files.updates(storage, trial.key)
    for update in updates:
        files = [of(storage, trial.key, update) for of in (checkpoint_files.tensor_file, checkpoint_files.head_file)]
        with contextlib.suppress(FileNotFoundError, ValueError, KeyError):  # the driver removes old ones; a torn one is none
            contents = [file.read_bytes() for file in files]
            lines = spool.read(paths.spool(storage, trial.key))
            if spool.end_line(lines):
                return None
            if spool.committed_update(lines) > update:  # what is committed would not be written again
                gone_on = checkpoint_files.updates(storage, trial.key) != updates
                return take_along(storage, trial) if gone_on else None
            end = next((placed.start for placed in lines if placed.update > update), lines[-1].end if lines else 0)
            parts = {"trial.json": about.read_bytes(), "spool.jsonl": paths.spool(storage, trial.key).read_bytes()[:end]}
            parts |= {path.name: path.read_bytes() for path in [paths.masks_json(storage, trial.key)] if path.exists()}
            parts |= {f"checkpoints/{file.name}": content for file, content in zip(files, contents, strict=True)}
            if max(map(len, contents)) <= archive_file.largest(files[0].name):
                return Unfinished(update, check(parts, trial, update))
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
