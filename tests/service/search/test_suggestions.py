"""The manifest is the memory of a search: whatever becomes of its study, and whoever else uses the study's database, it ends the same."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
from collections import Counter
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from optuna.trial import TrialState

from search_spaces.sweep import LogRange, Range, expand, load_sweep, override
from search_spaces.sweep.space import spaces
from service.__main__ import main
from service.ledger import manifest, stop_requests
from service.ledger.manifest import Manifest
from service.planning.plan import make_plan
from service.search.findings import table
from service.search.study_storage import open_database
from service.storage import paths
from tests.service.search.support import CHOICES, NAME, NINE, SETTINGS, Run, found_by, killed_after, quality, study_of, told, write
from trainables.trial import Trial

ASHA = ("search.stop=asha", "search.sampler=random", "seeds=0")

pytestmark = pytest.mark.usefixtures("hopper")


def behind(trial: Trial, update: int) -> float:
    """The sparser, the better."""
    return 100 * trial.sparsity


def end_all(run: Run, stacks: int = 1, score: Any = behind) -> None:
    """Some stacks reach their second evaluation, and end with those whom the search has stopped; then all others, to the end."""
    for _ in range(stacks):
        stack = run.next()
        run.train(stack, until=100, score=score)
        run.train(stack, until=200, score=score)
        run.driver.ended(stack, {"failure": {"reason": "stopped", "message": ""}})
    run.finish()


def test_two_storages_keep_their_searches_apart_in_one_database(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/studies.db"
    first, second = (Run(tmp_path / name, place=open_database(url)) for name in ("first", "second"))
    stack = first.next()
    first.train(stack, until=200)
    assert second.adaptive.left == second.plan.left == 6, "what others have suggested is not ours"
    second.finish()
    first.train(stack)
    first.driver.ended(stack, {})
    first.finish()
    for run in (first, second):
        assert [trial.state for trial in study_of(run.storage, run.plan, url).trials] == [TrialState.COMPLETE] * 6
        assert run.manifest.ledger.keys_in("done") == list(run.manifest.ledger.entries)
        assert run.driver.exit_code() == 0
        run.leave()
    assert told(study_of(first.storage, first.plan, url)) == told(study_of(second.storage, second.plan, url))


def test_a_search_that_was_forgotten_begins_anew_beside_its_old_study(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/studies.db"
    run = Run(tmp_path, *CHOICES, place=open_database(url))
    run.finish()
    keys = list(run.manifest.ledger.entries)
    run.leave()
    with contextlib.closing(Manifest(tmp_path, NAME, run.plan.settings.to_json())) as journal:
        journal.forget(keys, everything=True)
    assert make_plan(NAME, run.plan.settings, storage=tmp_path).left == 2
    run = Run(tmp_path, *CHOICES, place=open_database(url))
    assert {trial.key for stack in run.finish() for trial in stack.trials} == set(keys)
    assert len(found_by(run).tries) == 2


def test_an_older_study_in_a_database_goes_on_where_its_trials_are_ours(tmp_path: Path) -> None:
    """Older code named studies in databases as it does those in files, and recorded each suggestion with its trials."""
    url = f"sqlite:///{tmp_path}/studies.db"
    run = Run(tmp_path / "old", *CHOICES)
    run.finish()
    (study,), said = run.manifest.ledger.suggestions, next(iter(run.manifest.ledger.suggestions.values()))
    run.leave()
    file = paths.sweep(tmp_path / "old", NAME) / "manifest.jsonl"
    of = {key: {name: each[name] for name in ("study", "params", "keys")} for each in reversed(said) for key in each["keys"]}
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    for line in lines:
        line["detail"].pop("suggested", None)
        line["detail"] |= of[line["key"]] if "trial" in line["detail"] else {}
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    database = open_database(url)
    import optuna

    optuna.copy_study(
        from_study_name=study, from_storage=optuna.storages.JournalStorage(
            optuna.storages.journal.JournalFileBackend(str(paths.study(tmp_path / "old", NAME)))
        ), to_storage=database,
    )  # fmt: skip
    for storage, expected in ((tmp_path / "old", [study]), (tmp_path / "new", [study, "another"])):
        run = Run(storage, *CHOICES, place=database)
        run.finish()
        assert len(optuna.get_all_study_names(database)) == len(expected)
        assert len(found_by(run).tries) == 2
        run.leave()


def test_what_one_study_has_stopped_is_trained_on_for_another(tmp_path: Path) -> None:
    run = Run(tmp_path, *ASHA, size=6)
    end_all(run)
    stopped = run.manifest.ledger.keys_in("stopped")
    assert stopped
    run.leave()
    run = Run(tmp_path, "search.sampler=random", "seeds=0,1", size=6)
    trained = {trial.key for stack in run.finish() for trial in stack.trials}
    assert set(stopped) <= trained
    assert run.manifest.ledger.keys_in("stopped") == []
    assert [each.state for each in found_by(run).tries] == ["done"] * 6
    assert [trial.state for trial in study_of(tmp_path, run.plan).trials] == [TrialState.COMPLETE] * 6
    assert stop_requests.requested(tmp_path, NAME, stopped) == {}


def test_a_study_whose_trials_another_one_has_trained_is_whole_and_can_be_rebuilt(tmp_path: Path) -> None:
    """The second study draws suggestions of which the manifest has the trials; they count, and are drawn again by none."""
    run = Run(tmp_path, "search.suggestions=12", "seeds=0,1", size=2)
    run.finish()
    run.leave()
    for _ in range(2):
        run = Run(tmp_path, "search.suggestions=12", "seeds=0", size=1)
        run.finish()
        before = told(study_of(tmp_path, run.plan))
        assert [each.state for each in found_by(run).tries] == ["done"] * 12
        run.leave()
        plan = make_plan(NAME, run.plan.settings, storage=tmp_path)
        assert (plan.left, plan.todo, len(plan.trials)) == (0, [], 12)
        paths.study(tmp_path, NAME).unlink()
    run = Run(tmp_path, "search.suggestions=12", "seeds=0", size=1)
    assert not run.driver.has_work()
    assert told(study_of(tmp_path, run.plan)) == before


def test_what_has_failed_here_and_is_done_by_another_sweep_has_a_score(tmp_path: Path) -> None:
    run = Run(tmp_path, "search.suggestions=3", "seeds=0", size=1)
    failed = run.next()
    run.driver.ended(failed, {"failure": {"reason": "error", "message": "no luck"}})
    run.finish()
    assert "failed: pruner " in table(found_by(run))
    assert table(found_by(run)).count("error: no luck") == 1
    run.leave()
    with contextlib.closing(Manifest(tmp_path, "quickstart", {})) as other:
        other.plan(failed.trials)
        other.record("leased", {failed.lead.key: {"size": 1}})
        write(tmp_path, failed.lead, 400, quality)
        other.record("done", {failed.lead.key: {}})
    run = Run(tmp_path, "search.suggestions=3", "seeds=0", size=1, retry_failed=True)
    assert not run.driver.has_work()
    assert [each.state for each in found_by(run).tries] == ["done"] * 3
    assert study_of(tmp_path, run.plan).trials[-1].value == quality(failed.lead, 400)


def test_a_rebuilt_study_knows_how_far_which_score_has_come(tmp_path: Path) -> None:
    """ASHA keeps the scores of each rung beside the study's trials: without them it would let more go on."""
    asked = []
    for storage, lost in ((tmp_path / "kept", False), (tmp_path / "lost", True)):
        run = Run(storage, *ASHA, "search.suggestions=12", size=6)
        stack = run.next()
        run.train(stack, until=100, score=behind)
        run.train(stack, until=200, score=behind)
        run.driver.ended(stack, {"failure": {"reason": "stopped", "message": ""}})
        run.train(rest := run.next(), score=behind)
        run.driver.ended(rest, {})
        run.leave()
        if lost:
            paths.study(storage, NAME).unlink()
        run = Run(storage, *ASHA, "search.suggestions=12", size=6)
        stack = run.next()
        run.train(stack, until=100, score=lambda trial, _: 10 + 10 * trial.sparsity)  # worse than all before
        asked.append(len(stop_requests.requested(storage, NAME, [trial.key for trial in stack.trials])))
        run.leave()
    assert asked == [6, 6]


def test_repeats_and_a_kill_change_no_draw(tmp_path: Path) -> None:
    """A round may hold suggestions that were made before, which no trial tells of."""
    settings = (*NINE, "search.suggestions=6")
    run = Run(tmp_path / "undisturbed", *settings, size=3)
    run.finish()
    run.leave()
    undisturbed = told(study_of(run.storage, run.plan))
    assert len(undisturbed) > 6
    for at in range(5, 80, 5):
        storage = tmp_path / "killed"
        shutil.rmtree(storage, ignore_errors=True)
        child = os.fork()
        if not child:
            killed_after(at, lambda: Run(storage, *settings, size=3).finish())  # noqa: B023 - the child runs it at once
        if not os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]):
            break
        run = Run(storage, *settings, size=3)
        run.finish()
        run.leave()
        assert told(study_of(storage, run.plan)) == undisturbed, f"killed at {at}"
    assert at > 10


def test_every_combination_is_tried_where_as_many_are_asked_for(tmp_path: Path) -> None:
    axes = ("pruners=snip,magnitude,random_erk", "sparsities=0.5,0.6,0.7,0.8,0.9,0.95", "hyper.alpha=1.0,2.0", "seeds=0")
    run = Run(tmp_path, *axes, "search.suggestions=36", size=1)
    run.finish()
    assert Counter(each.state for each in found_by(run).tries) == {"done": 36}
    assert len(study_of(tmp_path, run.plan).trials) < 36 + 36 * 11, "after some repeats one is drawn that was not tried"
    run.leave()
    assert make_plan(NAME, run.plan.settings, storage=tmp_path).left == 0


def test_a_wide_stack_leaves_the_search_something_to_learn_from(tmp_path: Path) -> None:
    sizes = {}
    for sampler in ("tpe", "random"):
        run = Run(tmp_path / sampler, "search.suggestions=24", "seeds=0", f"search.sampler={sampler}", size=32)
        sizes[sampler] = [len(stack) for stack in run.finish()]
    assert sizes == {"tpe": [10, 3, 3, 3, 3, 2], "random": [24]}


def test_the_best_is_shown_with_its_seeds_interval_and_how_to_confirm_it(tmp_path: Path) -> None:
    run = Run(tmp_path, "hyper.alpha=1.0", "seeds=0-2", "search.suggestions=4")
    run.finish()
    found = found_by(run)
    best = found.best()[0]
    trials = [run.manifest.ledger.entries[key].trial for key in best.keys]
    assert best.scores == tuple(quality(trial, 400) for trial in trials)
    assert best.values == (pytest.approx(quality(trials[1], 400)),)
    head, budget, names, first, *_, last = table(found).splitlines()
    assert head.endswith("best scores; 4 done")
    assert budget == "each with 3 seeds for 400 updates; scores are of the last evaluation, 10 episodes a seed"
    assert names.split()[:5] == ["score", "95", "%", "interval", "pruner"]
    half = 4.302652729749462 * 5 / 3**0.5  # Student's t of two degrees of freedom, and seeds that are 5 apart
    assert first.split()[:4] == [f"{best.values[0]:.1f}", f"{best.values[0] - half:.1f}", "to", f"{best.values[0] + half:.1f}"]
    assert last.startswith("Chosen from 4 by these scores, the best are too high on average; what the one with the highest score has")
    words = [word.removeprefix("--set=") for word in found.again.split() if word.startswith("--set=")]
    assert not any(word.startswith("search.") for word in words)
    grid = list(expand(override(load_sweep(NAME), words)))
    assert grid == [replace(trials[0], seed=seed) for seed in range(3, 8)]


def test_the_best_of_a_dense_suggestion_and_of_several_sets_is_a_grid_too(tmp_path: Path) -> None:
    sweep = override(load_sweep(NAME), [*SETTINGS, "pruners=dense,snip", "algorithms=td3_bc,bc", "hyper.hidden=(64,64),(32,32)"])
    for space in spaces(sweep):
        label = next(iter(space.dimensions["hyper.hidden"]))
        for params in ({"pruner": "dense", "hyper.hidden": label}, {"pruner": "snip", "sparsity": 0.75, "hyper.hidden": label}):
            params |= {"hyper.alpha": 1.2345678901234567} if "hyper.alpha" in space.dimensions else {}
            kept = [*SETTINGS[:3], "pruners=dense,snip"]
            words = [each for each in kept if each.partition("=")[0] != "pruners"] + space.as_grid(params, "7-8")
            assert list(expand(override(load_sweep(NAME), words))) == [replace(space.trials(params)[0], seed=seed) for seed in (7, 8)]


@pytest.mark.parametrize("score", [float("nan"), None])
def test_a_search_without_a_score_has_failed_and_says_why(score: float | None, tmp_path: Path) -> None:
    run = Run(tmp_path, "search.suggestions=2", "seeds=0", size=1)
    while (stack := run.driver.next()) is not None:
        run.driver.started(stack)
        if score is None:
            run.driver.ended(stack, {"failure": {"reason": "error", "message": "no luck"}})
        else:
            run.train(stack, score=lambda *_: score)
            run.driver.ended(stack, {})
    shown = table(found_by(run))
    assert run.driver.exit_code() == 1
    assert shown.count("failed: pruner ") == 2
    assert shown.count("a score is not finite" if score is not None else "error: no luck") == 2


def test_a_study_of_other_ends_is_another_one(tmp_path: Path) -> None:
    sweep = override(load_sweep(NAME), SETTINGS)

    def study(**axes: Any) -> str:
        return spaces(replace(sweep, **axes))[0].study(NAME)

    close = [study(sparsities=Range(low, high)) for low, high in ((0.5, 0.99), (0.5, 0.9900001), (0.50000001, 0.99))]
    assert len(set(close)) == 3
    assert len({study(hyper={"alpha": LogRange(low, 10)}) for low in (0.5, 0.5000001)}) == 2
    assert study() == f"{NAME}/td3_bc/hopper-random/{study()[-8:]}"
    assert all(a != b for a, b in pairwise(close))


def test_results_with_other_settings_name_those_of_the_newest_run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    run = Run(tmp_path, "search.suggestions=2")
    run.finish()
    run.leave()
    assert main(["results", NAME, "--storage", str(tmp_path)]) == 2
    said = capsys.readouterr().err
    assert f"error: {NAME!r} has suggested nothing with these settings; " in said
    settings = (*SETTINGS, "search.suggestions=2")
    assert f"`winnow results {NAME} {' '.join(f'--set={each}' for each in settings)} --storage={tmp_path}`" in said
    paths.study(tmp_path, NAME).unlink()
    assert main(["results", NAME, "--json", *(f"--set={each}" for each in settings), "--storage", str(tmp_path)]) == 0
    (found,) = json.loads(capsys.readouterr().out)
    assert [each["state"] for each in found["tries"]] == ["done", "done"]
    assert found["again"].startswith(f"winnow run {NAME} --set=datasets=test/hopper/random-v0 ")


def test_a_suggestion_that_could_not_be_recorded_was_not_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = Run(tmp_path, *CHOICES, size=1)

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(Manifest, "_append", full)
        with pytest.raises(OSError, match="No space"):
            run.driver.next()
    assert not any(run.manifest.ledger.suggestions.values())
    assert run.manifest.ledger.entries == {}
    assert len(run.finish()) == 2
    run.leave()
    assert [len(made) for made in manifest.read(tmp_path, NAME).suggestions.values()] == [2]
