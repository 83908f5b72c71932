"""Archives: finished trials that leave a storage as a file and are as done in another one, in MLflow as in the first."""

from __future__ import annotations

import contextlib
import json
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from service.__main__ import main
from service.delivery.archive import Archived, archive
from service.ledger.manifest import Manifest, read, read_all
from service.planning.plan import make_plan
from service.planning.run_settings import RunSettings
from service.search.findings import find
from service.search.studies import Adaptive
from service.storage import paths
from tests.service.trained import put_back, ship, train
from trainables.trial import Trial

SETTINGS = ("datasets=test/hopper/random-v0", "pruners=dense,snip", "sparsities=0.5", "seeds=0,1", "updates=10", "evaluations=1",
            "episodes=1", "hyper.hidden=(16, 16)")  # fmt: skip


def trials(storage: Path) -> tuple[Trial, ...]:
    return make_plan("smoke", RunSettings(overrides=SETTINGS), storage=storage).trials


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, hopper_folder: Path) -> Path:
    """Two of the sweep's four trials are done, and in MLflow; its archive lies beside the storage."""
    storage = tmp_path_factory.mktemp("archive") / "first"
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        patch.setenv("MINARI_DATASETS_PATH", str(hopper_folder))
        found = trials(storage)
        train(storage, "smoke", found[:2], planned=found[2:])
        ship(storage, "smoke")
        assert archive(["smoke"], storage.with_name("smoke.zip"), storage).finished == 2
    shutil.copytree(storage, storage.with_name("kept"))
    return storage


@pytest.fixture
def trained(made: Path, tmp_path: Path, hopper: str, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The storage as it was made; a copy of its archive is the test's own."""
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    put_back(made)
    shutil.copy(made.with_name("smoke.zip"), tmp_path)
    return made


def contents(storage: Path) -> dict[str, tuple[dict[str, str], dict[str, float], list[tuple[object, ...]]]]:
    """What MLflow holds of each trial: params, last metrics, the curve of one metric with its times."""
    tracking = ship(storage, "smoke")
    rows = tracking.all_trials().values()
    return {
        row.tags["winnow.trial_key"]: (row.params, row.metrics, sorted(tracking.history(row.run_id, "eval/return").items())) for row in rows
    }


def test_adopted_trials_are_done_and_in_mlflow_as_in_the_first_storage(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    second = tmp_path / "second"
    assert main(["adopt", str(tmp_path / "smoke.zip"), "--storage", str(second)]) == 0
    assert "smoke: 2 trials adopted" in capsys.readouterr().out
    plan = make_plan("smoke", RunSettings(overrides=SETTINGS), storage=second)
    assert [plan.state[trial.key] for trial in plan.trials] == ["done", "done", "planned", "planned"]
    here, there = contents(trained), contents(second)
    done = {key for key, (_, metrics, _) in here.items() if metrics}
    assert len(done) == 2
    assert {key: there[key] for key in done} == {key: here[key] for key in done}
    assert main(["verify", "smoke", "--storage", str(second)]) == 0
    for key in done:
        end = read(second, "smoke").entries[key].detail
        assert end == read(trained, "smoke").entries[key].detail
        assert paths.masks_json(second, key).read_bytes() == paths.masks_json(trained, key).read_bytes()


def test_twice_is_once_and_an_archive_of_adopted_trials_is_the_same_file(trained: Path, tmp_path: Path) -> None:
    file, second = tmp_path / "smoke.zip", tmp_path / "second"
    main(["adopt", str(file), "--storage", str(second)])
    journal = paths.manifest(second, "smoke")
    entries = read(second, "smoke").entries
    main(["adopt", str(file), "--storage", str(second)])
    assert {key: len(e.events) for key, e in read(second, "smoke").entries.items()} == {k: len(e.events) for k, e in entries.items()}
    assert journal.exists()
    archive(["smoke"], tmp_path / "again.zip", second)
    assert (tmp_path / "again.zip").read_bytes() == file.read_bytes()


def test_a_trial_of_two_sweeps_is_one_in_the_count(trained: Path, tmp_path: Path) -> None:
    manifest = Manifest(trained, "quickstart")
    manifest.plan(trials(trained)[:1])
    manifest.record("done", {trials(trained)[0].key: {"sweep": "smoke"}})
    manifest.close()
    whole = archive(["smoke", "quickstart"], tmp_path / "both.zip", trained)
    assert whole == archive(["smoke"], tmp_path / "one.zip", trained) == Archived(2, 0)


def test_what_a_part_and_another_sweep_have_done_for_a_sweep_is_in_its_archive(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for sweep, trial in zip(("smoke.part2", "another"), trials(trained)[2:], strict=True):
        train(trained, sweep, [trial])
    assert archive(["smoke"], tmp_path / "whole.zip", trained).finished == 4
    second = tmp_path / "second"
    assert main(["adopt", str(tmp_path / "whole.zip"), "--storage", str(second)]) == 0
    assert list(read_all(second)) == ["smoke"]
    plan = make_plan("smoke", RunSettings(overrides=SETTINGS), storage=second)
    assert (set(plan.state.values()), plan.elsewhere) == ({"done"}, {})
    assert main(["archive", "smoke.part2", "--to", str(tmp_path / "part.zip"), "--storage", str(trained)]) == 2
    whole = f"`winnow archive smoke --to {tmp_path / 'part.zip'} --storage={trained}`"
    assert f"smoke.part2 is a part of a sweep, whose trials the sweep's own archive holds: {whole}" in capsys.readouterr().err


def test_the_study_of_an_adaptive_sweep_goes_on_where_its_archive_is_adopted(hopper: str, tmp_path: Path) -> None:
    name, first, second, file = "td3bc_adaptive", tmp_path / "first", tmp_path / "second", tmp_path / "adaptive.zip"
    axes = ("pruners=snip,magnitude", "sparsities=0.5,0.6", "seeds=0", "hyper.alpha=1.0,2.0", "search.suggestions=3")
    settings = RunSettings(overrides=(*(each for each in SETTINGS if not each.startswith(("pruners", "spars", "seeds", "hyper"))), *axes))
    sweep = make_plan(name, settings, storage=first).sweep

    def studied(storage: Path) -> list[tuple[Any, ...]]:
        with contextlib.closing(Manifest(storage, name)) as manifest:
            adaptive = Adaptive(name, sweep, storage, manifest.ledger)
            assert adaptive.restore() == []
            assert len(adaptive.ask(9)) == 1, "the study has the two that were made"
            found = find(name, sweep, manifest.ledger, storage)
            return [(each.state, each.values, each.params, each.keys) for finding in found for each in finding.tries]

    with contextlib.closing(Manifest(first, name)) as manifest:
        suggestions = Adaptive(name, sweep, first, manifest.ledger).ask(2)
        trials = [trial for each in suggestions for trial in each.trials]
        manifest.suggest([each.to_json() for each in suggestions], trials)
    train(first, name, trials)
    assert archive([name], file, first).finished == 2
    assert main(["adopt", str(file), "--storage", str(second)]) == 0
    assert make_plan(name, settings, storage=second).left == 1
    assert studied(second) == studied(first)
    assert {state for state, *_ in studied(second)} == {"done"}
    archive([name], tmp_path / "again.zip", second)
    assert (tmp_path / "again.zip").read_bytes() == file.read_bytes()


def test_a_trial_that_has_begun_here_goes_on_here(trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    second = tmp_path / "second"
    first, other = trials(trained)[:2]
    manifest = Manifest(second, "smoke")
    manifest.plan([first])
    manifest.record("leased", {first.key: {}})
    manifest.close()
    begun = paths.spool(second, first.key)
    begun.parent.mkdir(parents=True)
    begun.write_text('{"kind": "attempt"}\n')
    assert main(["adopt", str(tmp_path / "smoke.zip"), "--storage", str(second)]) == 0
    assert "1 trials adopted, 1 have begun here and were skipped" in capsys.readouterr().out
    assert begun.read_text() == '{"kind": "attempt"}\n'
    ledger = read(second, "smoke")
    assert (ledger.state(first.key), ledger.state(other.key)) == ("leased", "done")


@pytest.mark.parametrize("written", [True, False])
def test_what_another_sweep_has_begun_or_done_is_left_alone(
    written: bool, trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Also where its worker has not written anything yet."""
    second = tmp_path / "second"
    first, other = trials(trained)[:2]
    manifest = Manifest(second, "another")
    manifest.plan([first, other])
    manifest.record("done", {first.key: {"seconds": 1.0}})
    manifest.record("leased", {other.key: {}})
    manifest.close()
    spools = [paths.spool(second, trial.key) for trial in (first, other)[: 1 + written]]
    for spool in spools:
        spool.parent.mkdir(parents=True)
        spool.write_text('{"kind": "attempt"}\n')
    assert main(["adopt", str(tmp_path / "smoke.zip"), "--storage", str(second)]) == 0
    assert "0 trials adopted, 1 were already done here, 1 have begun here and were skipped" in capsys.readouterr().out
    assert [spool.read_text() for spool in spools] == ['{"kind": "attempt"}\n'] * (1 + written)
    assert paths.spool(second, other.key).exists() == written
    ledger = read(second, "smoke")
    assert (ledger.entries[first.key].detail, ledger.state(other.key)) == ({"sweep": "another"}, "")


def test_a_driver_at_work_is_not_disturbed(trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    second = tmp_path / "second"
    working = Manifest(second, "smoke")
    assert main(["adopt", str(tmp_path / "smoke.zip"), "--storage", str(second)]) == 2
    assert "smoke" in capsys.readouterr().err
    assert not paths.trials(second).exists()
    working.close()


def changed(file: Path, to: Path, change: Callable[[dict[str, bytes]], None]) -> Path:
    """A copy of an archive with its parts changed."""
    with zipfile.ZipFile(file) as old:
        parts = {name: old.read(name) for name in old.namelist()}
    change(parts)
    with zipfile.ZipFile(to, "w") as new:
        for name, content in parts.items():
            new.writestr(name, content)
    return to


def escape(parts: dict[str, bytes]) -> None:
    """A trial whose key is a path."""
    key = next(iter(json.loads(parts["sweeps/smoke.json"])))
    parts["sweeps/smoke.json"] = json.dumps({f"../../{key}": {}}).encode()


def swap(parts: dict[str, bytes]) -> None:
    """A trial under the key of another one."""
    one, two = json.loads(parts["sweeps/smoke.json"])
    parts[f"trials/{one}/trial.json"] = parts[f"trials/{two}/trial.json"]


def tear(parts: dict[str, bytes]) -> None:
    name = next(name for name in parts if name.endswith("spool.jsonl"))
    parts[name] = parts[name][:-10]


def rename(parts: dict[str, bytes]) -> None:
    """A sweep whose name is a path."""
    parts["sweeps/..json"] = parts.pop("sweeps/smoke.json")


def empty(parts: dict[str, bytes]) -> None:
    parts.clear()


def pretend(parts: dict[str, bytes]) -> None:
    """Of a suggestion with a trial that the archive does not hold."""
    ends = json.loads(parts["sweeps/smoke.json"])
    one = next(iter(ends))
    ends[one] |= {"study": "smoke", "params": {"sparsity": 0.5}, "keys": [one, "0" * 16]}
    parts["sweeps/smoke.json"] = json.dumps(ends).encode()


@pytest.mark.parametrize("change", [escape, swap, tear, rename, empty, pretend])
def test_a_file_that_is_not_what_it_should_be_is_refused_and_nothing_is_written(
    trained: Path, tmp_path: Path, change: Callable[[dict[str, bytes]], None], capsys: pytest.CaptureFixture[str]
) -> None:
    bad = changed(tmp_path / "smoke.zip", tmp_path / "bad.zip", change)
    assert main(["adopt", str(bad), "--storage", str(tmp_path / "second" / "storage")]) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert not (tmp_path / "second").exists()


def test_bad_input_is_said_in_one_line(trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    to = tmp_path / "none.zip"
    shutil.copy(trained / "mlflow.db", tmp_path / "other")
    with contextlib.closing(Manifest(trained, "claim")) as manifest:
        manifest.plan(trials(trained)[2:])
    for arguments, says in (
        (["archive", "quickstart", "--to", str(to), "--storage", str(trained)], "there are: claim, smoke"),
        (["archive", "claim", "--to", str(to), "--storage", str(trained)], "'claim' has no finished trial yet\n"),
        (["archive", "claim", "--unfinished", "--to", str(to), "--storage", str(trained)], "no finished trial yet, and no checkpoint\n"),
        (["adopt", str(tmp_path / "nothing.zip"), "--storage", str(trained)], "nothing.zip"),
        (["adopt", str(tmp_path / "other"), "--storage", str(trained)], "other is not an archive of trials"),
        (["adopt", str(tmp_path / "smoke.zip"), "--storage", "s3://bucket/prefix"], "s3://bucket/prefix is on S3"),
    ):
        assert main(arguments) == 2
        said = capsys.readouterr().err
        assert said.startswith("error: ")
        assert said.count("\n") == 1
        assert says in said
    assert not to.exists()
