"""An adaptive sweep whose study is lost or locked on the way: one line, and the next run goes on with the same suggestions."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from service.storage import paths

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
    (command,) = re.findall(r"nothing is lost: `python -m service (run td3bc_adaptive .*)` continues and rebuilds the study", error)
    assert "Traceback" not in ended.out
    again = nursery.run(*shlex.split(command), faults=["no_table"])
    assert again.code == 0, again.out
    assert check(storage, searched) == []
    record(f"adaptive search, {harm} on the way")
