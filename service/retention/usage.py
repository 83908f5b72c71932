"""`winnow du`: what takes up space in a storage, by sweep and kind. What several sweeps share is counted once, in a row of its own."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from service.ledger import manifest
from service.retention import room
from service.retention.room import Sizes
from service.storage import paths, s3, trial_objects
from service.terminal.columns import aligned
from service.tracking.cursor import run_id_of

ARTIFACTS = "artifacts"  # of MLflow, where they are in the storage
NOBODYS = "of no sweep"
COLUMNS = ("", "trials", *room.KINDS, ARTIFACTS, "in all")


@dataclass
class Row:
    """The trials of one sweep alone, of several sweeps, or of none."""

    sweeps: tuple[str, ...]
    trials: int = 0
    sizes: Sizes = field(default_factory=Counter)

    @property
    def name(self) -> str:
        return " + ".join(self.sweeps) or NOBODYS

    @property
    def total(self) -> int:
        return sum(self.sizes.values())


@dataclass(frozen=True)
class Usage:
    """`rows`, the largest first, and the bytes of everything else by what it is."""

    rows: list[Row]
    others: Mapping[str, int]

    @property
    def total(self) -> int:
        return sum(row.total for row in self.rows) + sum(self.others.values())

    def to_json(self) -> dict[str, Any]:
        rows = [{"sweeps": list(row.sweeps), "trials": row.trials, "bytes": dict(row.sizes), "total": row.total} for row in self.rows]
        return {"rows": rows, "others": dict(self.others), "total": self.total}


def read(storage: Path) -> Usage:
    """Measure everything; writes nothing. On S3 it is the bucket that is measured, and MLflow's files are those on this host."""
    trial_objects.pull(storage)
    users: dict[str, list[str]] = {}
    for name, ledger in sorted(manifest.read_all(storage).items()):
        for key in (*ledger.entries, *ledger.unreadable):
            users.setdefault(key, []).append(name)
    rows: dict[tuple[str, ...], Row] = {}
    for key, sizes in room.of_trials(storage).items():
        row = rows.setdefault(sweeps := tuple(users.get(key, ())), Row(sweeps))
        row.trials += 1
        row.sizes += sizes
        if run := run_id_of(storage, key):
            row.sizes[ARTIFACTS] += room.of_folder(paths.mlflow_artifacts(storage) / run)
    found = sorted(rows.values(), key=lambda row: (-row.total, row.name))
    counted = sum(row.sizes[ARTIFACTS] for row in found)
    others = {"journals, leases, studies": room.of_folder(paths.sweeps(storage)), "MLflow's database": _size(paths.mlflow_db(storage))}
    others |= {"other artifacts of MLflow": room.of_folder(paths.mlflow_artifacts(storage)) - counted}
    folders = (paths.reports(storage), paths.ray_results(storage), paths.forgotten(storage))
    others |= {folder.name: room.of_folder(folder) for folder in folders}
    if bucket := s3.bucket_of(storage):
        others["journals, leases, studies"] = sum(bucket.sizes("sweeps/").values())
    return Usage(found, {what: size for what, size in others.items() if size})


def describe(usage: Usage) -> str:
    rows = [COLUMNS, *(_cells(row) for row in usage.rows)]
    lines = [aligned(rows)] if usage.rows else []
    lines += [f"{what}: {room.shown(size)}" for what, size in usage.others.items()]
    return "\n".join([*lines, f"in all: {room.shown(usage.total)}"])


def _cells(row: Row) -> tuple[str, ...]:
    sizes = (room.shown(size) if (size := row.sizes[kind]) else "" for kind in (*room.KINDS, ARTIFACTS))
    return (row.name, str(row.trials), *sizes, room.shown(row.total))


def _size(file: Path) -> int:
    """Of a database and what SQLite keeps beside it."""
    return sum(path.stat().st_size for path in file.parent.glob(f"{file.name}*") if path.is_file())
