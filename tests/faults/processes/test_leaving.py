"""A worker that is asked to leave commits what it has done, at any update, and its trials then end as if it had never left."""

from __future__ import annotations

from pathlib import Path

import pytest

from ..conftest import QUICK, Fresh, Record, arguments
from ..support.invariants import Twin, attempts, check, redone, twin_of
from ..support.nursery import Nursery

EVERY = 150
SETTINGS = {"algorithms": "td3_bc", "pruners": "gmp", "updates": "450", "evaluations": "2"}
# 9 updates lie between two reports, a GMP mask changes every 3, and an actor is updated every 2: never in the last one before update 99.
# A tape is compared first, which takes two more updates.
MOMENTS = {"dense": "3,97,250,440", "sparse": "3,95,250,440"}


def given(storage: Path, size: int, execution: str) -> list[str]:
    return [*arguments(storage, EVERY, size, **SETTINGS), f"--execution={execution}"]


@pytest.fixture(scope="module", params=[(2, "dense"), (1, "sparse")], ids=["dense stack", "sparse"])
def undisturbed(request: pytest.FixtureRequest, nursery: Nursery, fresh: Fresh) -> tuple[int, str, Twin]:
    storage = fresh()
    size, execution = request.param
    assert nursery.run(*given(storage, size, execution), faults=QUICK).code == 0
    return size, execution, twin_of(storage)


def test_a_worker_that_leaves_loses_nothing(undisturbed: tuple[int, str, Twin], nursery: Nursery, fresh: Fresh, record: Record) -> None:
    size, execution, twin = undisturbed
    storage = fresh()
    ended = nursery.run(*given(storage, size, execution), faults=[*QUICK, f"leaves_at={MOMENTS[execution]}", f"work={storage / 'work'}"])
    assert ended.code == 0, ended.out
    assert len(attempts(storage / "work")) == (2 // size) * (1 + len(MOMENTS[execution].split(",")))
    assert check(storage, twin, tracking=None) == []
    assert redone(storage / "work") == 0
    record(f"worker asked to leave at updates {MOMENTS[execution]} of 450, {execution}", kills=4, redone=0)


def test_without_its_commit_it_loses_what_came_after_the_checkpoint(
    undisturbed: tuple[int, str, Twin], nursery: Nursery, fresh: Fresh
) -> None:
    size, execution, twin = undisturbed
    storage = fresh()
    faults = [*QUICK, f"leaves_at={MOMENTS[execution]}", f"work={storage / 'work'}", "no_commit_on_leaving"]
    assert nursery.run(*given(storage, size, execution), faults=faults).code == 0
    assert check(storage, twin, tracking=None) == []
    assert redone(storage / "work") > EVERY / 2


def test_without_what_is_unreported_the_next_report_is_another(undisturbed: tuple[int, str, Twin], nursery: Nursery, fresh: Fresh) -> None:
    size, execution, twin = undisturbed
    storage = fresh()
    assert nursery.run(*given(storage, size, execution), faults=[*QUICK, f"leaves_at={MOMENTS[execution]}", "nothing_unreported"]).code == 0
    assert any("spool" in wrong for wrong in check(storage, twin, tracking=None))
