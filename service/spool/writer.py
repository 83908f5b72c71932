"""Writes spools while a stack trains: each member's share of a report goes to the member's own spool. Makes no network call."""

from __future__ import annotations

import json
import os
import platform
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from service.spool.lines import COMMITS, Line, committed, committed_update, read
from service.spool.usage import Usage
from service.storage import paths
from trainables import plugins
from trainables.evaluation.metrics import known, metrics_of
from trainables.native import build
from trainables.reports import Checkpointed, Diverged, Evaluated, Finished, Pruned, Report, Trained
from trainables.storage.files import append, sync_folder, write
from trainables.trial import Stack, Trial


class TrialSpool:
    """The writer of one trial's spool. Writes nothing before the first report, whose update says where training resumes."""

    def __init__(self, storage: Path, trial: Trial, origin: Mapping[str, str]) -> None:
        self._storage, self._trial, self._origin, self._file = storage, trial, origin, -1
        self._committed, self._diverged, self._finished = -1, False, False

    def write(self, update: int, kind: str, **content: Any) -> None:
        """Append a line. Drops lines of committed updates, which the file already holds with the same values."""
        if self._file < 0:
            # After resuming from its last checkpoint a trial only reports its end; earlier lines will not be written again.
            self._open(update + 1 if kind == "finished" else update)
        if self._diverged and kind not in ("checkpointed", "finished"):
            return  # what the stack still computes for this member is meaningless
        if update <= self._committed and (kind != "finished" or self._finished):
            return
        self._append({"update": update, "kind": kind, "time": _now(), **content})
        if kind in COMMITS:
            self._committed, self._diverged, self._finished = update, self._diverged or kind == "diverged", kind == "finished"

    def sync(self) -> None:
        if self._file >= 0:
            os.fsync(self._file)

    def close(self) -> None:
        if self._file >= 0:
            self.sync()
            os.close(self._file)
            self._file = -1

    def _open(self, update: int) -> None:
        """Open for appending; cuts off a torn line and the uncommitted lines from `update` on, which will be written again."""
        path = paths.spool(self._storage, self._trial.key)
        about = json.dumps(self._trial.to_json(), indent=1).encode()
        write(paths.trial_json(self._storage, self._trial.key), about, below=self._storage)
        there = path.stat().st_size if path.exists() else 0
        lines = read(path)
        self._committed = committed_update(lines)
        self._diverged, self._finished = (any(placed.line["kind"] == kind for placed in lines) for kind in ("diverged", "finished"))
        kept = len(committed(lines))
        while kept < len(lines) and lines[kept].update < update:
            kept += 1
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
        if (valid := lines[kept - 1].end if kept else 0) < there:  # only where there was something to cut: what came since is another's
            os.ftruncate(self._file, valid)
        sync_folder(path.parent)
        machine = {"host": platform.node(), "kernels": build.simd()}
        self._append({"kind": "attempt", "time": _now(), "pid": os.getpid(), **machine, **self._origin})

    def _append(self, line: Line) -> None:
        append(self._file, json.dumps(line).encode() + b"\n")


class StackSpool:
    """Writes the reports of a stack to its members' spools, below a storage that is there.

    `origin`, by dataset id, is the provenance of the numbers as text: the dataset's hash, the code's revision and so on. The hashes of the
    plug-ins that do not ship with Winnow are added to it.
    """

    def __init__(self, stack: Stack, storage: Path, origin: Mapping[str, Mapping[str, str]], checkpoint_every: int) -> None:
        self.storage = storage
        self.dataset_hash = origin[stack.lead.dataset].get("dataset_hash", "")
        self._spools = [TrialSpool(storage, trial, _with_plug_ins(origin[trial.dataset], trial)) for trial in stack.trials]
        self._every, self._last, self._usage = checkpoint_every, stack.lead.updates, Usage()

    def __call__(self, report: Report) -> None:
        match report:
            case Pruned(update=update, statistics=rows, warnings=warnings):
                self._each(update, "pruned", ({"metrics": row, "warnings": texts} for row, texts in zip(rows, warnings, strict=True)))
            case Trained(update=update, metrics=rows, updates_per_second=rate):
                # A member's speed is its share of the stack's: all members train in one process; `speed/stack` is their number.
                speed = {"speed/updates_per_second": rate / len(rows), "speed/stack": float(len(rows))} | self._usage()
                self._each(update, "trained", ({"metrics": row | speed} for row in rows))
            case Evaluated(update=update, episodes=episodes, final=final):
                kind, group = ("final", "final") if final else ("evaluated", "eval")
                self._each(update, kind, (_evaluation(group, each) for each in episodes))
            case Diverged(update=update, member=member, reason=reason):
                self._spools[member].write(update, "diverged", reason=reason)
            case Checkpointed(update=update):
                self._each(update, "checkpointed", ({} for _ in self._spools))
            case Finished(update=update, seconds=seconds, execution=execution):
                self._each(update, "finished", ({"seconds": seconds, "execution": execution} for _ in self._spools))
        if report.update % self._every == 0 or report.update == self._last:
            self.sync()  # a checkpoint follows, and the lines that it commits must be on disk first

    def sync(self) -> None:
        for spool in self._spools:
            spool.sync()

    def close(self) -> None:
        for spool in self._spools:
            spool.close()

    def _each(self, update: int, kind: str, contents: Iterator[dict[str, Any]]) -> None:
        for spool, content in zip(self._spools, contents, strict=True):
            spool.write(update, kind, **content)


def _with_plug_ins(origin: Mapping[str, str], trial: Trial) -> Mapping[str, str]:
    """`plugins`: `pruners/steepest 1f2e..., environments/mine 3c4d...`, left out where all of them ship with Winnow."""
    given = {"algorithms": trial.algorithm, "pruners": trial.pruner}
    hashes = [f"{kind}/{name} {found}" for kind, name in given.items() if (found := plugins.source_hash(kind, name))]
    all_of_them = ", ".join([*hashes, *filter(None, [origin.get("plugins")])])
    return {**origin, "plugins": all_of_them} if all_of_them else origin


def _evaluation(group: str, episodes: Mapping[str, list[float]]) -> dict[str, Any]:
    """The metrics of an evaluation, and its episodes for later statistics."""
    if not episodes["returns"]:
        return {"metrics": {}}
    quantities = known(episodes)
    return {"metrics": {f"{group}/{name}": value for name, value in metrics_of(quantities).items()}, **quantities}


def _now() -> int:
    """Milliseconds since 1970. Points keep this time, which makes shipping idempotent."""
    return time.time_ns() // 1_000_000
