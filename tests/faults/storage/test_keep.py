"""What is not kept of finished trials is gone, on disk and on S3, and nothing else: results, MLflow and another sweep that shares them."""

from __future__ import annotations

from pathlib import Path

import pytest

from service.storage import paths

from ..conftest import Fresh, Record, arguments
from ..support.invariants import SWEEP, Twin, check
from ..support.nursery import Nursery


def left(storage: Path) -> set[str]:
    """The names of the trials' files."""
    trials = paths.trials(storage)
    return {"/".join(file.relative_to(trials).parts[1:]) for file in trials.rglob("*") if file.is_file()} - {"attempt", "shipped.json"}


FINAL = {"trial.json", "spool.jsonl", "masks.json", "masks.safetensors", "policy.json", "policy.safetensors"}


@pytest.mark.parametrize(("keep", "files"), [("final", FINAL), ("curves", {"trial.json", "spool.jsonl"})])
def test_only_what_is_kept_is_left_and_all_is_in_mlflow(
    keep: str, files: set[str], nursery: Nursery, fresh: Fresh, twin: Twin, record: Record
) -> None:
    storage = fresh()
    killed = nursery.run(*arguments(storage), f"--keep={keep}", faults=["no_table", "die_after=Trained@31"])
    assert killed.code == 137, killed.out
    assert any(name.startswith("checkpoints/") for name in left(storage)), "a trial in training keeps them"
    ended = nursery.run(*arguments(storage), f"--keep={keep}", faults=["no_table"])
    assert ended.code == 0, ended.out
    assert left(storage) == files
    verified = nursery.run("verify", SWEEP, f"--storage={storage}")
    assert verified.code == 0, verified.out
    assert [wrong for wrong in check(storage, twin) if not wrong.startswith("files: ")] == []
    again = nursery.run(*arguments(storage), faults=["no_table", f"work={storage / 'work'}"])
    assert (again.code, (storage / "work").exists()) == (0, False), "what is done is not done again"
    (key, *_) = twin.states
    exported = nursery.run("export", key, f"--storage={storage}", f"--to={storage / 'exported'}")
    assert exported.code == 0, exported.out
    record(f"--keep {keep}, killed on the way", redone=20)
