"""Adaptive search on a real manifest and a real study, without Ray: what is asked and told, also after a kill, and who stops."""

from __future__ import annotations

import contextlib
import os
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.trial import TrialState

from search_spaces.sweep import load_sweep, override
from search_spaces.sweep.space import spaces
from service.ledger import stop_requests
from service.ledger.manifest import Manifest
from service.planning.plan import make_plan, resume_plan
from service.planning.run_settings import RunSettings
from service.search import studies as adaptive
from service.search.findings import table
from service.search.study_storage import open_database
from service.spool import scores
from service.storage import paths
from tests.service.search.support import CHOICES, NAME, NINE, SETTINGS, Run, by_key, found_by, killed_after, quality, study_of, told, write
from trainables.errors import UserError
from trainables.trial import Stack, Trial

pytestmark = pytest.mark.usefixtures("hopper")


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory, hopper_folder: Path) -> list[tuple[Any, ...]]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MINARI_DATASETS_PATH", str(hopper_folder))
        run = Run(tmp_path_factory.mktemp("undisturbed"))
        run.finish()
        run.leave()
    return told(study_of(run.storage, run.plan))


def test_suggestions_fill_stacks_and_are_told_the_mean_of_their_seeds(tmp_path: Path) -> None:
    run = Run(tmp_path)
    stacks = run.finish()
    assert [len(stack) for stack in stacks] == [4, 4, 4], "six suggestions, two seeds each"
    study = study_of(tmp_path, run.plan)
    assert [trial.state for trial in study.trials] == [TrialState.COMPLETE] * 6
    for trial in study.trials:
        own = [run.manifest.ledger.entries[key].trial for key in trial.user_attrs["key"].split()]
        assert [each.seed for each in own] == [0, 1]
        assert {(each.pruner, each.sparsity, each.hyper["alpha"]) for each in own} == {
            (trial.params["pruner"], trial.params["sparsity"], trial.params["hyper.alpha"])
        }
        assert trial.value == pytest.approx(quality(own[0], 400) + 2.5)
        assert trial.intermediate_values == {u: pytest.approx(quality(own[0], u) + 2.5) for u in (100, 200, 300, 400)}
    assert run.driver.exit_code() == 0
    assert make_plan(NAME, RunSettings(overrides=SETTINGS), storage=tmp_path).left == 0


def test_a_larger_budget_goes_on_in_the_same_study(tmp_path: Path, undisturbed: list[tuple[Any, ...]]) -> None:
    run = Run(tmp_path, "search.suggestions=2")
    run.finish()
    run.leave()
    run = Run(tmp_path)
    assert len(run.finish()) == 2
    assert told(study_of(tmp_path, run.plan)) == undisturbed
    other = Run(tmp_path / "other", "search.seed=1")
    other.finish()
    assert {each[4] for each in told(study_of(tmp_path / "other", other.plan))}.isdisjoint(each[4] for each in undisturbed)


def test_a_driver_killed_at_any_write_changes_nothing(tmp_path: Path, undisturbed: list[tuple[Any, ...]]) -> None:
    """Killed after the n-th write, to the manifest, the study or any file, for growing n; each time the next driver goes on."""
    kills = 0
    for at in range(4, 200, 2):  # the first writes are the lease's and the epoch's
        child = os.fork()
        if not child:
            killed_after(at, lambda: Run(tmp_path).finish())
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        if not code:
            break
        assert code == 9
        kills += 1
    assert kills > 5
    plan = make_plan(NAME, RunSettings(overrides=SETTINGS), storage=tmp_path)
    assert told(study_of(tmp_path, plan)) == undisturbed
    assert set(plan.state.values()) == {"done"}
    assert len(plan.trials) == 12


def test_what_a_killed_driver_left_in_the_study_is_taken_away(tmp_path: Path, undisturbed: list[tuple[Any, ...]]) -> None:
    run = Run(tmp_path)
    run.train(run.next())
    run.leave()
    file = paths.study(tmp_path, NAME)
    with file.open("ab") as study:
        study.write(b'{"op_code":5,"worker_')
    os.symlink(file, f"{file}.lock")
    run = Run(tmp_path)
    run.finish()
    assert told(study_of(tmp_path, run.plan)) == undisturbed


def test_a_lost_study_is_made_again_from_the_manifest(tmp_path: Path, undisturbed: list[tuple[Any, ...]]) -> None:
    run = Run(tmp_path)
    stack = run.next()
    run.train(stack)
    run.driver.ended(stack, {})
    run.train(run.next(), until=200)
    run.leave()
    paths.study(tmp_path, NAME).unlink()
    run = Run(tmp_path)
    run.finish()
    assert told(study_of(tmp_path, run.plan)) == undisturbed


def test_the_study_may_be_in_a_database(tmp_path: Path, undisturbed: list[tuple[Any, ...]], monkeypatch: pytest.MonkeyPatch) -> None:
    url = f"sqlite:///{tmp_path}/studies.db"
    run = Run(tmp_path, place=open_database(url))
    run.finish()
    study = study_of(tmp_path, run.plan, url)
    assert told(study) == undisturbed
    assert not paths.study(tmp_path, NAME).exists()
    found = found_by(run)
    assert found.best()[0].number == study.best_trial.number


def delete(file: Path) -> None:
    file.unlink()


def empty(file: Path) -> None:
    os.truncate(file, 0)


def lock(file: Path) -> sqlite3.Connection:
    held = sqlite3.connect(file)
    held.execute("begin exclusive")
    return held


def forget(file: Path) -> None:
    """The study alone, as somebody may in Optuna's dashboard."""
    url = f"sqlite:///{file}"
    for study in optuna.get_all_study_names(url):
        optuna.delete_study(study_name=study, storage=url)


@pytest.mark.parametrize("moment", ["while it trains", "when it ends", "when more is asked"])
@pytest.mark.parametrize(
    ("database", "harm"), [(True, delete), (True, empty), (True, lock), (True, forget), (False, delete), (False, empty)]
)
def test_studies_that_are_lost_on_the_way_are_told_in_one_line_and_nothing_is_lost(
    tmp_path: Path, undisturbed: list[tuple[Any, ...]], database: bool, harm: Callable[[Path], Any], moment: str
) -> None:
    file = tmp_path / "studies.db" if database else paths.study(tmp_path, NAME)
    url = f"sqlite:///{file}?timeout=0.1"
    run = Run(tmp_path, place=open_database(url) if database else None)
    held: list[Any] = []

    def go_on() -> None:
        steps: dict[str, Callable[[Stack], Any]] = {
            "while it trains": run.train,
            "when it ends": lambda stack: run.driver.ended(stack, {}),
            "when more is asked": lambda _: run.finish(),
        }
        stack = run.next()
        for now, step in steps.items():
            if now == moment:
                held.append(harm(file))
            step(stack)

    if (database, harm, moment) == (False, empty, "when more is asked"):
        go_on()  # nothing is read again that is missing: the manifest has all, and the next driver rebuilds the file
    else:
        with pytest.raises(UserError) as error:
            go_on()
        assert ("the study database" if database else str(file)) in str(error.value)
        assert f"`{run.plan.settings.command(NAME, tmp_path)}` continues" in str(error.value)
        assert "\n" not in str(error.value)
    run.leave()
    for connection in filter(None, held):
        connection.close()
    run = Run(tmp_path, place=open_database(url) if database else None)
    run.finish()
    assert told(study_of(tmp_path, run.plan, url if database else None)) == undisturbed


def test_a_database_that_is_not_there_is_told_without_its_password() -> None:
    with pytest.raises(UserError, match="the study storage cannot be opened") as error:
        open_database("postgresql://me:secret@127.0.0.1:1/studies")
    assert "secret" not in str(error.value)
    assert "\n" not in str(error.value)


def test_a_suggestion_made_before_is_told_its_result_and_not_counted(tmp_path: Path) -> None:
    run = Run(tmp_path, *NINE, size=1)
    run.finish()
    study = study_of(tmp_path, run.plan)
    assert len(run.manifest.ledger.entries) == 9, "each trial once, every one that there is, and no endless search for a tenth"
    assert run.adaptive.left == 0
    assert len(study.trials) > 9
    assert {trial.state for trial in study.trials} == {TrialState.COMPLETE}
    assert len({(trial.user_attrs["key"], trial.value) for trial in study.trials}) == 9
    run.leave()
    run = Run(tmp_path, *NINE, size=1)
    assert not run.driver.has_work(), "the next driver does not search again"
    assert len(study_of(tmp_path, run.plan).trials) == len(study.trials)


def test_what_another_sweep_has_done_is_reused(tmp_path: Path) -> None:
    run = Run(tmp_path, *CHOICES, size=1)
    run.finish()
    run.leave()
    done = [run.manifest.ledger.entries[key].trial for key in run.manifest.ledger.entries]
    paths.sweep(tmp_path, NAME).rename(paths.sweep(tmp_path, "quickstart"))
    run = Run(tmp_path, *CHOICES, size=1)
    assert run.finish() == []
    assert run.manifest.ledger.keys_in("done") == sorted((t.key for t in done), key=run.manifest.ledger.keys_in("done").index)
    assert {entry.detail["sweep"] for entry in run.manifest.ledger.entries.values()} == {"quickstart"}
    assert {trial.value for trial in study_of(tmp_path, run.plan).trials} == {quality(done[0], 400)}


def test_a_failed_suggestion_is_told_as_such_and_tried_again_when_asked(tmp_path: Path) -> None:
    run = Run(tmp_path, *CHOICES, size=1)
    stack = run.next()
    run.driver.ended(stack, {"failure": {"reason": "error", "message": "as said"}})
    run.finish()
    assert by_key(study_of(tmp_path, run.plan))[stack.lead.key].state == TrialState.FAIL
    assert run.driver.exit_code() == 1
    run.leave()
    run = Run(tmp_path, *CHOICES, size=1)
    assert run.finish() == [], "`run` leaves it at that"
    run.leave()
    run = Run(tmp_path, *CHOICES, size=1, retry_failed=True)
    assert [stack.lead.key for stack in run.finish()] == [stack.lead.key]
    last = by_key(study_of(tmp_path, run.plan))[stack.lead.key]
    assert last.state == TrialState.COMPLETE
    assert last.value == quality(stack.lead, 400)


def infeasible(stack: Stack) -> dict[str, Any]:
    return {"failure": {"reason": "user_error", "message": f"{stack.lead.name}: the mask leaves no path"}}


def test_a_suggestion_that_training_refuses_is_an_answer_and_counts_once(tmp_path: Path) -> None:
    """It is told to the study once, named in the end, and `resume` leaves it at that; `run --retry-failed` does not."""
    settings = ("search.suggestions=4", "seeds=0")
    run = Run(tmp_path, *settings, size=1)
    refused = run.next()
    run.driver.ended(refused, infeasible(refused))
    assert len(run.finish()) == 3, "the search goes on"
    study = study_of(tmp_path, run.plan)
    assert [trial.state for trial in study.trials].count(TrialState.FAIL) == 1
    assert run.driver.exit_code() == 0
    run.leave()
    before = told(study)
    for _ in range(2):
        plan = resume_plan(NAME, tmp_path)
        assert plan.todo == []
        run = Run(tmp_path, *settings, size=1, plan=plan)
        assert not run.driver.has_work()
        assert run.driver.exit_code() == 0
        run.leave()
    assert told(study_of(tmp_path, run.plan)) == before
    found = found_by(run)
    assert table(found).splitlines()[0].endswith("1 infeasible, 3 done")
    (said,) = [line for line in table(found).splitlines() if line.startswith("infeasible: pruner ")]
    assert said.endswith("the mask leaves no path")
    run = Run(tmp_path, *settings, size=1, retry_failed=True)
    assert {trial.key for stack in run.finish() for trial in stack.trials} == {trial.key for trial in refused.trials}
    found = found_by(run)
    assert len(found.tries) == 4, "a suggestion that was tried again is one"
    assert {each.state for each in found.tries} == {"done"}


def test_a_suggestion_that_was_made_again_is_shown_once(tmp_path: Path) -> None:
    run = Run(tmp_path, *NINE, size=1)
    assert len(run.finish()) == 9
    assert len(study_of(tmp_path, run.plan).trials) > 9
    found = found_by(run)
    assert len({(each.params["pruner"], each.params["sparsity"]) for each in found.tries}) == len(found.tries) == 9
    first, budget, *_ = table(found).splitlines()
    assert first.endswith("; 9 done")
    about = "each with 1 seed for 400 updates; scores are of the last evaluation, 10 episodes a seed"
    assert budget == f"{about}; the space has only 9 different suggestions"
    run.leave()
    assert resume_plan(NAME, tmp_path).left == 0, "there are no other suggestions"


@pytest.mark.parametrize("database", [False, True])
def test_what_is_forgotten_of_a_search_is_trained_again(tmp_path: Path, database: bool) -> None:
    """A seed of a suggestion that has ended, and all of one that was under way."""
    place = open_database(f"sqlite:///{tmp_path}/studies.db") if database else None
    run = Run(tmp_path, size=2, place=place)
    ended = run.next()
    run.train(ended)
    run.driver.ended(ended, {})
    under_way = run.next()
    run.leave()
    gone = [ended.trials[0].key, *(trial.key for trial in under_way.trials)]
    with contextlib.closing(Manifest(tmp_path, NAME, run.plan.settings.to_json())) as journal:
        journal.forget(gone, everything=False)
    for plan in (resume_plan(NAME, tmp_path), make_plan(NAME, run.plan.settings, storage=tmp_path)):
        assert {trial.key for trial in plan.todo} == set(gone)
        assert plan.left == 4
    run = Run(tmp_path, size=2, place=place)
    run.finish()
    assert run.adaptive.left == 0
    assert run.driver.exit_code() == 0
    assert {trial.state for trial in study_of(tmp_path, run.plan, place).trials} == {TrialState.COMPLETE}
    found = found_by(run)
    assert [each.state for each in found.tries] == ["done"] * 6
    assert {trial.key for trial in (*ended.trials, *under_way.trials)} <= {key for each in found.tries[:2] for key in each.keys}


def test_suggestions_that_are_tried_again_do_not_exhaust_the_space(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("service.search.studies.REPEAT_LIMIT", 2)
    run = Run(tmp_path, "seeds=0", size=1)
    for _ in range(3):
        run.driver.ended(run.next(), {"failure": {"reason": "error", "message": "no luck"}})
    left = run.adaptive.left
    run.leave()
    run = Run(tmp_path, "seeds=0", size=1, retry_failed=True)
    assert run.adaptive.left == left == 3
    assert len(run.finish()) == 6


def test_where_training_refuses_all_it_is_no_answer(tmp_path: Path) -> None:
    run = Run(tmp_path, *CHOICES, size=1)
    while (stack := run.driver.next()) is not None:
        run.driver.started(stack)
        run.driver.ended(stack, infeasible(stack))
    assert run.driver.exit_code() == 1
    run.leave()
    assert len(resume_plan(NAME, tmp_path).todo) == 2, "perhaps it was for want of something on this machine"


def test_a_suggestion_that_makes_no_trial_is_left_out_and_the_next_one_drawn(tmp_path: Path) -> None:
    """Two values that are each valid, and not with one another."""
    only = ("algorithms=cql", "hyper.alpha=1.0", "pruners=snip", "sparsities=0.5,0.8,0.9", "seeds=0", "search.suggestions=40")
    settings = (*only, "hyper.log_std_min=-1.0,1.5", "hyper.log_std_max=2.0,1.0")
    run = Run(tmp_path, *settings, size=1)
    assert len(run.finish()) == 9
    assert run.driver.exit_code() == 0
    assert run.adaptive.left == 0
    count = len(study_of(tmp_path, run.plan).trials)
    run.leave()
    run = Run(tmp_path, *settings, size=1)
    assert not run.driver.has_work()
    assert len(study_of(tmp_path, run.plan).trials) == count
    found = found_by(run)
    (said, *_) = [line for line in table(found).splitlines() if line.startswith("infeasible: ")]
    assert "hyper.log_std_min 1.5, hyper.log_std_max 1: cql's log_std_min 1.5 is outside (-inf, log_std_max)" in said


def test_the_front_of_score_against_effective_density(tmp_path: Path) -> None:
    run = Run(tmp_path, "search.objective=pareto", "search.suggestions=12")
    run.finish()
    trials = [run.manifest.ledger.entries[each.user_attrs["key"].split()[0]].trial for each in study_of(tmp_path, run.plan).trials]
    points = [(quality(trial, 400) + 2.5, trial.density / 2) for trial in trials]
    front = {i for i, (s, d) in enumerate(points) if not any(a >= s and b <= d and (a, b) != (s, d) for a, b in points)}
    found = found_by(run)
    assert {each.number for each in found.best()} == front
    assert 0 < len(front) < 12
    assert [each.values for each in found.best()] == sorted((points[i] for i in front), key=lambda point: -point[1])
    lines = table(found).splitlines()
    assert lines[0].endswith("12 done")
    assert lines[2].split()[:6] == ["score", "95", "%", "interval", "eff.", "density"]
    assert len(lines) == 3 + len(front) + 1


@pytest.mark.parametrize("stop", ["asha", "median"])
def test_members_that_fall_behind_stop_and_the_others_go_on_without_them(stop: str, tmp_path: Path) -> None:
    run = Run(tmp_path, f"search.stop={stop}", "search.suggestions=12", "seeds=0", "search.sampler=random", size=6)
    if stop == "median":  # it judges by those that have ended
        stack = run.next()
        run.train(stack)
        run.driver.ended(stack, {})
    stack = run.next()
    better = {trial.key: 50 + 10 * place for place, trial in enumerate(stack.trials)}
    order = {trial.key: place for place, trial in enumerate(stack.trials)}

    def score(trial: Trial, update: int) -> float:
        return 1000 - better[trial.key] if stop == "asha" else [-1000.0, 1000.0][order[trial.key] % 2]

    run.train(stack, until=100, score=score)
    keys = [trial.key for trial in stack.trials]
    asked = stop_requests.requested(tmp_path, NAME, keys)
    # ASHA, with 1 to 6 scores on the first rung, lets the best third of those there go on; the median is that of six ended trials.
    assert [order[key] for key in asked] == ([1, 2, 3, 4, 5] if stop == "asha" else [0, 2, 4])
    run.train(stack, until=200, score=score)
    run.driver.ended(stack, {"failure": {"reason": "stopped", "message": ""}})
    ledger = run.manifest.ledger
    for key in asked:
        assert ledger.state(key) == "stopped"
        assert ledger.entries[key].detail["reason"] == stop
        assert ledger.entries[key].detail["stopped_at"] == 200
        trial = by_key(study_of(tmp_path, run.plan))[key]
        assert trial.state == TrialState.PRUNED
        assert set(trial.intermediate_values) == {100, 200}
    left = [key for key in keys if key not in asked]
    assert [trial.key for trial in run.next().trials] == left, "the stack shrinks; all of it goes on from the same update"
    run.leave()
    run = Run(tmp_path, f"search.stop={stop}", "search.suggestions=12", "seeds=0", "search.sampler=random", size=6)
    stack = run.next()
    assert [trial.key for trial in stack.trials] == left, "also for the next driver"
    run.train(stack)
    run.driver.ended(stack, {})
    run.finish()
    assert run.driver.exit_code() == 0
    assert run.adaptive.left == 0


def test_a_request_outlives_the_driver_and_ends_trials_that_nobody_trains(tmp_path: Path) -> None:
    run = Run(tmp_path, "search.stop=asha", size=4)
    stack = run.next()
    run.leave()
    stop_requests.request(tmp_path, NAME, {stack.lead.key: {"reason": "asha", "message": "first"}})
    stop_requests.request(tmp_path, NAME, {stack.lead.key: {"reason": "asha", "message": "second"}})
    run = Run(tmp_path, "search.stop=asha", size=4)
    assert [trial.key for trial in run.next().trials] == [trial.key for trial in stack.trials[1:]]
    assert run.manifest.ledger.entries[stack.lead.key].detail == {"reason": "asha", "message": "first", "stopped_at": 0}


def test_a_request_that_comes_too_late_changes_nothing(tmp_path: Path) -> None:
    run = Run(tmp_path, "search.stop=asha")
    stack = run.next()
    run.train(stack)
    stop_requests.request(tmp_path, NAME, {trial.key: {"reason": "asha", "message": "too late"} for trial in stack.trials})
    run.leave()
    run = Run(tmp_path, "search.stop=asha")
    again = run.next()
    assert again.trials == stack.trials
    run.driver.ended(again, {})
    assert {run.manifest.ledger.state(trial.key) for trial in stack.trials} == {"done"}


def test_a_search_without_stopping_stops_nobody(tmp_path: Path) -> None:
    run = Run(tmp_path, "search.stop=none")
    stack = run.next()
    run.train(stack, until=100, score=lambda trial, update: -1000 * trial.sparsity)
    assert stop_requests.requested(tmp_path, NAME, [trial.key for trial in stack.trials]) == {}


def test_each_dataset_and_algorithm_has_a_study_of_its_own(tmp_path: Path) -> None:
    run = Run(tmp_path, "algorithms=td3_bc,rebrac", "search.suggestions=2", size=2)
    run.finish()
    studies = {name: adaptive._directions(run.plan.sweep.search) for name in run.adaptive._studies}
    assert len(studies) == 2
    for space in spaces(run.plan.sweep):
        study = optuna.load_study(study_name=space.study(NAME), storage=run.adaptive._database)
        algorithms = {run.manifest.ledger.entries[key].trial.algorithm for trial in study.trials for key in trial.user_attrs["key"].split()}
        assert algorithms == {space.algorithm}
        assert len(study.trials) == 2


def test_a_score_counts_when_all_seeds_have_it(tmp_path: Path) -> None:
    trials = make_trials()
    for trial, until in zip(trials, (400, 100), strict=True):
        write(tmp_path, trial, until, quality)
    assert scores.curve(tmp_path, trials) == {100: pytest.approx((quality(trials[0], 100) + quality(trials[1], 100)) / 2)}
    assert scores.last(tmp_path, trials) is None
    assert scores.curve(tmp_path / "nothing", trials) == {}


def make_trials() -> tuple[Trial, ...]:
    (space,) = spaces(override(load_sweep(NAME), SETTINGS))
    return space.trials({})
