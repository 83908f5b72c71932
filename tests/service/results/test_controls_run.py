"""A sweep with `controls=true`, trained for real: `results` and `report` tell the verdict, and change nothing in MLflow by it."""

from __future__ import annotations

import json
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from search_spaces.sweep import expand, load_sweep, override
from service.__main__ import main
from service.driving.session import Session
from service.planning.run_settings import RunSettings
from service.storage import paths
from service.tracking.connection import TrackingError
from service.tracking.runs import Tracking
from tests.conftest import HOPPER
from tests.service.trained import ship, train

pytestmark = pytest.mark.filterwarnings("ignore:.*noload.*:DeprecationWarning")  # MLflow's own use of a newer SQLAlchemy
SETTINGS = [f"--set=datasets={HOPPER}", "--set=controls=true", "--set=updates=20", "--set=evaluations=1"]


@pytest.fixture(scope="module")
def tracking(tmp_path_factory: pytest.TempPathFactory, hopper_folder: Path) -> Tracking:
    """The sweep `smoke` with its controls, in MLflow; one shuffled control, of seed 1, has not been trained."""
    storage = tmp_path_factory.mktemp("controls") / "storage"
    trials = expand(override(load_sweep("smoke"), [setting.removeprefix("--set=") for setting in SETTINGS]))
    waiting = [trial for trial in trials if trial.control == "shuffle" and trial.seed == 1]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MINARI_DATASETS_PATH", str(hopper_folder))
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        train(storage, "smoke", [trial for trial in trials if trial not in waiting], planned=waiting)
        return ship(storage, "smoke")


@pytest.fixture(autouse=True)
def here(tracking: Tracking, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WINNOW_STORAGE", str(tracking._storage))
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)


def parent_of(tracking: Tracking) -> Any:
    return tracking._connected().get_run(tracking.sweeps()["smoke"])


def test_results_tell_the_verdict_and_leave_mlflow_as_it_is(tracking: Tracking, capsys: pytest.CaptureFixture[str]) -> None:
    before = parent_of(tracking)
    assert before.info.status == "RUNNING"
    assert main(["results", "smoke", *SETTINGS]) == 0
    out = capsys.readouterr().out
    assert f"SNIP 80 % ({HOPPER}, 20 updates, evaluations 1, episodes 2)" in out
    assert "  against its mask shuffled within layers " in out
    assert re.search(r"shuffled within layers +[+-][0-9.]+  n=1 of 2 \(1 missing\)  one seed says nothing", out)
    assert re.search(r"a random ERK mask +[+-][0-9.]+ \[[+-][0-9.]+, [+-][0-9.]+\]  n=2  (better|worse|no difference shown)", out)
    assert paths.figure(tracking._storage, "smoke").read_bytes().startswith(b"\x89PNG")
    after = parent_of(tracking)
    assert (after.info.status, after.data.tags) == (before.info.status, before.data.tags)
    assert "results.txt" not in {file.path for file in tracking._connected().list_artifacts(after.info.run_id)}
    assert main(["results", "smoke", *SETTINGS, "--json"]) == 0
    (study,) = json.loads(capsys.readouterr().out)
    verdicts = {each["control"]: (len(each["differences"]), each["absent"]) for each in study["controls"]}
    assert verdicts == {"shuffle": (1, ["missing"]), "reinit": (2, []), "erk": (2, []), "small_dense": (2, [])}


def test_the_report_tells_it_too(
    tracking: Tracking, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("service.results.report.drawing.FIGURES", {})
    assert main(["report", "smoke", "--to", str(tmp_path)]) == 0
    out = capsys.readouterr().out
    assert "did the mask itself do anything?" in out
    assert re.search(r"shuffled within layers +[+-][0-9.]+  n=1 of 2 \(1 missing\)  one seed says nothing", out)
    page = (tmp_path / "page.html").read_text()
    assert "<h2 id=controls>Controls</h2>" in page
    assert re.search(r"<td>its mask shuffled within layers</td><td>[+-][0-9.]+</td><td></td><td>1 of 2 \(1 missing\)</td>", page)


@pytest.mark.parametrize("command", [["results", "smoke", *SETTINGS], ["results", "smoke", *SETTINGS, "--json"], ["report", "smoke"]])
def test_an_mlflow_that_is_away_is_told_in_one_line(
    command: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    assert main(command) == 2
    told = capsys.readouterr().err.splitlines()
    assert [line for line in told if not line.startswith("reading MLflow")] == [told[-1]]
    assert told[-1].startswith("error: MLflow does not answer as it should (MlflowException: API request")


def test_a_run_ends_well_also_where_mlflow_goes_away_at_its_end(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def away(*_: object) -> None:
        raise TrackingError(ConnectionError("nobody there"))

    monkeypatch.setattr("service.driving.session.show", away)
    session = Session.__new__(Session)
    monkeypatch.setattr(session, "_check_lease", lambda: None, raising=False)
    session.driver = SimpleNamespace(last_line=lambda: None, shipped=lambda: None)  # type: ignore[assignment]
    session._shipping = SimpleNamespace(finish=lambda *_, **__: True, trouble="", left_alone=())  # type: ignore[assignment]
    trials = expand(load_sweep("smoke"))
    session._plan = SimpleNamespace(name="smoke", part="", trials=trials, settings=RunSettings())  # type: ignore[assignment]
    session._adaptive = None
    session._tracking, session._storage = SimpleNamespace(), paths.root()  # type: ignore[assignment]
    session.show()
    assert "ConnectionError: nobody there); nothing is lost, `winnow results smoke`" in capsys.readouterr().out
