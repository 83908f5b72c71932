"""Parts of a sweep: further drivers that train its trials on the same storage, each a trial that no other has."""

from __future__ import annotations

import contextlib
import re
from pathlib import Path

import pytest

from search_spaces.sweep import load_sweep
from service.driving import driver as module
from service.driving.driver import Driver
from service.ledger.manifest import Manifest
from service.planning.options import TrainingOptions
from service.planning.plan import make_plan
from service.planning.run_settings import RunSettings
from service.storage import paths
from service.terminal.display import Display
from trainables import project
from trainables.errors import UserError
from trainables.trial import Stack, Trial

SETTINGS = ("datasets=test/hopper/random-v0", "pruners=snip", "seeds=0-9")


def begin(storage: Path, name: str) -> tuple[Driver, Manifest]:
    settings = RunSettings(overrides=SETTINGS, options=TrainingOptions(device="cpu", stack_size=2))
    plan = make_plan(name, settings, storage=storage)
    journal = Manifest(storage, name)
    driver = Driver(plan, journal, storage, Display())
    driver.prepare()
    driver.begin("cpu", 1)
    return driver, journal


def keys(stack: Stack | None) -> list[str]:
    return [trial.key for trial in stack.trials] if stack else []


def finish(driver: Driver, journal: Manifest, stack: Stack) -> None:
    """The stack is done, without the training."""
    journal.record("done", {trial.key: {} for trial in stack.trials})
    driver._out -= set(keys(stack))


@pytest.fixture(autouse=True)
def no_pause(hopper: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LOOK_EVERY", 0.0)


def test_three_drivers_train_each_trial_once_and_the_sweeps_own_ends_with_all(tmp_path: Path) -> None:
    drivers = [begin(tmp_path, name) for name in ("smoke", "smoke.part1", "smoke.part2")]
    taken: list[str] = []
    first = [driver.next() for driver, _ in drivers]
    assert len({key for stack in first for key in keys(stack)}) == 6, "each begins somewhere else"
    for (driver, journal), stack in zip(drivers, first, strict=True):
        while stack is not None:
            taken += keys(stack)
            finish(driver, journal, stack)
            stack = driver.next()
    assert sorted(taken) == sorted(set(taken)) == sorted(trial.key for trial in drivers[0][0].plan.trials)
    assert drivers[0][0].next() is None
    assert [driver.busy() for driver, _ in drivers] == [False] * 3
    assert [driver.exit_code() for driver, _ in drivers] == [0] * 3
    assert set(drivers[0][1].ledger.keys_in("done")) == set(taken)
    assert all(entry.state == "done" for _, journal in drivers for entry in journal.ledger.entries.values())
    for _, journal in drivers:
        journal.close()


def test_a_part_leaves_what_others_train_and_the_sweep_waits_for_it(tmp_path: Path) -> None:
    (whole, of_whole), (part, of_part) = begin(tmp_path, "smoke"), begin(tmp_path, "smoke.part1")
    last = part.next()
    assert last is not None
    while (stack := whole.next()) is not None:
        finish(whole, of_whole, stack)
    assert whole.busy(), "it waits for the part's stack"
    assert list(whole.waits_for.values()) == ["smoke.part1"] * 2
    part.leave()
    of_part.close()
    (late, of_late), ours = begin(tmp_path, "smoke.part1"), whole.next()
    assert keys(ours) == keys(last), "what the part has given back is trained by the sweep itself"
    assert late.next() is None
    assert not late.busy()
    assert late.exit_code() == 0
    assert of_late.ledger.entries.keys() == set(keys(last))
    of_late.close()
    of_whole.close()


def test_what_another_sweep_has_done_since_the_plan_was_made_is_not_trained_again(tmp_path: Path) -> None:
    driver, journal = begin(tmp_path, "smoke")
    theirs = list(driver.plan.trials[:2])
    with contextlib.closing(Manifest(tmp_path, "another")) as other:  # it begins and ends meanwhile
        other.plan(theirs)
        other.record("leased", {trial.key: {} for trial in theirs})
        other.record("done", {trial.key: {} for trial in theirs})
    taken: list[str] = []
    while (stack := driver.next()) is not None:
        taken += keys(stack)
        finish(driver, journal, stack)
    assert sorted(taken) == sorted(trial.key for trial in driver.plan.trials[2:])
    assert all(journal.ledger.entries[trial.key].reused for trial in theirs)
    assert driver.exit_code() == 0
    journal.close()


def test_what_a_killed_driver_has_left_leased_holds_nobody_up(tmp_path: Path) -> None:
    """Neither another sweep's driver nor, in the end, its own sweep's, whose plan may leave the trial out by now."""
    driver, journal = begin(tmp_path, "smoke")
    first, second = driver.plan.trials[:2]
    killed = Manifest(tmp_path, "another")
    killed.plan([first, second])
    killed.record("leased", {first.key: {}})
    killed.close()
    runs_now = Manifest(tmp_path, "another")
    runs_now.record("leased", {second.key: {}})
    taken: list[str] = []
    while (stack := driver.next()) is not None:
        taken += keys(stack)
        finish(driver, journal, stack)
    assert driver.waits_for == {second.key: "another"}
    assert first.key in taken
    runs_now.close()
    stray = Trial(dataset="test/hopper/random-v0", algorithm="iql")
    journal.plan([stray])
    journal.record("leased", {stray.key: {}})
    driver.leave()
    assert journal.ledger.state(stray.key) == "planned"
    journal.close()


def test_a_part_is_named_wherever_a_sweep_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert load_sweep("smoke.part12") == load_sweep("smoke")
    assert (project.whole("smoke.part12"), project.part("smoke.part12"), project.part("smoke")) == ("smoke", 12, 0)
    assert paths.sweep(tmp_path, "smoke.part12").name == "smoke.part12"
    for wrong in ("smoke.part0", "smoke.part", "smoke.part1.part2", "smoke.2", "../x.part1"):
        with pytest.raises(UserError):
            paths.sweep(tmp_path, wrong)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv(project.GIVEN, "")
    (tmp_path / "mine.py").write_text("")
    assert project.named("./mine.py.part3") == "mine.part3"
    assert project.typed("mine.part3") == "./mine.py.part3"


@pytest.mark.parametrize(
    ("name", "settings", "said"),
    [
        (
            "td3bc_adaptive.part1",
            RunSettings(),
            "td3bc_adaptive.part1: an adaptive sweep has no parts, because one driver follows its studies",
        ),
        ("smoke.part1", RunSettings(fresh=True), "smoke.part1: --fresh trains trials that belong to one sweep, so it has no parts"),
    ],
    ids=["search", "fresh"],
)
def test_what_one_driver_alone_can_train_has_no_parts(name: str, settings: RunSettings, said: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=f"{re.escape(said)}; `winnow run {project.whole(name)}` trains it"):
        make_plan(name, settings, storage=tmp_path)
