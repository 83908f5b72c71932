"""The spool: an append-only file of JSON lines per trial, from which MLflow is filled. Trainers write it and make no network call.

A point is committed when a checkpoint at or past its update is on disk, which a later line says. Only committed points are ever
shipped, so a resumed trial may write the others again: the first report after a resume cuts off what it is about to repeat.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trainables.errors import UserError

Line = dict[str, Any]
COMMITS = ("checkpointed", "diverged", "finished")  # nothing up to such a line's update will be computed again


@dataclass(frozen=True)
class Placed:
    """A line of the spool, the update it belongs to and the byte offsets where it starts and ends."""

    line: Line
    start: int
    end: int

    @property
    def update(self) -> int:
        return int(self.line.get("update", -1))

    @property
    def commits(self) -> bool:
        return self.line["kind"] in COMMITS


def read(path: Path, offset: int = 0) -> list[Placed]:
    """The whole lines from byte `offset` on; a torn last line, left by a crash, is not one. Raises UserError for a damaged file."""
    if not path.exists():
        return []
    with path.open("rb") as file:
        file.seek(offset)
        try:
            return list(_whole_lines(file.read(), offset))
        except ValueError as error:
            raise UserError(f"{path} is damaged: {error}") from error


def committed(lines: Sequence[Placed]) -> list[Placed]:
    """The lines up to and with the last one that commits."""
    last = max((i for i, placed in enumerate(lines) if placed.commits), default=-1)
    return list(lines[: last + 1])


def committed_update(lines: Sequence[Placed]) -> int:
    """The update up to which nothing will be computed again; -1 where nothing is committed."""
    return max((placed.update for placed in lines if placed.commits), default=-1)


def outcome(lines: Sequence[Placed]) -> Line | None:
    """The line that says how the trial ended, `diverged` before `finished`; None where it has not."""
    ends = {placed.line["kind"]: placed.line for placed in lines if placed.line["kind"] in ("diverged", "finished")}
    return ends.get("diverged") or ends.get("finished")


def points(lines: Sequence[Placed]) -> list[tuple[str, float, int, int]]:
    """(metric, value, milliseconds since 1970, update) of every number in the lines."""
    return [
        (name, float(value), int(placed.line["time"]), placed.update)
        for placed in lines
        for name, value in placed.line.get("metrics", {}).items()
    ]


def evaluations(lines: Sequence[Placed]) -> list[Line]:
    """Every evaluation with all its episodes; that of the final ones, if there is one, comes last and says that it is `final`."""
    return [
        {name: placed.line[name] for name in ("update", "returns", "scores")} | ({"final": True} if placed.line["kind"] == "final" else {})
        for placed in lines
        if "returns" in placed.line
    ]


def _whole_lines(data: bytes, offset: int) -> Iterator[Placed]:
    for raw in data.splitlines(keepends=True):
        if not raw.endswith(b"\n"):
            return
        yield Placed(json.loads(raw), offset, offset + len(raw))
        offset += len(raw)
