"""Which runs count, where a storage has several of one trial."""

from __future__ import annotations

import math
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

from service.ledger.manifest import Manifest
from service.results.report.gather import gather
from service.results.runs import Point, Run, runs_of, version_notes
from service.tracking.reading import ANY, PARENT, RunRow
from tests.service.trained import ship, train
from trainables.trial import Trial

pytestmark = pytest.mark.filterwarnings("ignore:.*noload.*:DeprecationWarning")  # MLflow's own use of a newer SQLAlchemy


def row(score: float) -> RunRow:
    return RunRow("id", "FINISHED", {"eval/return": score}, {})


def test_copies_of_a_trial_are_one_seed() -> None:
    plain = [Trial(dataset="winnow/hopper/expert-v0", algorithm="bc", seed=seed) for seed in (0, 1, 2)]
    fresh = [replace(trial, fresh="study") for trial in plain]
    rows = {plain[0].key: row(1.0), fresh[0].key: row(2.0), plain[1].key: row(3.0)}
    found = runs_of([*plain, *fresh], rows)
    assert [(run.trial.seed, run.trial.fresh, run.outcome) for run in found if run.done] == [(1, "", 3.0), (0, "study", 2.0)]
    assert [run.trial.seed for run in found if not run.done] == [2], "the one that is in neither is missing once"
    again = replace(plain[0], fresh="another")
    (last,) = runs_of([plain[0], fresh[0], again], rows | {again.key: row(4.0)})
    assert (last.trial.fresh, last.outcome) == ("another", 4.0)


@pytest.mark.parametrize("client", [False, True])
def test_a_trial_that_another_sweep_began_is_the_sweeps_that_finished_it(
    client: bool, tmp_path: Path, hopper: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its run is below the other sweep's."""
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    storage = tmp_path / "storage"
    trial = Trial(dataset=hopper, algorithm="bc", updates=5, evaluations=1, episodes=1, hyper={"hidden": (16, 16)})
    begun = Manifest(storage, "quickstart")
    begun.plan([trial])
    begun.record("leased", {trial.key: {"size": 1}})
    begun.close()
    ship(storage, "quickstart")
    train(storage, "smoke", [trial])
    tracking = ship(storage, "smoke")
    if client:  # as a server is asked
        monkeypatch.setattr("service.tracking.connection.OneLineErrors.engine", lambda client: None)
    (run,) = gather(["smoke"], tracking, storage).runs
    assert run.done
    asked = partial(tracking._search, {"winnow.sweep.quickstart": ANY})
    assert (len(asked()), asked(without={PARENT: tracking.sweeps()["quickstart"]})) == (1, []), "what is below its run is read once"


def test_the_score_after_a_time_is_that_of_the_first_evaluation_no_earlier() -> None:
    points = (Point(250, 12.0, math.nan, 5.0), Point(500, 30.0, math.nan, 10.0), Point(750, 20.0, math.nan, 15.0))
    run = Run(Trial(dataset="winnow/hopper/expert-v0", updates=750), 20.0, points)
    assert [run.after(seconds) for seconds in (0.0, 5.0, 5.5, 15.0)] == [12.0, 12.0, 30.0, 20.0]
    assert [math.isnan(run.after(seconds)) for seconds in (15.5, math.nan)] == [True, True]
    assert math.isnan(replace(run, points=(replace(points[0], seconds=math.nan), *points[1:])).after(5.5)), "times are not all known"
    assert (run.best, run.tail) == (30.0, 20.0)


def on(version: str, score: float = 1.0) -> RunRow:
    """A run that was trained on a version of its dataset."""
    return RunRow("id", "FINISHED", {"eval/return": score}, {"winnow.dataset_hash": version})


@pytest.mark.parametrize(
    ("others", "left"),
    [
        (2, [(0, "b"), (1, "b")]),  # as many: that for which trials were trained apart
        (3, [(0, "a"), (1, "a"), (2, "a")]),  # that of most
        (1, [(0, "b"), (1, "b")]),
    ],
)
def test_scores_are_of_one_version_of_the_data(others: int, left: list[tuple[int, str]]) -> None:
    """`b` comes before `z` by name, too, so that its name does not decide."""
    first = [Trial(dataset="winnow/hopper/expert-v0", algorithm="bc", seed=seed) for seed in range(others)]
    apart = [replace(trial, data="b" * 16, seed=seed) for trial in first[:1] for seed in (0, 1)]
    rows = {each.key: on("z") for each in first} | {each.key: on("b") for each in apart}
    found = runs_of([*first, *apart], rows)
    assert [(run.trial.seed, run.data.replace("z", "a")) for run in found] == left
    assert all(run.done for run in found)


def test_what_was_trained_on_another_version_alone_is_said_with_how_many_are() -> None:
    hopper, ant = "winnow/hopper/expert-v0", "winnow/ant/expert-v0"
    trials = [Trial(dataset=dataset, algorithm="bc", seed=seed) for dataset in (hopper, ant) for seed in range(4)]
    rows = {each.key: on(version) for each, version in zip(trials, "abbbccad", strict=True)}
    runs = runs_of(trials, rows)
    others = {0: "other data a", 6: "other data a", 7: "other data d"}
    assert [run.state for run in runs] == [others.get(place, "done") for place in range(8)]
    said, why = "warning: trials of {} were trained on several versions of its data: {}", "since others of their task are on another"
    assert version_notes(runs) == [
        said.format(hopper, f"3 on b, 1 on a; 1 have no score here, {why}"),
        said.format(ant, f"2 on c, 1 on a, 1 on d; 2 have no score here, {why}"),
    ]
    assert version_notes(runs[1:6]) == []
    unknown = replace(runs[1], data="")
    assert version_notes([unknown, *runs[2:4]]) == [], "of older runs the version is not known"
