"""A storage whose path holds what addresses and shells take for their own: everything lands in it, and what is printed can be pasted."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from service.__main__ import main
from service.planning.plan import make_plan
from service.planning.run_settings import RunSettings
from service.storage import paths
from tests.conftest import HOPPER
from tests.service.trained import ship, train

SETTINGS = (f"datasets={HOPPER}", "pruners=dense", "seeds=0,1", "updates=10", "evaluations=1", "episodes=1", "hyper.hidden=(16, 16)")
COMMAND = re.compile(r"`((?:winnow|optuna-dashboard|mlflow) [^`]*)`|: ((?:winnow|mlflow|optuna-dashboard) .*)")

pytestmark = pytest.mark.filterwarnings("ignore:.*noload.*:DeprecationWarning")  # MLflow's own use of a newer SQLAlchemy


def commands(text: str) -> list[list[str]]:
    """The commands that a text tells to type, as a shell would split them."""
    return [shlex.split(one or other) for one, other in COMMAND.findall(text)]


@pytest.mark.usefixtures("own_tables")
@pytest.mark.parametrize("name", ["per%20cent and space", "it's #1 & 100%; what?"])
def test_everything_lands_in_it_and_what_is_printed_can_be_pasted(
    name: str, tmp_path: Path, hopper: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.chdir(tmp_path)
    storage = tmp_path / name
    found = make_plan("smoke", RunSettings(overrides=SETTINGS), storage=storage).trials
    train(storage, "smoke", found[:1], planned=found[1:])
    tracking = ship(storage, "smoke")
    place = f"--storage={storage}"
    (run,) = tracking.sweep_runs()
    tracking._opened().set_tag(run.info.run_id, "winnow.best", "another")
    assert main(["verify", "smoke", place]) == 1
    assert commands(capsys.readouterr().out) == [["winnow", "sync", "smoke", "--again", place]]
    assert main(["sync", "smoke", place]) == 0
    assert main(["verify", "smoke", place]) == 0
    assert main(["report", "smoke", place]) == 0
    assert main(["results", "smoke", *(f"--set={setting}" for setting in SETTINGS), place]) == 0
    assert main(["status", "smoke", place]) == 0
    text = capsys.readouterr().out
    assert (paths.mlflow_artifacts(storage)).is_dir()
    assert list(paths.mlflow_artifacts(storage).rglob("page.html")), "artifacts, too"
    assert sorted(path.name for path in tmp_path.iterdir()) == [name], "and nothing beside it"
    told = commands(text)
    assert ["winnow", "resume", "smoke", place] in told
    assert ["mlflow", "ui", "--backend-store-uri", tracking.uri] in told
    assert main(["archive", "smoke", "--to", str(storage / "smoke.zip"), place]) == 0
    assert main(["adopt", str(storage / "smoke.zip"), f"--storage={storage / 'second'}"]) == 0
    told = commands(capsys.readouterr().out)
    assert ["winnow", "run", "smoke", f"--storage={storage / 'second'}"] in told
    assert ["winnow", "sync", "smoke", f"--storage={storage / 'second'}"] in told
    (run,) = tracking.sweep_runs()
    tracking._opened().delete_run(run.info.run_id)
    assert main(["report", "smoke", place]) == 2
    assert commands(capsys.readouterr().err) == [["winnow", "sync", "smoke", "--restore", place]]
    assert main(["sync", "smoke", "--restore", place]) == 0
