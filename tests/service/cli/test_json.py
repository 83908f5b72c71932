"""`--json`: every command that reports has it, its fields are those of docs/json.md, and its numbers those of the text."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from service.__main__ import main
from service.cli.commands import commands
from service.planning.plan import make_plan
from service.planning.run_settings import RunSettings
from service.storage import paths
from tests.conftest import HOPPER
from tests.service.conftest import ROOT
from tests.service.trained import ship, train
from trainables.output import to_json

SETTINGS = (f"datasets={HOPPER}", "pruners=dense,snip", "sparsities=0.5", "seeds=0", "updates=10", "evaluations=1", "episodes=1",
            "hyper.hidden=(16, 16)")  # fmt: skip
SET = [f"--set={setting}" for setting in SETTINGS]
TRAINING = {"run", "resume"}  # they show progress; `results` has the scores as JSON
DOCUMENTED = {
    words: re.findall(r"`(\w+)`", re.sub(r"\(.*?\)", "", text))
    for words, text in re.findall(r"^\| `([a-z ]+)` \| (.*) \|$", (ROOT / "docs" / "json.md").read_text(), re.MULTILINE)
}

pytestmark = pytest.mark.filterwarnings("ignore:.*noload.*:DeprecationWarning")  # MLflow's own use of a newer SQLAlchemy
Both = Callable[..., tuple[str, Any]]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, hopper_folder: Path, table_cache: Path) -> Path:
    """A sweep of two trials, of which one is done, in a storage with its own MLflow."""
    storage = tmp_path_factory.mktemp("json") / "storage"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MINARI_DATASETS_PATH", str(hopper_folder))
        patch.setenv("WINNOW_CACHE", str(table_cache))
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        found = make_plan("smoke", RunSettings(overrides=SETTINGS), storage=storage).trials
        train(storage, "smoke", found[:1], planned=found[1:])
        ship(storage, "smoke")
    return storage


@pytest.fixture
def both(trained: Path, hopper: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Both:
    """What a command prints, as text and as JSON, whose fields are checked; it exits with the same code."""
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.chdir(tmp_path)

    def run(*arguments: str, name: str = "") -> tuple[str, Any]:
        place = [] if arguments[0] in ("init", "datasets") or "--storage" in arguments else ["--storage", str(trained)]
        code = main([*arguments, *place])
        text = capsys.readouterr().out
        assert main([*arguments, *place, "--json"]) == code
        value = json.loads(capsys.readouterr().out, parse_constant=lambda word: pytest.fail(f"{word} is no JSON"))
        one = value[0] if isinstance(value, list) and value else value
        assert sorted(one) == sorted(DOCUMENTED[name or arguments[0]])
        return text, value

    return run


def test_every_command_that_reports_has_json_and_is_documented() -> None:
    from service.cli.parser import parser
    from tests.service.cli.test_commands import HELPS

    known = {" ".join(words) for words in HELPS if words and words != ("datasets",)} - TRAINING
    assert known == set(DOCUMENTED)
    assert commands().keys() > TRAINING
    for words in sorted(known):
        below: Any = parser()
        for word in words.split():
            below = next(action for action in below._actions if action.choices and word in action.choices).choices[word]
        assert any("--json" in action.option_strings for action in below._actions), words


def test_list_show_status_and_plan(both: Both) -> None:
    text, value = both("list")
    (smoke,) = [each for each in value["sweeps"] if each["sweep"] == "smoke"]
    row = next(line for line in text.splitlines() if line.split()[0] == "smoke").split()
    assert row[1:4] == [smoke["state"], str(smoke["done"]), str(smoke["trials"])] == ["unfinished", "1", "2"]
    text, value = both("show", "smoke")
    assert value["counts"] == {"done": 1, "planned": 1}
    assert all(f"{count} {state}" in text for state, count in value["counts"].items())
    text, value = both("status", "smoke")
    assert value["counts"] == {"done": 1, "planned": 1}
    assert text.startswith("smoke: 1 done, 1 planned; nobody runs it now")
    text, value = both("plan", "smoke", *SET)
    todo = [trial for trial in value["trials"] if trial["state"] == "planned"]
    assert f"{len(todo)} in {len(value['stacks'])} stacks of at most {value['stack_size']}, {value['max_concurrent']} at a time" in text


def test_what_is_leased_is_called_as_in_the_text(both: Both, trained: Path, tmp_path: Path) -> None:
    from service.ledger.manifest import Manifest

    storage = tmp_path / "storage"
    shutil.copytree(trained, storage)
    manifest = Manifest(storage, "smoke")
    (key,) = manifest.ledger.keys_in("planned")
    manifest.record("leased", {key: {"size": 1}})
    for driven, word in ((True, "running"), (False, "interrupted")):
        if not driven:
            manifest.close()
        for command in ("status", "show"):
            text, value = both(command, "smoke", "--storage", str(storage))
            assert value["counts"] == {"done": 1, word: 1}
            assert f"1 {word}" in text
            assert {trial["state"] for trial in value["trials"]} == {"done", word}
    _, value = both("plan", "smoke", *SET, "--storage", str(storage))
    assert [trial["state"] for trial in value["trials"]] == ["done", "planned"]


def test_results_and_report_hold_the_numbers_of_the_text(both: Both, trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text, value = both("results", "smoke", *SET)
    dense = next(cell for cell in value[0]["cells"] if cell["pruner"] == "dense")
    assert f"{dense['scores'][0]:.1f}" in text
    assert "outside this grid" not in text
    kept = paths.table(trained, "smoke").read_text()
    beyond, _ = both("results", "smoke", "--set", "seeds=5")
    said = "none of this grid's trials has begun; 1 trials of this sweep that have begun are outside this grid; `winnow report smoke"
    assert beyond.startswith(said)
    assert main(["results", "smoke", "--set", "seeds=5", "--storage", str(trained), "--json"]) == 0
    told = capsys.readouterr()
    assert json.loads(told.out)
    assert told.err.startswith("1 trials of this sweep that have begun are outside this grid; ")
    assert paths.table(trained, "smoke").read_text() == kept, "a grid without scores does not replace those of one that has some"
    text, value = both("report", "smoke")
    assert all(line in text for line in [*value["verdict"], *value["warnings"]])
    (cell,) = [cell for cell in value["cells"] if cell["method"] == "dense"]
    assert f"{cell['mean']:.1f}" in text
    assert cell["mean_low"] is None, "one seed has no interval"
    assert f"page: {value['page']}" in text
    assert Path(value["page"]).exists()


def test_logs_sync_verify_and_stop(both: Both, trained: Path) -> None:
    _, status = both("status", "smoke")
    key = status["trials"][0]["key"]
    text, value = both("logs", key)
    assert f"({value['committed_update']:,} updates committed)" in text
    assert text.startswith(f"{key}  {value['name']}")
    assert "manifest (times in UTC)" in text
    text, value = both("sync", "smoke")
    assert text.startswith(f"{value['points']} points shipped")
    text, value = both("verify", "smoke")
    assert (value["trials"], value["differences"]) == (2, [])
    text, value = both("stop", "smoke")
    assert (text, value["left"], value["driver"]) == ("nobody runs sweep 'smoke'\n", True, "")


def test_archive_adopt_export_and_promote(both: Both, tmp_path: Path) -> None:
    file = tmp_path / "smoke.zip"
    text, value = both("archive", "smoke", "--to", str(file))
    assert text.startswith(f"{value['file']}: {value['trials']} finished trials, {value['bytes'] / 1e3:,.0f} kB")
    assert value["bytes"] == file.stat().st_size
    text, value = both("adopt", str(file), "--storage", str(tmp_path / "second"))
    assert "smoke: 1 trials adopted" in text
    assert value["sweeps"] == {"smoke": {"adopted": 0, "unfinished": 0, "done": 1, "begun": 0}}, "the second time"
    _, status = both("status", "smoke")
    key = status["trials"][0]["key"]
    text, value = both("export", key, "--to", str(tmp_path / "policy"))
    assert text == f"{value['folder']}: {', '.join(value['files'])}\n"
    text, value = both("promote", key, "--name", "cheetah")
    assert f"version {value['number']} of model {value['model']!r}" in text
    assert value["uri"] in text


def test_datasets(both: Both, tmp_path: Path) -> None:
    text, value = both("datasets", "list", name="datasets list")
    assert [line.split()[:3] for line in text.splitlines()[:-1]] == [
        [each["dataset"], f"{each['transitions']:,}", "transitions"] for each in value["datasets"]
    ]
    text, (value,) = both("datasets", "check", HOPPER, name="datasets check")
    assert f"{value['transitions']} transitions in {value['episodes']} episodes" in text
    assert f"mean return {value['mean_return']:.0f}, normalized {value['normalized_score']:.1f}, hash {value['hash'][:12]}" in text
    main(["datasets", "show", HOPPER, "--json"])


def test_init(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["init", str(tmp_path / "mine"), "--json"]) == 0
    value = json.loads(capsys.readouterr().out)
    assert sorted(value) == sorted(DOCUMENTED["init"])
    assert all((tmp_path / "mine" / file).exists() for file in value["files"])


def test_what_is_no_number_is_null() -> None:
    import numpy as np

    value = {"a": float("nan"), 1: (np.float32("inf"), np.arange(2)), "p": Path("x")}
    assert json.loads(to_json(value)) == {"a": None, "1": [None, [0, 1]], "p": "x"}
