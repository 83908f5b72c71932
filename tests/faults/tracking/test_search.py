"""An adaptive sweep whose study is lost or locked on the way: one line, and the next run goes on with the same suggestions."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from service.ledger import manifest
from service.storage import paths
from tests.s3 import Server

from ..conftest import SETTINGS, Fresh, Record
from ..support.invariants import Twin, check, twin_of
from ..support.nursery import Ended, Nursery

NAME = "td3bc_adaptive"
SEARCH = {"seeds": "0", "search.suggestions": "4", "search.objective": "score"}
CHOSEN = [
    f"--set={name}={value}" for name, value in ({k: v for k, v in SETTINGS.items() if k not in ("pruners", "sparsities")} | SEARCH).items()
]


def search(nursery: Nursery, storage: Path, *faults: str, database: str = "") -> Ended:
    """The search, in stacks of two."""
    more = ["--device=cpu", "--stack-size=2", "--checkpoint-every=20", *([f"--study-storage={database}"] if database else [])]
    return nursery.run("run", NAME, f"--storage={storage}", *CHOSEN, *more, faults=["no_table", *faults])


@pytest.fixture(scope="module")
def searched(nursery: Nursery, fresh: Fresh) -> Twin:
    """The search, undisturbed."""
    storage = fresh()
    ended = search(nursery, storage)
    assert ended.code == 0, ended.out
    found = twin_of(storage, NAME)
    assert list(found.states.values()) == ["done"] * 4
    return found


@pytest.mark.parametrize("harm", ["file gone", "database gone", "database locked"])
def test_a_study_lost_on_the_way(nursery: Nursery, fresh: Fresh, searched: Twin, record: Record, harm: str) -> None:
    storage = fresh()
    file = paths.study(storage, NAME) if harm == "file gone" else storage / "studies.db"
    database = "" if harm == "file gone" else f"sqlite:///{file}?timeout=0.1"
    fault = "lock_after" if harm == "database locked" else "delete_after"
    ended = search(nursery, storage, f"{fault}=Trained@50:{file}", database=database)
    assert ended.code == 2, ended.out
    (error,) = [line for line in ended.out.splitlines() if line.startswith("error: ")]
    (command,) = re.findall(r"nothing is lost: `winnow (run td3bc_adaptive .*)` continues and rebuilds the study", error)
    assert "Traceback" not in ended.out
    again = nursery.run(*shlex.split(command), faults=["no_table"])
    assert again.code == 0, again.out
    assert check(storage, searched) == []
    record(f"adaptive search, {harm} on the way")


@pytest.mark.slow_faults
def test_early_stopping_on_s3_stops_whom_it_stops_in_a_folder(
    nursery: Nursery, fresh: Fresh, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, record: Record
) -> None:
    """There the driver hears of a score with the next checkpoint, so that a member may go on for one interval more."""
    chosen = SETTINGS | SEARCH | {"evaluations": "5", "search.stop": "asha", "search.suggestions": "6"}
    words = [f"--set={name}={value}" for name, value in chosen.items() if name not in ("pruners", "sparsities")]
    words += ["--device=cpu", "--stack-size=2", "--checkpoint-every=10", "--max-concurrent=1"]
    server = Server(tmp_path / "log")
    try:
        away = server.environment | {"WINNOW_STUDY_STORAGE": f"sqlite:///{tmp_path / 'studies.db'}"}
        for name, value in server.environment.items():
            monkeypatch.setenv(name, value)
        places = {str(fresh()): {}, f"{server.bucket('stopping')}/below": away}
        ledgers = []
        for place, environment in places.items():
            ended = nursery.run("run", NAME, f"--storage={place}", *words, faults=["no_table", "no_mlflow", "news_at_once"], **environment)
            assert ended.code == 0, ended.out
            ledgers.append(manifest.read(paths.root(place), NAME))
    finally:
        server.end()
    here, there = ({key: entry.state for key, entry in ledger.entries.items()} for ledger in ledgers)
    assert here == there
    assert {"done", "stopped"} == set(here.values())
    for key in ledgers[0].keys_in("stopped"):
        first, second = (ledger.entries[key].detail["stopped_at"] for ledger in ledgers)
        assert first < 50
        assert second in (first, first + 10)
    record("early stopping of a search on S3: as in a folder", kills="")
