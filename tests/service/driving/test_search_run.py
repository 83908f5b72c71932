"""A real adaptive sweep: embedded Ray, Optuna, MLflow; its driver killed with SIGKILL on the way, and run again."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import optuna
import pytest
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import TrialState

from search_spaces.sweep import load_sweep, override
from search_spaces.sweep.space import spaces
from service.__main__ import main
from service.ledger import manifest
from service.spool import lines as spool
from service.spool import scores
from service.storage import paths
from service.tracking.runs import Tracking
from tests.service.conftest import ROOT, Command
from tests.warm import INJECT
from trainables.reports import Checkpointed
from trainables.run import run_stack
from trainables.trial import Stack

pytestmark = pytest.mark.filterwarnings("ignore:.*noload.*:DeprecationWarning")  # MLflow's own use of a newer SQLAlchemy

NAME = "td3bc_adaptive"
SETTINGS = (
    "datasets=test/hopper/random-v0", "updates=3000", "evaluations=6", "episodes=2", "hyper.hidden=(32,32)", "seeds=0",
    "search.objective=score", "search.stop=asha", "search.suggestions=4",
)  # fmt: skip
SET = [f"--set={setting}" for setting in SETTINGS]
ARGUMENTS = [*SET, "--device", "cpu", "--stack-size", "3", "--max-concurrent", "1", "--checkpoint-every", "50"]
INJECTED = {"PYTHONPATH": f"{ROOT}:{INJECT}"}
DIES = INJECTED | {"FAULTS": "die_after=Evaluated@500"}  # the worker, between its first score and the checkpoint that commits it
# A worker waits after each report until the driver asks for more: else a fast one ends within its second, before it can be stopped.
AT_ONCE = INJECTED | {"FAULTS": "news_at_once"}


@pytest.fixture(scope="module")
def first(service: Command, storage: Path) -> subprocess.CompletedProcess[str]:
    """The sweep, its worker and its driver killed when the first score is there, and resumed to the end with nothing typed again."""
    environment = service.environment | DIES  # type: ignore[attr-defined]
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        storage.mkdir()
        Tracking(storage).parent_run(NAME)  # the kill shall not meet MLflow in the making of its database
    driver = subprocess.Popen([sys.executable, "-m", "service", "run", NAME, *ARGUMENTS], cwd=ROOT, env=environment)
    while not any('"evaluated"' in file.read_text() for file in paths.trials(storage).glob("*/spool.jsonl")):
        assert driver.poll() is None
        time.sleep(0.02)
    os.kill(driver.pid, signal.SIGKILL)
    driver.wait()
    return service("resume", NAME, **AT_ONCE)


@pytest.fixture(scope="module")
def study(first: subprocess.CompletedProcess[str], storage: Path, hopper_folder: Path) -> optuna.Study:
    (space,) = spaces(override(load_sweep(NAME), SETTINGS))
    return optuna.load_study(study_name=space.study(NAME), storage=JournalStorage(JournalFileBackend(str(paths.study(storage, NAME)))))


@pytest.fixture
def here(service: Command, first: subprocess.CompletedProcess[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    """`here("status", NAME)`: exit code and output of a command in this process, where optuna and mlflow are imported already."""
    for name in ("MLFLOW_TRACKING_URI", "RAY_ADDRESS"):
        monkeypatch.delenv(name, raising=False)
    for name, value in service.environment.items():  # type: ignore[attr-defined]
        monkeypatch.setenv(name, value)

    def run(*arguments: str) -> tuple[int, str]:
        code = main(arguments)
        return code, capsys.readouterr().out

    return run


def test_a_killed_search_ends_with_each_suggestion_told_once(
    first: subprocess.CompletedProcess[str], study: optuna.Study, storage: Path
) -> None:
    assert first.returncode == 0, first.stderr
    ledger = manifest.read(storage, NAME)
    assert len(ledger.entries) == len(study.trials) == 4
    assert {trial.user_attrs["key"] for trial in study.trials} == set(ledger.entries)
    for trial in study.trials:
        entry = ledger.entries[trial.user_attrs["key"]]
        assert (entry.state, trial.state) in (("done", TrialState.COMPLETE), ("stopped", TrialState.PRUNED))
        curve = scores.curve(storage, [entry.trial])
        assert trial.intermediate_values == curve
        assert trial.value == list(curve.values())[-1]
    states = {trial.state for trial in study.trials}
    assert states == {TrialState.COMPLETE, TrialState.PRUNED}, (
        "thirds pass: of the first three, in one stack, the first does not, and some do not"
    )


def test_a_stopped_member_leaves_at_a_checkpoint_and_its_run_says_so(first: subprocess.CompletedProcess[str], here, storage: Path) -> None:
    ledger = manifest.read(storage, NAME)
    runs = Tracking(storage).trial_rows(ledger.entries)
    stopped = ledger.keys_in("stopped")
    assert stopped
    for key in stopped:
        detail, lines = ledger.entries[key].detail, spool.read(paths.spool(storage, key))
        assert detail["reason"] == "asha"
        assert 500 <= detail["stopped_at"] == spool.committed_update(lines) < 3000
        assert runs[key].status == "FINISHED"
        assert runs[key].tags["winnow.stopped_at"] == str(detail["stopped_at"])
        assert runs[key].tags["winnow.state"] == "stopped"
    assert "stopped" in first.stdout
    assert here("verify", NAME) == (0, "4 trials: MLflow holds exactly what they wrote\n")


def test_those_that_go_on_in_a_smaller_stack_end_as_undisturbed_ones(
    first: subprocess.CompletedProcess[str], here, storage: Path, tmp_path: Path
) -> None:
    ledger = manifest.read(storage, NAME)
    shrunk = [key for key, entry in ledger.entries.items() if any(event.detail.get("reason") == "stack shrinks" for event in entry.events)]
    assert shrunk
    trial = ledger.entries[shrunk[0]].trial
    end = spool.committed_update(spool.read(paths.spool(storage, trial.key)))
    assert end > 1000
    for report in run_stack(Stack((trial,)), tmp_path, checkpoint_every=50):
        if isinstance(report, Checkpointed) and report.update == end:
            break
    name = f"{end:09d}.safetensors"
    assert (paths.checkpoints(storage, trial.key) / name).read_bytes() == (paths.checkpoints(tmp_path, trial.key) / name).read_bytes()


def test_the_results_are_the_best_suggestions(first: subprocess.CompletedProcess[str], study: optuna.Study, here, storage: Path) -> None:
    code, shown = here("results", NAME, *SET)
    assert code == 0
    assert f"{study.study_name}: best scores; " in shown
    best = next(line for line in shown.splitlines() if study.best_trial.user_attrs["key"] in line)
    assert best.split()[0] == f"{study.best_value:.1f}"
    assert f"optuna-dashboard {paths.study(storage, NAME)}" in shown
    assert paths.table(storage, NAME).read_text() in shown
    (told,) = json.loads(here("results", NAME, *SET, "--json")[1])
    assert [each["state"] for each in told["tries"]] == [
        {TrialState.COMPLETE: "done", TrialState.PRUNED: "stopped"}[trial.state] for trial in study.trials
    ]
    code, again = here("run", NAME, *ARGUMENTS)
    assert code == 0
    assert "of which 0 are to come" in again
    assert len(study.get_trials()) == 4
    code, reported = here("report", NAME)
    assert code == 0
    assert f"{NAME}: a search has made 4 suggestions, guided by these scores: the best of them are too high on average" in reported
