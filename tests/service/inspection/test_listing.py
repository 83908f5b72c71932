"""`winnow list` and `winnow show`, on what a real journal, a real lease and a real MLflow hold."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from search_spaces.sweep import expand, load_sweep
from service.inspection import listing, picture
from service.ledger.manifest import Manifest
from service.storage import paths
from service.tracking.runs import Tracking
from trainables.errors import UserError

TRIALS = expand(load_sweep("smoke"))


@pytest.fixture
def storage(tmp_path: Path) -> Path:
    """The four trials of `smoke`: one done, one running, one failed, one planned; nobody drives it any more."""
    manifest = Manifest(tmp_path, "smoke")
    manifest.plan(TRIALS)
    manifest.record("leased", {trial.key: {} for trial in TRIALS[:3]})
    manifest.record("done", {TRIALS[0].key: {}})
    manifest.record("failed", {TRIALS[2].key: {"reason": "error", "message": "x"}})
    manifest.close()
    return tmp_path


def test_a_picture_has_a_sign_for_each_trial(storage: Path) -> None:
    found, driven = picture.read("smoke", storage)
    assert picture.describe("smoke", found, driven, picture.PLAIN).splitlines() == [
        "smoke: # 1 done, > 1 interrupted, . 1 planned, x 1 failed",
        "  dataset        algorithm  method  0 %  80 %",
        "  hopper-random  bc         dense   #x",
        "  hopper-random  bc         snip         >.",
    ]
    told = picture.to_json("smoke", found, driven)
    assert told["counts"] == {"done": 1, "interrupted": 1, "failed": 1, "planned": 1}
    assert {each["key"]: each["state"] for each in told["trials"]}[TRIALS[2].key] == "failed"


def test_a_sweep_that_was_never_run_is_shown_as_planned(tmp_path: Path) -> None:
    assert picture.describe("smoke", *picture.read("smoke", tmp_path), picture.PLAIN).startswith("smoke: . 4 planned\n")
    assert not [*tmp_path.iterdir()]
    with pytest.raises(UserError, match=r"no sweep 'smok'; there are: .*; did you mean 'smoke'"):
        picture.read("smok", tmp_path)


def test_sweeps_are_listed_here_and_in_mlflow(storage: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    tracking = Tracking(storage)
    tracking.parent_run("smoke")
    tracking.parent_run("elsewhere")
    found, trouble = listing.read(storage)
    assert not trouble
    by_name = {each.sweep: each for each in found}
    smoke = by_name["smoke"]
    assert [each.sweep for each in found][:2] == ["smoke", "elsewhere"]
    assert (smoke.state, smoke.done, smoke.trials, smoke.failed, smoke.mlflow) == ("unfinished", 1, 4, 1, "running")
    assert smoke.age is not None
    assert 0 <= smoke.age < 600
    assert (by_name["elsewhere"].state, by_name["elsewhere"].mlflow, by_name["quickstart"].state) == ("", "running", "never run")
    text = listing.describe(found, trouble).splitlines()
    assert text[0].split() == ["sweep", "here", "done", "of", "failed", "changed", "in", "MLflow", "begun"]
    assert text[1].split()[:5] == ["smoke", "unfinished", "1", "4", "1"]
    assert json.loads(json.dumps(listing.to_json(found, trouble)))["sweeps"][0]["sweep"] == "smoke"
    other = Manifest(storage, "smoke")
    try:
        assert {each.sweep: each.state for each in listing.read(storage)[0]}["smoke"] == "running"
    finally:
        other.close()


def test_what_another_sweep_has_done_is_done(storage: Path) -> None:
    manifest = Manifest(storage, "another")
    manifest.plan(TRIALS[2:])
    manifest.record("leased", {TRIALS[3].key: {}})
    manifest.record("done", {trial.key: {} for trial in TRIALS[2:]})
    manifest.close()
    found, driven = picture.read("smoke", storage)
    assert picture.to_json("smoke", found, driven)["counts"] == {"done": 3, "interrupted": 1}
    listed = {each.sweep: each for each in listing.read(storage)[0]}
    assert [(listed[name].done, listed[name].failed) for name in ("smoke", "another")] == [(3, 0), (2, 0)]


def test_a_sweep_is_as_old_as_its_last_event_whatever_others_have_done_since(storage: Path) -> None:
    manifest = Manifest(storage, "another")
    manifest.plan(TRIALS[2:])
    manifest.record("leased", {TRIALS[3].key: {}})
    manifest.record("done", {TRIALS[3].key: {}})
    manifest.close()
    journal = paths.manifest(storage, "smoke")
    lines = [json.loads(line) for line in journal.read_text().splitlines()]
    journal.write_text("".join(json.dumps(line | {"time": line["time"] - 86_400}) + "\n" for line in lines))
    listed = {each.sweep: each for each in listing.read(storage)[0]}
    assert listed["smoke"].done == 2, "what the other has done counts"
    assert listed["smoke"].age == pytest.approx(86_400, abs=600)


def test_without_mlflow_the_storage_is_listed_and_the_reason_said(storage: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    found, trouble = listing.read(storage)
    assert trouble
    assert replace(found[0], age=0.0) == listing.Listed(sweep="smoke", state="unfinished", done=1, trials=4, failed=1, age=0.0)
    assert "MLflow is not shown: " in listing.describe(found, trouble)
