"""What `forget` removes, and what it leaves because somebody needs it: files, journals and MLflow's database are looked at themselves."""

from __future__ import annotations

import contextlib
import json
import shutil
import sqlite3
from pathlib import Path
from typing import Any

import pytest

from service.__main__ import main
from service.ledger import manifest
from service.ledger.ledger import replay
from service.ledger.manifest import Manifest
from service.planning.plan import make_plan
from service.planning.run_settings import RunSettings
from service.results.grid import params_of, tags_of
from service.retention import forget as module
from service.retention.forget import age
from service.retention.runs import Removal
from service.storage import paths
from tests.service.trained import put_back, train
from trainables.errors import UserError
from trainables.trial import Trial

SETTINGS = ("datasets=test/hopper/random-v0", "pruners=dense,snip", "sparsities=0.5", "seeds=0,1", "updates=10", "evaluations=1",
            "episodes=1", "hyper.hidden=(16, 16)")  # fmt: skip
OTHER = "quickstart"
OF_RUNS = ("runs", "metrics", "latest_metrics", "params", "tags", "inputs", "input_tags")  # tables


def trials(storage: Path) -> tuple[Trial, ...]:
    return make_plan("smoke", RunSettings(overrides=SETTINGS), storage=storage).trials


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, hopper_folder: Path) -> Path:
    """smoke has three trials done; another sweep reuses the third and has one of its own. All is in MLflow."""
    made = tmp_path_factory.mktemp("forget") / "storage"
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        patch.setenv("MINARI_DATASETS_PATH", str(hopper_folder))
        first, second, third, fourth = trials(made)
        train(made, "smoke", [first, second, third])
        with_another = Manifest(made, OTHER)
        with_another.plan([third])
        with_another.record("done", {third.key: {"sweep": "smoke"}})
        with_another.close()
        train(made, OTHER, [fourth])
        for sweep in ("smoke", OTHER):
            assert main(["sync", sweep, f"--storage={made}"]) == 0
    shutil.copytree(made, made.with_name("kept"))
    return made


@pytest.fixture
def storage(made: Path, hopper: str, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    put_back(made)
    return made


def forget(storage: Path, *arguments: str, code: int = 0) -> None:
    assert main(["forget", *arguments, f"--storage={storage}"]) == code


def rows(storage: Path) -> dict[str, int]:
    with sqlite3.connect(paths.mlflow_db(storage)) as database:
        return {table: database.execute(f"SELECT count(*) FROM {table}").fetchone()[0] for table in OF_RUNS}


def everything(storage: Path) -> set[str]:
    return {path.relative_to(storage).as_posix() for path in storage.rglob("*") if path.is_file() and not path.name.startswith("mlflow.db")}


def keys(storage: Path) -> set[str]:
    return {folder.name for folder in paths.trials(storage).iterdir()}


def test_it_says_what_would_go_and_removes_nothing(storage: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before, held = everything(storage), rows(storage)
    forget(storage, "smoke")
    said = capsys.readouterr().out
    assert said.startswith("smoke: 2 trials and the sweep, 3 MLflow runs, ")
    assert f"  1 stays: sweep {OTHER} uses it\n" in said
    assert said.endswith("nothing has been removed yet; add --yes to remove it\n")
    forget(storage, "smoke", "--json")
    (about,) = json.loads(capsys.readouterr().out)["forgotten"]
    assert (about["trials"], about["runs"], about["whole"]) == (2, 3, True)
    assert all(about["bytes"][kind] > 0 for kind in ("checkpoints", "policies and masks", "curves", "artifacts"))
    assert (everything(storage), rows(storage)) == (before, held)


def test_what_no_other_sweep_uses_is_gone_for_good_and_the_rest_is_whole(storage: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first, second, third, fourth = trials(storage)
    kept = {name for name in everything(storage) if f"trials/{third.key}" in name or f"trials/{fourth.key}" in name}
    forget(storage, "smoke", "--yes")
    assert keys(storage) == {third.key, fourth.key}
    assert kept <= everything(storage)
    assert not paths.sweep(storage, "smoke").exists()
    assert not paths.forgotten(storage).exists()
    assert rows(storage)["runs"] == 3, "the other sweep's, and those of its two trials"
    assert len({*paths.mlflow_artifacts(storage).iterdir()}) == 3
    capsys.readouterr()
    assert main(["verify", OTHER, f"--storage={storage}"]) == 0, capsys.readouterr().out
    tracking = Removal(storage)
    (run,) = tracking.runs([third.key])[third.key]
    assert run.data.tags["mlflow.parentRunId"] == tracking.parent_run(OTHER)
    again = make_plan("smoke", RunSettings(overrides=SETTINGS), storage=storage)
    assert [again.state[trial.key] for trial in (first, second, third, fourth)] == ["planned", "planned", "done", "done"]
    assert set(again.elsewhere.values()) == {OTHER}
    forget(storage, OTHER, "--yes")
    assert rows(storage) == dict.fromkeys(OF_RUNS, 0)
    assert not [*paths.mlflow_artifacts(storage).iterdir()]
    assert everything(storage) == {"identity"}
    assert main(["status", "smoke", f"--storage={storage}"]) == 2


def test_trials_whose_plug_in_is_gone_go_with_their_sweep(storage: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A pruner's file is renamed, and nobody wants its trials any more."""
    first, second, third, fourth = trials(storage)
    assert [trial.pruner for trial in (first, second, third, fourth)] == ["dense", "snip", "dense", "snip"]
    for sweep in ("smoke", OTHER):
        path = paths.manifest(storage, sweep)
        path.write_text(path.read_text().replace('"pruner": "snip"', '"pruner": "mine"'))
    assert main(["status", "smoke", f"--storage={storage}"]) == 0
    said = capsys.readouterr()
    assert said.err == "sweep 'smoke': 1 trial cannot be read here and left out (no pruner 'mine')\n"
    assert "2 done" in said.out
    assert main(["archive", "smoke", "--to", str(storage / "archive.zip"), f"--storage={storage}"]) == 2
    assert "an archive would lack them; restore what they need first" in capsys.readouterr().err
    forget(storage, "smoke", "--yes")
    assert "smoke: 2 trials and the sweep" in capsys.readouterr().out
    assert keys(storage) == {third.key, fourth.key}
    forget(storage, OTHER, "--yes")
    assert keys(storage) == set()
    assert rows(storage) == dict.fromkeys(OF_RUNS, 0)


def test_a_sweep_that_is_named_twice_goes_once(storage: Path, capsys: pytest.CaptureFixture[str]) -> None:
    forget(storage, OTHER, OTHER, "--yes")
    assert not paths.manifest(storage, OTHER).exists()
    assert capsys.readouterr().err == ""


def test_a_sweep_that_is_forgotten_and_run_again_starts_afresh(storage: Path, capsys: pytest.CaptureFixture[str]) -> None:
    forget(storage, "smoke", OTHER, "--yes")
    train(storage, "smoke", trials(storage)[:1])
    assert main(["sync", "smoke", f"--storage={storage}"]) == 0
    assert main(["verify", "smoke", f"--storage={storage}"]) == 0, capsys.readouterr().out
    assert rows(storage)["runs"] == 2


def test_failed_trials_go_and_their_sweep_stays(storage: Path, capsys: pytest.CaptureFixture[str]) -> None:
    fifth = Trial.from_json(trials(storage)[0].to_json() | {"seed": 7})
    journal = Manifest(storage, "smoke")
    journal.plan([fifth])
    journal.record("leased", {fifth.key: {"size": 1}})
    journal.record("failed", {fifth.key: {"reason": "error", "message": "as said"}})
    journal.close()
    paths.trial(storage, fifth.key).mkdir()
    (paths.trial(storage, fifth.key) / "spool.jsonl").touch()
    assert main(["sync", "smoke", f"--storage={storage}"]) == 0
    before = rows(storage)["runs"]
    forget(storage, "--failed", "--older-than=1h", "--yes")
    assert fifth.key in keys(storage), "it is not as old as that"
    forget(storage, "--failed", "--yes")
    assert fifth.key not in keys(storage)
    assert rows(storage)["runs"] == before - 1
    assert fifth.key not in manifest.read(storage, "smoke").entries
    capsys.readouterr()
    assert main(["verify", "smoke", f"--storage={storage}"]) == 0, capsys.readouterr().out
    assert len(manifest.read(storage, "smoke").entries) == 3


def test_what_several_sweeps_share_goes_with_the_last_of_them_as_was_said(storage: Path, capsys: pytest.CaptureFixture[str]) -> None:
    fifth = Trial.from_json(trials(storage)[0].to_json() | {"seed": 7})
    for sweep in ("smoke", OTHER):
        journal = Manifest(storage, sweep)
        journal.plan([fifth])
        journal.record("leased", {fifth.key: {"size": 1}})
        journal.record("failed", {fifth.key: {"reason": "error", "message": "as said"}})
        journal.close()
    paths.trial(storage, fifth.key).mkdir()
    forget(storage, "smoke", OTHER, "--failed")
    said = capsys.readouterr().out
    forget(storage, "smoke", OTHER, "--failed", "--yes")
    assert fifth.key not in keys(storage)
    assert "smoke: 0 trials that failed" in said
    assert f"  1 stays: sweep {OTHER} uses it\n" in said
    assert f"{OTHER}: 1 trials that failed" in said


def test_the_params_of_the_sweeps_run_stay_what_the_first_run_planned(tmp_path: Path, hopper: str) -> None:
    """MLflow's cannot change, so `verify` has to expect them, also where all of one pruner's trials have failed and are forgotten."""
    journal = Manifest(tmp_path, "smoke")
    journal.plan(found := trials(tmp_path))
    planned, events = params_of(journal.ledger), journal.ledger.length
    pruned = [trial for trial in found if trial.pruner == "snip"]
    journal.forget([trial.key for trial in pruned], everything=False)
    assert (params_of(journal.ledger), tags_of(journal.ledger)["winnow.grid.pruner"]) == (planned, "dense")
    assert journal.ledger.length > events, "what is logged from now on is newer than what was logged before"
    journal.close()
    again = Manifest(tmp_path, "smoke")
    again.plan(pruned)
    again.close()
    ledger = manifest.read(tmp_path, "smoke")
    assert (params_of(ledger), len(ledger.entries), ledger.forgotten) == (planned, 4, set())


def test_a_sweep_is_as_old_as_its_last_change(storage: Path, capsys: pytest.CaptureFixture[str]) -> None:
    forget(storage, "--older-than=1h", "--yes")
    assert "nothing to forget" in capsys.readouterr().out
    file = paths.manifest(storage, "smoke")
    old = [json.loads(line) for line in file.read_text().splitlines()]
    file.write_text("".join(json.dumps(line | {"time": line["time"] - 7200}) + "\n" for line in old))
    forget(storage, "--older-than=1h")
    assert capsys.readouterr().out.startswith("smoke: 2 trials and the sweep, ")


def test_without_an_age_no_clock_is_asked(storage: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The host that wrote the journal may be a day ahead."""
    file = paths.manifest(storage, "smoke")
    ahead = [json.loads(line) for line in file.read_text().splitlines()]
    file.write_text("".join(json.dumps(line | {"time": line["time"] + 86_400}) + "\n" for line in ahead))
    forget(storage, "smoke")
    assert capsys.readouterr().out.startswith("smoke: 2 trials and the sweep, ")


def test_a_sweep_whose_journal_is_damaged_is_said_to_be_so(storage: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = paths.manifest(storage, "smoke")
    lines = file.read_text().splitlines()
    file.write_text("\n".join([lines[0], "no JSON", *lines[2:], ""]))
    forget(storage, "smoke", "--yes", code=2)
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith("error: ")
    assert "manifest.jsonl line 2 is damaged" in error


def test_a_sweep_that_a_driver_runs_is_left_alone(storage: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = everything(storage)
    with_lease = Manifest(storage, "smoke")
    forget(storage, "smoke", "--yes", code=1)
    said = capsys.readouterr().out
    assert f"a driver runs it: nothing of it is removed; `winnow stop smoke --storage={storage}` ends it" in said
    assert " removed" not in said.splitlines()[0]
    forget(storage, "smoke")
    assert "add --yes to remove it" not in capsys.readouterr().out
    forget(storage, "smoke", "--yes", "--json", code=1)
    assert json.loads(capsys.readouterr().out)["removed"] is False
    assert before <= everything(storage)
    with_lease.close()


def test_a_trial_that_another_sweep_plans_meanwhile_stays(storage: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its driver comes between what is chosen and what is removed."""
    first = trials(storage)[0]
    forget_ = Manifest.forget

    def late(journal: Manifest, *arguments: Any, **named: Any) -> None:
        forget_(journal, *arguments, **named)
        other = Manifest(storage, OTHER)
        other.plan([first])
        other.close()

    monkeypatch.setattr(Manifest, "forget", late)
    forget(storage, "smoke", "--yes")
    assert first.key in keys(storage)
    assert Removal(storage).runs([first.key])


@pytest.mark.parametrize("which", [["--failed"], ["--older-than=1h"]], ids=["failed", "old"])
def test_a_sweep_that_is_run_between_choice_and_removal_is_left_alone(
    which: list[str], storage: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """What had failed may be done by then, and what was old is not."""
    fifth = Trial.from_json(trials(storage)[0].to_json() | {"seed": 7})

    def ends(*states: str) -> None:
        with contextlib.closing(Manifest(storage, "smoke")) as journal:
            for state in states:
                journal.record(state, {fifth.key: {"trial": fifth.to_json()} if state == "planned" else {}})

    ends("planned", "leased", "failed")
    file = paths.manifest(storage, "smoke")
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    file.write_text("".join(json.dumps(line | {"time": line["time"] - 7200}) + "\n" for line in lines))
    before, measure = keys(storage), module._measure

    def late(*arguments: Any) -> None:
        measure(*arguments)
        ends("planned", "leased", "done")

    monkeypatch.setattr(module, "_measure", late)
    forget(storage, *which, "--yes", code=2)
    assert capsys.readouterr().err == "error: sweep 'smoke' was run meanwhile: nothing of it is removed\n"
    assert keys(storage) == before
    assert manifest.read(storage, "smoke").state(fifth.key) == "done"


def test_a_trial_that_a_worker_claims_meanwhile_stays(storage: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first, second, *_ = trials(storage)
    monkeypatch.setattr(Removal, "remove", lambda *_: paths.attempt(storage, first.key).write_text("another worker"))
    forget(storage, "smoke", "--yes")
    assert first.key in keys(storage)
    assert second.key not in keys(storage)


def test_a_registered_policy_keeps_its_run(storage: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first = trials(storage)[0]
    assert main(["promote", first.key, f"--storage={storage}"]) == 0
    capsys.readouterr()
    forget(storage, "smoke", "--yes")
    assert "  1 runs stay in MLflow: their policies are versions of registered models\n" in capsys.readouterr().out
    assert first.key not in keys(storage)
    assert Removal(storage).runs([first.key]) == {}, "it is not this storage's any more"
    assert rows(storage)["runs"] == 4


def test_what_comes_before_a_whole_sweep_is_forgotten_may_be_gone_already(storage: Path) -> None:
    journal = Manifest(storage, "smoke")
    keys = list(journal.ledger.entries)
    journal.forget(keys, everything=True)
    journal.close()
    content = paths.manifest(storage, "smoke").read_bytes()
    for cut in (content, content.partition(b"\n")[2], content[content.rfind(b"\n", 0, -1) + 1 :]):
        ledger, length = replay(cut, "there")
        assert (ledger.entries, ledger.forgotten, length) == ({}, set(keys), len(cut))
    torn = content[:-1]  # of a kill in the middle of that line: nothing is forgotten yet
    assert len(replay(torn, "there")[0].entries) == 3


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ([], "forget needs a SWEEP, --older-than AGE or --failed"),
        (["--older-than=30"], "--older-than '30' is not an age: a number and min, h, d, w, e.g. 30d"),
        (["--older-than=soon"], "--older-than 'soon' is not an age"),
        (["smoky"], "no sweep 'smoky' in "),
    ],
)
def test_what_makes_no_sense_is_one_line(arguments: list[str], says: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    forget(tmp_path / "storage", *arguments, "--yes", code=2)
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"error: {says}")
    assert not [*tmp_path.iterdir()]


def test_ages() -> None:
    assert [age(text) for text in ("90min", "1.5h", "30d", "2w")] == [5400.0, 5400.0, 2_592_000.0, 1_209_600.0]
    with pytest.raises(UserError):
        age("-1d")
