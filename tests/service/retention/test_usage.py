"""What `du` counts is what is on the disk: each file once, shared trials in a row of their own."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from service.__main__ import main
from service.ledger.manifest import Manifest
from service.retention import room
from service.storage import paths
from trainables.trial import Trial

FILES = {"checkpoints/000000010.safetensors": 4000, "checkpoints/000000010.json": 200, "policy.safetensors": 1000, "masks.json": 300,
         "spool.jsonl": 700, "trial.json": 50}  # fmt: skip


def trial(storage: Path, seed: int, *sweeps: str) -> Trial:
    """A trial that some sweeps have planned, with its files and a run in MLflow."""
    made = Trial(dataset="test/hopper/random-v0", algorithm="bc", pruner="dense", seed=seed)
    for sweep in sweeps:
        journal = Manifest(storage, sweep)
        journal.plan([made])
        journal.close()
    for name, size in FILES.items():
        file = paths.trial(storage, made.key) / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(bytes(size))
    paths.shipped(storage, made.key).write_text(json.dumps({"run_id": f"{seed:032x}"}))
    artifact = paths.mlflow_artifacts(storage) / f"{seed:032x}" / "artifacts" / "policy.safetensors"
    artifact.parent.mkdir(parents=True)
    artifact.write_bytes(bytes(1000))
    return made


def test_every_byte_is_counted_once_and_for_whom(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for seed, sweeps in enumerate((["smoke"], ["smoke"], ["quickstart"], ["quickstart", "smoke"], [])):
        trial(tmp_path, seed, *sweeps)
    (tmp_path / "reports" / "smoke").mkdir(parents=True)
    (tmp_path / "reports" / "smoke" / "page.html").write_bytes(bytes(5000))
    assert main(["du", f"--storage={tmp_path}", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    rows = {tuple(row["sweeps"]): row for row in found["rows"]}
    assert {sweeps: row["trials"] for sweeps, row in rows.items()} == {
        ("smoke",): 2, ("quickstart",): 1, ("quickstart", "smoke"): 1, (): 1,
    }  # fmt: skip
    kinds = {"checkpoints": 4200, "policies and masks": 1300, "curves": 700, "artifacts": 1000}
    assert {kind: rows["smoke",]["bytes"][kind] for kind in kinds} == {kind: 2 * size for kind, size in kinds.items()}
    assert found["total"] == sum(path.stat().st_size for path in tmp_path.rglob("*") if path.is_file())
    assert found["others"]["reports"] == 5000
    assert main(["du", f"--storage={tmp_path}"]) == 0
    said = capsys.readouterr().out
    assert "quickstart + smoke" in said
    assert "of no sweep" in said


def test_the_largest_comes_first_and_a_plug_in_that_is_gone_makes_nobodys_of_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    trial(tmp_path, 0, "quickstart")
    lost = [trial(tmp_path, seed, "smoke") for seed in (1, 2)]
    journal = paths.manifest(tmp_path, "smoke")
    journal.write_text(journal.read_text().replace('"dense"', '"mine"'))
    paths.mlflow_db(tmp_path).write_bytes(bytes(300))
    paths.mlflow_db(tmp_path).with_name(f"{paths.mlflow_db(tmp_path).name}-wal").write_bytes(bytes(4000))
    assert main(["du", f"--storage={tmp_path}", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [(row["sweeps"], row["trials"]) for row in found["rows"]] == [(["smoke"], len(lost)), (["quickstart"], 1)]
    assert found["others"]["MLflow's database"] == 4300, "with what SQLite keeps beside it"


def test_an_empty_storage_takes_no_room_and_is_not_made(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["du", f"--storage={tmp_path / 'none'}"]) == 0
    assert capsys.readouterr().out == "in all: 0 B\n"
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize(("size", "said"), [(0, "0 B"), (999, "999 B"), (1000, "1.0 kB"), (34_400_000, "34 MB"), (1.2e12, "1,200 GB")])
def test_sizes_are_said_shortly(size: float, said: str) -> None:
    assert room.shown(size) == said
