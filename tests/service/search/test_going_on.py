"""A search goes on after what happens to searches: older code, archives, forgotten copies, kills, other settings, other storages."""

from __future__ import annotations

import contextlib
import json
import os
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend

from search_spaces.sweep import expand, load_sweep, override
from search_spaces.sweep.space import spaces
from service.driving.driver import Driver
from service.ledger import manifest, stop_requests
from service.ledger.manifest import Manifest
from service.planning.plan import make_plan, resume_plan
from service.planning.run_settings import RunSettings
from service.search.findings import find, table
from service.search.study_storage import open_database
from service.storage import paths
from service.terminal.display import Display
from tests.service.search.support import NAME, NINE, SETTINGS, Run, found_by, killed_after, quality, study_of, told, write

ASHA = ("search.stop=asha", "search.sampler=random", "seeds=0")
FAILED = {"failure": {"reason": "error", "message": "no luck"}}

pytestmark = pytest.mark.usefixtures("hopper")


def stop_some(run: Run) -> list[str]:
    """A round in which the sparser, the better; returns the keys of those that the search has stopped."""
    stack = run.next()
    for update in (100, 200):
        run.train(stack, until=update, score=lambda trial, _: 100 * trial.sparsity)
    run.driver.ended(stack, {"failure": {"reason": "stopped", "message": ""}})
    run.finish()
    run.leave()
    stopped = run.manifest.ledger.keys_in("stopped")
    assert stopped
    return stopped


def as_older_code(storage: Path) -> None:
    """The journal as older code wrote it: each suggestion with the trials that it planned, and no others."""
    file = paths.sweep(storage, NAME) / "manifest.jsonl"
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    made = [each for line in lines for each in line["detail"].pop("suggested", ())]
    of = {key: {name: each[name] for name in ("study", "params", "keys")} for each in reversed(made) for key in each["keys"]}
    for line in lines:
        line["detail"] |= of[line["key"]] if "trial" in line["detail"] else {}
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))


def test_older_codes_search_goes_on_with_the_next_draws(tmp_path: Path) -> None:
    """It recorded no repeats, of which the study tells."""
    run = Run(tmp_path / "new", *NINE, "search.suggestions=9", size=1)
    run.finish()
    run.leave()
    whole = told(study_of(run.storage, run.plan))
    run = Run(tmp_path / "old", *NINE, "search.suggestions=7", size=1)
    run.finish()
    run.leave()
    as_older_code(run.storage)
    run = Run(tmp_path / "old", *NINE, "search.suggestions=9", size=1)
    assert run.adaptive.left == 2
    assert len(run.finish()) == 2
    run.leave()
    assert told(study_of(run.storage, run.plan)) == whole


def test_an_archive_without_what_failed_goes_on_to_all_combinations(tmp_path: Path) -> None:
    """Between the suggestions that are done there are only repeats left: they end no search whose combinations are counted."""
    axes = ("pruners=snip,magnitude,random_erk", "sparsities=0.5,0.6,0.7,0.8", "hyper.alpha=1.0,2.0", "seeds=0", "search.suggestions=24")
    run, done = Run(tmp_path / "first", *axes, size=1), list[str]()
    while (stack := run.driver.next()) is not None:
        run.driver.started(stack)
        if len(done) < 12:
            run.train(stack)
            done.append(stack.lead.key)
        run.driver.ended(stack, {} if stack.lead.key in done else FAILED)
    ledger = run.manifest.ledger
    kept = [each for made in ledger.suggestions.values() for each in made if {*each["keys"]} <= {*done}]
    run.leave()
    with contextlib.closing(Manifest(tmp_path / "second", NAME)) as journal:
        trials = [ledger.entries[key].trial for key in done]
        journal.suggest(kept, trials)
        journal.record("done", {key: {} for key in done})
        for trial in trials:
            write(tmp_path / "second", trial, 400, quality)
    run = Run(tmp_path / "second", *axes, size=1)
    assert run.plan.left == run.adaptive.left == 12
    assert len(run.finish()) == 12
    assert Counter(each.state for each in found_by(run).tries) == {"done": 24}


@pytest.mark.parametrize("copy", [{"fresh": NAME}, {"data": "0" * 16}])
def test_a_forgotten_copy_is_trained_again_as_that_copy(copy: dict[str, str], tmp_path: Path) -> None:
    run = Run(tmp_path, "seeds=0", "search.suggestions=3", size=1)
    run.adaptive._as_trained = lambda trial: replace(trial, **copy)
    failed = run.next()
    run.driver.ended(failed, FAILED)
    run.finish()
    run.leave()
    assert replace(failed.lead, **copy) == failed.lead
    with contextlib.closing(Manifest(tmp_path, NAME, run.plan.settings.to_json())) as journal:
        journal.forget([failed.lead.key], everything=False)
    for plan in (make_plan(NAME, run.plan.settings, storage=tmp_path), resume_plan(NAME, tmp_path)):
        assert (plan.left, [trial.key for trial in plan.todo]) == (0, [failed.lead.key])


def test_a_kill_leaves_no_member_stopped_that_another_study_has_to_train(tmp_path: Path) -> None:
    for at in range(20, 30, 2):
        storage = tmp_path / f"{at}"
        stop_some(Run(storage, *ASHA, size=6))
        child = os.fork()
        if not child:
            killed_after(at, lambda: Run(storage, "search.sampler=random", "seeds=0,1", size=6).finish())  # noqa: B023 - run at once
        os.waitpid(child, 0)
        run = Run(storage, "search.sampler=random", "seeds=0,1", size=6)
        run.finish()
        assert [each.state for each in found_by(run).tries] == ["done"] * 6, f"killed at {at}"
        run.leave()


def test_as_a_grid_what_the_search_has_stopped_is_trained(tmp_path: Path) -> None:
    axes = ("hyper.alpha=1.0", "sparsities=0.5,0.8,0.9", "search.suggestions=6")
    stopped = stop_some(Run(tmp_path, *ASHA, *axes, size=6))
    assert {resume_plan(NAME, tmp_path).state[key] for key in stopped} == {"stopped"}, "to the search it is an answer"
    settings = RunSettings(overrides=(*SETTINGS[:3], "seeds=0", *axes[:2], "search=none"))
    plan = make_plan(NAME, settings, storage=tmp_path)
    assert {*stopped} <= {trial.key for trial in plan.todo}
    with contextlib.closing(Manifest(tmp_path, NAME, settings.to_json())) as journal:
        driver = Driver(plan, journal, tmp_path, Display())
        driver.prepare()
        assert {journal.ledger.state(key) for key in stopped} == {"planned"}
    assert stop_requests.requested(tmp_path, NAME, stopped) == {}


def test_without_stopping_an_earlier_request_to_stop_is_no_more(tmp_path: Path) -> None:
    run = Run(tmp_path, *ASHA, size=6)
    stack = run.next()
    for update in (100, 200):
        run.train(stack, until=update, score=lambda trial, _: 100 * trial.sparsity)
    run.leave()
    assert stop_requests.requested(tmp_path, NAME, run.manifest.ledger.entries)
    run = Run(tmp_path, "search.sampler=random", "seeds=0", size=6)
    run.finish()
    assert {entry.state for entry in run.manifest.ledger.entries.values()} == {"done"}


def test_a_new_storage_leaves_older_codes_study_in_a_database_to_its_own(tmp_path: Path) -> None:
    """The first draws of both are the same."""
    url = f"sqlite:///{tmp_path}/studies.db"
    database = open_database(url)
    older = Run(tmp_path / "older")
    older.finish()
    older.leave()
    (study,) = older.manifest.ledger.suggestions
    file = JournalStorage(JournalFileBackend(str(paths.study(tmp_path / "older", NAME))))
    optuna.copy_study(from_study_name=study, from_storage=file, to_storage=database)
    as_older_code(tmp_path / "older")
    new = Run(tmp_path / "new", "search.suggestions=2", size=2)
    new.finish()
    new.leave()
    new = Run(tmp_path / "new", "search.suggestions=8", place=database, size=2)
    new.next()
    older = Run(tmp_path / "older", "search.suggestions=8", place=database)
    older.finish()
    new.leave()
    assert sorted(optuna.get_all_study_names(database)) == sorted([study, f"{study}/{new.manifest.ledger.begun}"])
    assert len(optuna.load_study(study_name=study, storage=url).trials) == 8


@pytest.mark.parametrize(
    ("overrides", "number", "params"),
    [
        (["pruners=dense,snip", "scope=layer"], 0, {"pruner": "dense"}),
        (["pruners=dense,snip", "scope=layer"], 0, {"pruner": "snip", "sparsity": 0.75}),
        (["pruners=dense,snip", "allow_disconnected=true"], 0, {"pruner": "dense"}),
        (["pruners=dense,random_erk,snip", "rescale=layer", "target=effective"], 0, {"pruner": "dense"}),
        (["algorithms=td3_bc,bc", "hyper.alpha=1.5"], 1, {"pruner": "snip", "sparsity": 0.7}),
        (["pruners=snip,rigl", "pruning.delta=50"], 0, {"pruner": "snip", "sparsity": 0.7}),
        (["pruners=snip", "hyper.hidden=(64,64),(32,32)"], 0, {"sparsity": 0.5, "hyper.hidden": "(64, 64)"}),
        (["pruners=snip", "hyper.tau=1e-05,5e-3"], 0, {"sparsity": 0.5, "hyper.tau": 1e-05}),
    ],
)
def test_the_command_for_the_best_trains_that_suggestion_and_no_other(
    overrides: list[str], number: int, params: dict[str, Any], tmp_path: Path
) -> None:
    given = [*SETTINGS, "seeds=0", *overrides]
    sweep = override(load_sweep(NAME), given)
    space = spaces(sweep)[number]
    if "hyper.alpha" in space.dimensions and "hyper.alpha=1.5" not in overrides:
        params = params | {"hyper.alpha": 1.2345678901234567}
    (trial,) = space.trials(params)
    with contextlib.closing(Manifest(tmp_path, NAME)) as journal:
        journal.suggest([{"study": space.study(NAME), "number": 0, "params": params, "keys": [trial.key]}], [trial])
        journal.record("done", {trial.key: {}})
        write(tmp_path, trial, 400, quality)
        found = find(NAME, sweep, journal.ledger, tmp_path, given)[number]
    words = [word.removeprefix("--set=") for word in found.again.replace("'", "").split(" --") if "set=" in word]
    words = [word.removeprefix("set=") for word in words]
    assert words
    assert list(expand(override(load_sweep(NAME), words))) == [replace(trial, seed=seed) for seed in range(1, 6)]


@pytest.mark.parametrize("params", [{"pruner": "nonsense", "sparsity": 0.5}, {"sparsity": "x"}, {"pruner": None}, {"pruner": 3}, {}])
def test_a_suggestion_from_elsewhere_that_makes_no_sense_is_left_out(params: dict[str, Any], tmp_path: Path) -> None:
    run = Run(tmp_path, "seeds=0", "search.suggestions=2", size=1)
    run.finish()
    (study,) = run.manifest.ledger.suggestions
    trial = next(iter(run.manifest.ledger.entries))
    run.manifest.suggest([{"study": study, "params": params, "keys": [trial]}], ())
    run.leave()
    assert make_plan(NAME, run.plan.settings, storage=tmp_path).left == 0
    assert table(found_by(run)).splitlines()[0].endswith("2 done")
    run = Run(tmp_path, "seeds=0", "search.suggestions=3", size=1)
    assert len(run.finish()) == 1
    assert len(manifest.read(tmp_path, NAME).entries) == 3
