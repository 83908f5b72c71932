"""`forget` killed at any moment: a second one finishes it, what another sweep uses is whole, and what is run again is as if new."""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Iterable
from pathlib import Path

import pytest

from service.ledger import manifest
from service.storage import paths
from tests.service.trained import put_back

from ..conftest import Fresh, Record, arguments
from ..support.invariants import SWEEP, Twin, check, twin_of
from ..support.nursery import Nursery

OTHER, OWN = "quickstart", "0.8,0.9"
STRIDE = 3  # of the quick test; the slow one takes every boundary


def given(storage: Path, sweep: str, sparsities: str) -> list[str]:
    return ["run", sweep, *arguments(storage, sparsities=sparsities)[2:], "--set=algorithms=bc"]


@pytest.fixture(scope="module")
def trained(nursery: Nursery, fresh: Fresh) -> tuple[Path, Twin, Twin]:
    """A storage with a sweep of two trials, and another one that uses the second of them and one more; what both look like."""
    storage = fresh()
    for sweep, sparsities in ((SWEEP, OWN), (OTHER, "0.9,0.95")):
        assert nursery.run(*given(storage, sweep, sparsities), faults=["no_table"]).code == 0
    shutil.copytree(storage, storage.with_name("kept"))
    return storage, twin_of(storage), twin_of(storage, OTHER)


def kill_at(numbers: Iterable[int], nursery: Nursery, trained: tuple[Path, Twin, Twin]) -> tuple[dict[int, list[str]], int]:
    """What is wrong after a kill at each boundary: at once, when the sweep is run again at once, and after a second `forget`."""
    storage, twin, other = trained
    problems, kills = {}, 0
    words = ["forget", SWEEP, f"--storage={storage}", "--yes"]
    for number in numbers:
        for again in (True, False):
            put_back(storage)
            killed = nursery.run(*words, faults=[f"die_at={number}"])
            assert killed.code in (137, 0), killed.out
            kills += killed.code == 137
            found = []
            if again:
                ran = nursery.run(*given(storage, SWEEP, OWN), faults=["no_table"])
                found += [ran.out[-500:]] if ran.code else check(storage, twin, tracking=None)
                verified = nursery.run("verify", SWEEP, f"--storage={storage}")
                found += [verified.out[-500:]] if verified.code else []
            else:
                finished = nursery.run(*words)
                if paths.sweep(storage, SWEEP).exists():
                    found.append(finished.out[-500:])
                if {*manifest.read(storage, OTHER).entries} != {folder.name for folder in paths.trials(storage).iterdir()}:
                    found.append("not only the other sweep's trials are left")
                if (count := runs(storage)) != 3:
                    found.append(f"{count} runs in MLflow, not the other sweep's and those of its trials")
                found += check(storage, other)
            verified = nursery.run("verify", OTHER, f"--storage={storage}")
            found += [verified.out[-500:]] if verified.code else []
            if found:
                problems[number] = found
    return problems, kills


def runs(storage: Path) -> int:
    with sqlite3.connect(paths.mlflow_db(storage)) as database:
        return int(database.execute("SELECT count(*) FROM runs").fetchone()[0])


@pytest.fixture(scope="module")
def boundaries(nursery: Nursery, trained: tuple[Path, Twin, Twin]) -> int:
    """How many fsyncs and renames an undisturbed one makes."""
    put_back(trained[0])
    ended = nursery.run("forget", SWEEP, f"--storage={trained[0]}", "--yes", faults=["count"])
    assert ended.code == 0, ended.out
    return ended.boundaries


def test_a_kill_at_some_moments(nursery: Nursery, trained: tuple[Path, Twin, Twin], boundaries: int, record: Record) -> None:
    problems, kills = kill_at(range(2, boundaries + 1, STRIDE), nursery, trained)
    assert problems == {}
    assert kills
    record(f"forget killed at every {STRIDE}th of {boundaries} fsyncs and renames", kills=kills)


@pytest.mark.slow_faults
def test_a_kill_at_every_moment(nursery: Nursery, trained: tuple[Path, Twin, Twin], boundaries: int, record: Record) -> None:
    problems, kills = kill_at(range(1, boundaries + 1), nursery, trained)
    assert problems == {}
    assert kills >= boundaries
    record(f"forget killed at every fsync and rename ({boundaries})", kills=kills)
