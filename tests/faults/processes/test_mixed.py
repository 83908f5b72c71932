"""Good trials beside bad ones, a grid that changes, a clock that jumps, trials that go on in another storage."""

from __future__ import annotations

from pathlib import Path

import pytest

from service.ledger import manifest
from service.storage import paths

from ..conftest import EVERY, QUICK, Fresh, Record, arguments, whole
from ..support.invariants import Twin, attempts, check, redone
from ..support.nursery import Nursery

BAD = {"sparsities": "0.8,0.9,0.9999", "hyper.learning_rate": "0.0003,1e30"}  # SNIP at 99.99 % leaves no path


def test_good_trials_end_as_ever_beside_bad_ones(nursery: Nursery, fresh: Fresh, twin: Twin, record: Record) -> None:
    """Divergence and a user's error, in stacks of six that lose their driver halfway, with a memory for three."""
    storage = fresh()
    given = arguments(storage, size=6, **BAD)
    faults = [*QUICK, "out_of_memory_above=3", f"work={storage / 'work'}"]
    assert nursery.run(*given, faults=[*faults, "die_after=Trained@30"]).code == 137
    ended = nursery.run(*given, faults=faults)
    assert ended.code == 1, ended.out
    assert "Traceback" not in ended.out
    ledger = manifest.read(storage, "smoke")
    ends = {(e.trial.sparsity, e.trial.hyper_values()["learning_rate"]): (e.state, e.detail.get("reason")) for e in ledger.entries.values()}
    assert ends == {
        (0.8, 0.0003): ("done", None), (0.9, 0.0003): ("done", None), (0.9999, 0.0003): ("failed", "user_error"),
        (0.8, 1e30): ("diverged", "divergence"), (0.9, 1e30): ("diverged", "divergence"), (0.9999, 1e30): ("failed", "user_error"),
    }  # fmt: skip
    assert whole(nursery, storage, twin) == []
    assert redone(storage / "work") <= EVERY
    record("out of memory, divergence and a user's error beside good trials, driver killed halfway", redone=redone(storage / "work"))


def test_more_trials_and_fewer_before_going_on(nursery: Nursery, fresh: Fresh, twin: Twin, record: Record) -> None:
    """A changed grid adds what is new; what it no longer names is given back, for the grid that names it again."""
    storage = fresh()
    faults = [*QUICK, f"work={storage / 'work'}"]
    assert nursery.run(*arguments(storage), faults=[*faults, "die_after=Trained@30"]).code == 137
    other = arguments(storage, seeds="1")
    assert nursery.run(*other, faults=faults).code == 0
    ledger = manifest.read(storage, "smoke")
    assert sorted((e.trial.seed, e.state) for e in ledger.entries.values()) == [(0, "planned"), (0, "planned"), (1, "done"), (1, "done")]
    assert nursery.run(*arguments(storage, seeds="0,1"), faults=faults).code == 0
    assert whole(nursery, storage, twin) == []
    assert redone(storage / "work") <= EVERY
    spools = {path: path.read_bytes() for path in paths.trials(storage).rglob("spool.jsonl")}
    assert nursery.run(*arguments(storage, seeds="0,1"), faults=faults).code == 0
    assert {path: path.read_bytes() for path in paths.trials(storage).rglob("spool.jsonl")} == spools
    record("killed, then another grid, then both", redone=redone(storage / "work"))


@pytest.mark.parametrize("seconds", [-86_400, pytest.param(86_400 * 365, marks=pytest.mark.slow_faults)])
def test_a_clock_that_jumps_changes_nothing(nursery: Nursery, fresh: Fresh, twin: Twin, seconds: int, record: Record) -> None:
    """Between two runs and within the second: by all that is written, the second one comes before the first one where it jumps back."""
    storage = fresh()
    assert nursery.run(*arguments(storage), faults=["no_table", f"clock_off={-seconds}", "die_after=Trained@30"]).code == 137
    ended = nursery.run(*arguments(storage), faults=["no_table", f"clock_jumps={seconds}"])
    assert ended.code == 0, ended.out
    assert check(storage, twin) == []
    record(f"clock jumps by {seconds / 86_400:+.0f} d and back all the time, and a kill")


def test_killed_again_and_again_no_work_is_done_twice(nursery: Nursery, fresh: Fresh, twin: Twin, record: Record) -> None:
    storage = fresh()
    faults = [*QUICK, f"work={storage / 'work'}"]
    for update in range(4, 50, 9):
        assert nursery.run(*arguments(storage), faults=[*faults, f"die_after=Trained@{update}"]).code == 137
    assert nursery.run(*arguments(storage), faults=faults).code == 0
    assert whole(nursery, storage, twin) == []
    most = redone(storage / "work")
    assert 0 < most <= EVERY
    record("killed again and again by the updates", kills=len(range(4, 50, 9)), redone=most)


def test_members_go_on_alone_and_in_another_stack(nursery: Nursery, fresh: Fresh, twin: Twin, record: Record) -> None:
    """Killed as a stack of two, then each alone, then as two again, of which one has come further: it does not wait for the other."""
    storage = fresh()
    faults = [*QUICK, f"work={storage / 'work'}"]
    for size, update in ((2, 11), (1, 25), (2, 45)):
        assert nursery.run(*arguments(storage, size=size), faults=[*faults, f"die_after=Trained@{update}"]).code == 137
    assert nursery.run(*arguments(storage, size=2), faults=faults).code == 0
    assert whole(nursery, storage, twin) == []
    most = redone(storage / "work")
    assert most <= EVERY
    record("killed as a stack of two, then alone, then as two", kills=3, redone=most)


@pytest.mark.parametrize(("moment", "update"), [("Trained@11", 0), ("Trained@30", 20), ("Trained@45", 40), ("Checkpointed@50", 50)])
def test_unfinished_trials_end_in_another_storage_as_they_would_have_here(
    nursery: Nursery, fresh: Fresh, twin: Twin, tmp_path: Path, moment: str, update: int, record: Record
) -> None:
    """Killed, archived, adopted twice elsewhere and run to their end, also those that have only to end."""
    storage, other, file = fresh(), fresh(), tmp_path / "smoke.zip"
    faults = [*QUICK, f"work={other / 'work'}"]
    assert nursery.run(*arguments(storage), faults=[*QUICK, f"work={storage / 'work'}", f"die_after={moment}"]).code == 137
    assert nursery.run("archive", "smoke", f"--to={file}", f"--storage={storage}").code == 2
    archived = nursery.run("archive", "smoke", "--unfinished", f"--to={file}", f"--storage={storage}")
    assert "0 finished and 2 unfinished trials" in archived.out
    adopted = nursery.run("adopt", str(file), f"--storage={other}")
    assert "smoke: 2 trials adopted (2 unfinished)\n" in adopted.out
    again = nursery.run("adopt", str(file), f"--storage={other}")
    assert "smoke: 0 trials adopted, 2 have begun here and were skipped\n" in again.out
    assert nursery.run("sync", "smoke", f"--storage={other}", faults=["no_table"]).code == 0
    assert nursery.run(*arguments(other), faults=faults).code == 0
    assert {attempt.first for attempt in attempts(other / "work")} == {update if update < 50 else -1}
    assert whole(nursery, other, twin) == []
    record(f"killed after {moment} and carried to another storage", redone=redone(storage / "work", other / "work"))


def test_unfinished_trials_without_a_whole_checkpoint_are_named(nursery: Nursery, fresh: Fresh, tmp_path: Path) -> None:
    storage, file = fresh(), tmp_path / "smoke.zip"
    assert nursery.run(*arguments(storage), faults=[*QUICK, "die_after=Trained@30"]).code == 137
    key = next(iter(manifest.read(storage, "smoke").entries))
    for checkpoint in paths.checkpoints(storage, key).glob("*.safetensors"):
        checkpoint.write_bytes(checkpoint.read_bytes()[:-1])
    archived = nursery.run("archive", "smoke", "--unfinished", f"--to={file}", f"--storage={storage}")
    assert "0 finished and 1 unfinished trials" in archived.out
    assert "\n1 more have begun and stay behind: no checkpoint of theirs is whole and fits their log\n" in archived.out
