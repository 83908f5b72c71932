"""What `status` tells of trials that another sweep has done."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path

import pytest

from service.__main__ import main
from service.driving.shared import Shared
from service.inspection import status
from service.ledger.manifest import Manifest
from service.planning.options import TrainingOptions
from service.scheduling.shares import Share
from service.tracking.runs import Tracking
from tests.service.trained import ship, train
from trainables.trial import Trial

SMALL = {"updates": 4, "evaluations": 1, "episodes": 1, "hyper": {"hidden": (8, 8), "batch_size": 8}}


def test_reused_trials_are_told_with_the_sweep_and_the_run_that_has_them(
    tmp_path: Path, hopper: str, capsys: pytest.CaptureFixture[str]
) -> None:
    trials = [Trial(dataset=hopper, algorithm="bc", seed=seed, **SMALL) for seed in (0, 1)]
    train(tmp_path, "quickstart", trials[:1])
    ship(tmp_path, "quickstart")
    manifest = Manifest(tmp_path, "smoke")
    manifest.plan(trials)
    manifest.record("done", {trials[0].key: {"sweep": "quickstart"}})
    manifest.close()
    (run,) = [row.run_id for row in Tracking(tmp_path).all_trials().values()]
    assert main(["status", "smoke", "--storage", str(tmp_path)]) == 0
    assert f"1 reused of sweep quickstart; MLflow runs: {run}\n" in capsys.readouterr().out
    assert main(["status", "smoke", "--storage", str(tmp_path), "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)["trials"]
    assert [(row["key"], row["by"], row["run"]) for row in rows] == [(trials[0].key, "quickstart", run), (trials[1].key, "", "")]


def test_for_people_no_file_is_read_for_a_trial_that_is_done(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ten thousand small files take seconds on a shared disk; programs, who ask for each run's id, wait for them."""
    trials = [Trial(dataset="test/hopper/random-v0", algorithm="bc", seed=seed) for seed in range(20)]
    manifest = Manifest(tmp_path, "smoke")
    manifest.plan(trials)
    manifest.record("leased", {trial.key: {"size": 1} for trial in trials[:10]})
    manifest.record("done", {trial.key: {} for trial in trials[:10]} | {trial.key: {"sweep": "other"} for trial in trials[10:]})
    manifest.close()
    asked: list[str] = []
    monkeypatch.setattr(status, "run_id_of", lambda storage, key: asked.append(key) or f"run-of-{key}")
    found = status.read("smoke", tmp_path, whole=False)
    text = status.describe(found)
    assert [row.key for row in found.rows] == [trial.key for trial in trials[10:]], "nor is anything found out about it"
    assert "20 done" in text
    assert asked == [trial.key for trial in trials[10 : 10 + status.RUNS_SHOWN]]
    assert all(f"run-of-{key}" in text for key in asked)
    told = status.read("smoke", tmp_path).to_json()["trials"]
    assert [each["run"] for each in told] == [f"run-of-{trial.key}" for trial in trials]


def test_a_trials_speed_is_its_own_while_it_trains_and_when_it_is_done(tmp_path: Path) -> None:
    """The journal holds the speed of a stack, 400 updates of four trials a second: each makes 100. Of adopted ones no size is known."""
    trials = [Trial(dataset="test/hopper/random-v0", algorithm="bc", seed=seed) for seed in range(5)]
    manifest = Manifest(tmp_path, "smoke")
    manifest.plan(trials)
    manifest.record("leased", {trial.key: {"size": 4} for trial in trials[:4]})
    manifest.record("done", {trial.key: {"updates_per_second": 400.0, "seconds": 10.0} for trial in trials})
    manifest.close()
    assert [row["rate"] for row in status.read("smoke", tmp_path).to_json()["trials"]] == [100.0] * 4 + [None]


def test_the_share_of_a_cluster_is_told_while_a_driver_runs_and_others_are_there(
    tmp_path: Path, hopper: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    notes: list[str] = []
    monkeypatch.setattr("service.driving.shared.WRITE_EVERY", -1.0)
    screen = type("Screen", (), {"note": lambda self, line: notes.append(line)})()
    manifest = Manifest(tmp_path, "smoke")
    manifest.plan([Trial(dataset=hopper, algorithm="bc", **SMALL)])
    shared = Shared(tmp_path, "smoke", screen, TrainingOptions(weight=2, priority="high"))
    text = "may use 3 of 8 cpu for now, beside study (anna); weight 2, priority high"
    about = {"places": {"cpu": 3}, "whole": {"cpu": 8}, "others": ["study (anna)"], "weight": 2, "priority": "high", "text": text}
    for others, wanted in ((("study (anna)",), about), ((), None), (("study (anna)",), about)):
        shared.is_now(Share(places={"cpu": 3}, whole={"cpu": 8}, urgent=(), others=others))
        assert main(["status", "smoke", "--storage", str(tmp_path), "--json"]) == 0
        assert json.loads(capsys.readouterr().out)["share"] == wanted
        assert main(["status", "smoke", "--storage", str(tmp_path)]) == 0
        assert (f"\nshare: {text}\n" in capsys.readouterr().out) == bool(wanted)
    assert notes == [text, "no other sweep shares the cluster any more", text]
    manifest.close()
    assert main(["status", "smoke", "--storage", str(tmp_path), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["share"] is None


def test_a_sweep_whose_file_is_elsewhere_is_known_by_its_name(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """As after `winnow run /some/where/mine.py`: what asks only the storage needs no file."""
    manifest = Manifest(tmp_path, "mine")
    manifest.plan([Trial(dataset="test/hopper/random-v0", algorithm="bc", seed=0)])
    manifest.close()
    for command, said in (("status", "mine: 1 planned; nobody runs it now"), ("stop", "nobody runs sweep 'mine'")):
        assert main([command, "mine", "--storage", str(tmp_path)]) == 0
        assert said in capsys.readouterr().out
    assert main(["status", "nine", "--storage", str(tmp_path)]) == 2
    assert "no sweep 'nine'; there are: " in capsys.readouterr().err
    manifest = Manifest(tmp_path, "mine")
    manifest.record("done", {key: {} for key in manifest.ledger.entries})
    assert main(["status", "mine", "--watch", "--storage", str(tmp_path)]) == 0, "while its driver ships the rest"
    manifest.close()
    assert main(["status", "mine", "--watch", "--storage", str(tmp_path)]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == "mine: 1 done; nobody runs it now"


@pytest.mark.parametrize(("suggested", "status"), [(False, "FAILED"), (True, "FINISHED")])
def test_sync_of_a_sweep_whose_file_is_elsewhere_closes_its_run(
    suggested: bool, status: str, tmp_path: Path, hopper: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A search is over also where some of its trials were stopped, which the journal tells without the sweep's file."""
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    trials = [Trial(dataset=hopper, algorithm="bc", seed=seed, **SMALL) for seed in (0, 1)]
    with contextlib.closing(Manifest(tmp_path, "theirs")) as manifest:
        manifest.suggest([{"study": "bc", "params": {}, "keys": [trial.key for trial in trials]}] if suggested else [], trials)
    train(tmp_path, "theirs", trials[:1])
    assert main(["sync", "theirs", "--storage", str(tmp_path)]) == 0
    with contextlib.closing(Manifest(tmp_path, "theirs")) as manifest:
        manifest.record("leased", {trials[1].key: {"size": 1}})
        manifest.record("stopped", {trials[1].key: {"reason": "asked", "stopped_at": 0}})
    assert main(["sync", "theirs", "--storage", str(tmp_path)]) == 0, capsys.readouterr().err
    (run,) = Tracking(tmp_path).sweep_runs()
    assert run.info.status == status
