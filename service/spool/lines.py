"""Reads the spool, the append-only log of JSON lines that each trial has and that MLflow is populated from.

A point is committed once a checkpoint at or after its update is on disk, which a later line records. Only committed points are shipped, so
a resumed trial may repeat the others: its first report cuts off the lines that it will write again.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trainables.errors import UserError

Line = dict[str, Any]
COMMITS = ("checkpointed", "diverged", "finished")  # updates up to that of such a line will not be repeated


@dataclass(frozen=True)
class Placed:
    """A line of the spool with its position in the file, in bytes."""

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
    """The lines from byte `offset` on, without a last line torn by a crash. Raises UserError for a damaged file."""
    if not path.exists():
        return []
    with path.open("rb") as file:
        file.seek(offset)
        try:
            return list(_whole_lines(file.read(), offset))
        except ValueError as error:
            raise UserError(f"{path} is damaged: {error}") from error


def committed(lines: Sequence[Placed]) -> list[Placed]:
    """The lines up to and including the last one that commits."""
    last = max((i for i, placed in enumerate(lines) if placed.commits), default=-1)
    return list(lines[: last + 1])


def committed_update(lines: Sequence[Placed]) -> int:
    """The last committed update; -1 if there is none."""
    return max((placed.update for placed in lines if placed.commits), default=-1)


def origin(path: Path) -> Line:
    """The `attempt` line under which a trial began what it has committed: its data and its code. Empty where nothing is committed.

    Reads no further than the first committed line. Raises UserError for a damaged file."""
    attempt: Line = {}
    try:
        with path.open("rb") as file:
            for raw in file:
                line = json.loads(raw) if raw.endswith(b"\n") else {"kind": "torn"}
                if line["kind"] == "attempt":
                    attempt = line
                elif line["kind"] in COMMITS:
                    return attempt
    except FileNotFoundError:
        return {}
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path} is damaged: {error}") from error
    return {}


def end_line(lines: Sequence[Placed]) -> Line | None:
    """The line that ended the trial; `diverged` takes precedence over `finished`. None if it has not ended."""
    ends = {placed.line["kind"]: placed.line for placed in lines if placed.line["kind"] in ("diverged", "finished")}
    return ends.get("diverged") or ends.get("finished")


def points(lines: Sequence[Placed]) -> list[tuple[str, float, int, int]]:
    """(metric, value, milliseconds since 1970, update) of every metric in the lines."""
    return [
        (name, float(value), int(placed.line["time"]), placed.update)
        for placed in lines
        for name, value in placed.line.get("metrics", {}).items()
    ]


def evaluations(lines: Sequence[Placed]) -> list[Line]:
    """Every evaluation with all its episodes; the one of the final episodes, if any, comes last and is marked `final`."""
    return [
        {name: value for name, value in placed.line.items() if name == "update" or isinstance(value, list)}
        | ({"final": True} if placed.line["kind"] == "final" else {})
        for placed in lines
        if "returns" in placed.line
    ]


def _whole_lines(data: bytes, offset: int) -> Iterator[Placed]:
    for raw in data.splitlines(keepends=True):
        if not raw.endswith(b"\n"):
            return
        yield Placed(json.loads(raw), offset, offset + len(raw))
        offset += len(raw)
