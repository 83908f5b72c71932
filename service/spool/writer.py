"""The writers of spools, for trainers: a trial's lines, and a listener that splits a stack's reports among its members. No network call."""

from __future__ import annotations

import json
import math
import os
import platform
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from service.spool.lines import COMMITS, Line, committed, committed_update, read
from service.spool.usage import Usage
from service.storage import paths
from trainables.reports import Checkpointed, Diverged, Evaluated, Finished, Pruned, Report, Trained
from trainables.storage.files import append, sync_folder, write
from trainables.trial import Stack, Trial


class TrialSpool:
    """The writer of one trial's spool. It opens lazily: until the first report says where the trial goes on, nothing is written."""

    def __init__(self, storage: Path, trial: Trial, origin: Mapping[str, str]) -> None:
        self._storage, self._trial, self._origin, self._file = storage, trial, origin, -1
        self._committed, self._over, self._finished = -1, False, False

    def write(self, update: int, kind: str, **content: Any) -> None:
        """Append a line; one that repeats a committed update is dropped: it is in the file already, with the same values."""
        if self._file < 0:
            # Training that goes on from its last checkpoint has nothing to tell but its end: what led there is not computed again.
            self._open(update + 1 if kind == "finished" else update)
        if self._over and kind not in ("checkpointed", "finished"):
            return  # diverged before: whatever its place in the stack still computes is no result
        if update <= self._committed and (kind != "finished" or self._finished):
            return
        self._append({"update": update, "kind": kind, "time": _now(), **content})
        if kind in COMMITS:
            self._committed, self._over, self._finished = update, self._over or kind == "diverged", kind == "finished"

    def sync(self) -> None:
        if self._file >= 0:
            os.fsync(self._file)

    def close(self) -> None:
        if self._file >= 0:
            self.sync()
            os.close(self._file)
            self._file = -1

    def _open(self, update: int) -> None:
        """Cut off a torn line and the uncommitted lines that are now computed again, those at or past `update`."""
        path = paths.spool(self._storage, self._trial.key)
        path.parent.mkdir(parents=True, exist_ok=True)
        write(paths.trial_json(self._storage, self._trial.key), json.dumps(self._trial.to_json(), indent=1).encode())
        lines = read(path)
        self._committed = committed_update(lines)
        self._over, self._finished = (any(placed.line["kind"] == kind for placed in lines) for kind in ("diverged", "finished"))
        kept = len(committed(lines))
        while kept < len(lines) and lines[kept].update < update:
            kept += 1
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        os.ftruncate(self._file, lines[kept - 1].end if kept else 0)
        sync_folder(path.parent)
        self._append({"kind": "attempt", "time": _now(), "host": platform.node(), "pid": os.getpid(), **self._origin})

    def _append(self, line: Line) -> None:
        append(self._file, json.dumps(line).encode() + b"\n")


class StackSpool:
    """Listens to a stack's reports and writes each member's share to the member's spool.

    `origin` says where the numbers come from, by dataset id: the dataset's hash, the code's revision and so on, as text.
    """

    def __init__(self, stack: Stack, storage: Path, origin: Mapping[str, Mapping[str, str]], checkpoint_every: int) -> None:
        self.storage = storage
        self._spools = [TrialSpool(storage, trial, origin[trial.dataset]) for trial in stack.trials]
        self._every, self._last, self._usage = checkpoint_every, stack.lead.updates, Usage()

    def __call__(self, report: Report) -> None:
        match report:
            case Pruned(update=update, statistics=rows, warnings=told):
                self._each(update, "pruned", ({"metrics": row, "warnings": own} for row, own in zip(rows, told, strict=True)))
            case Trained(update=update, metrics=rows, updates_per_second=rate):
                # All members make `own` updates a second at the price of one process: `speed/stack` tells what share of it is each one's.
                own = {"speed/updates_per_second": rate / len(rows), "speed/stack": float(len(rows))} | self._usage()
                self._each(update, "trained", ({"metrics": row | own} for row in rows))
            case Evaluated(update=update, returns=returns, scores=scores, final=final):
                kind, group = ("final", "final") if final else ("evaluated", "eval")
                self._each(update, kind, (_evaluation(group, r, s) for r, s in zip(returns, scores, strict=True)))
            case Diverged(update=update, member=member, reason=reason):
                self._spools[member].write(update, "diverged", reason=reason)
            case Checkpointed(update=update):
                self._each(update, "checkpointed", ({} for _ in self._spools))
            case Finished(update=update, seconds=seconds, execution=execution):
                self._each(update, "finished", ({"seconds": seconds, "execution": execution} for _ in self._spools))
        if report.update % self._every == 0 or report.update == self._last:
            self.sync()  # a checkpoint follows: what it commits must be on disk before it

    def sync(self) -> None:
        for spool in self._spools:
            spool.sync()

    def close(self) -> None:
        for spool in self._spools:
            spool.close()

    def _each(self, update: int, kind: str, contents: Iterator[dict[str, Any]]) -> None:
        for spool, content in zip(self._spools, contents, strict=True):
            spool.write(update, kind, **content)


def _evaluation(group: str, returns: list[float], scores: list[float]) -> dict[str, Any]:
    """Means and the spread over the E episodes as metrics, and all of them as they are: statistics can be chosen later."""
    if not returns:
        return {"metrics": {}}
    if all(math.isnan(score) and not math.isnan(total) for score, total in zip(scores, returns, strict=True)):
        return {"metrics": {f"{group}/return": sum(returns) / len(returns)}, "returns": returns, "scores": []}  # no reference is known
    mean = sum(scores) / len(scores)
    spread = (sum((score - mean) ** 2 for score in scores) / len(scores)) ** 0.5
    metrics = {"return": sum(returns) / len(returns), "normalized_score": mean, "normalized_score_std": spread}
    return {"metrics": {f"{group}/{name}": value for name, value in metrics.items()}, "returns": returns, "scores": scores}


def _now() -> int:
    """Milliseconds since 1970: the source's time, which makes shipping a point twice harmless."""
    return time.time_ns() // 1_000_000
