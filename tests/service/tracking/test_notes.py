"""What MLflow's page shows of a run besides its numbers, on a real MLflow."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import Any

import pytest

from service.ledger.ledger import Event
from service.storage import paths
from service.tracking import notes
from service.tracking.experiment import EXPERIMENT
from service.tracking.runs import NOTE, Tracking
from service.tracking.shipping.shipper import Shipper
from trainables.__main__ import parser, stack_of
from trainables.trial import Trial

from .test_shipper import DATASET, ledger_of, runs, ship, shipped, write

pytestmark = pytest.mark.filterwarnings("ignore:.*noload.*:DeprecationWarning")  # MLflow's own use of a newer SQLAlchemy

MAZE = "D4RL/antmaze/umaze-v1"  # of whose rewards IQL's paper subtracts 1
TRIAL = Trial(dataset=DATASET, algorithm="bc", pruner="snip", sparsity=0.8, seed=1000, updates=40, evaluations=2)


@pytest.fixture(scope="module")
def tracking(tmp_path_factory: pytest.TempPathFactory) -> Tracking:
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        return Tracking(tmp_path_factory.mktemp("notes"))


@pytest.mark.parametrize(
    "trial",
    [
        TRIAL,
        Trial(dataset=DATASET, algorithm="iql", hyper={"hidden": (32, 16), "beta": 2.5}, episodes=3, final_episodes=7),
        Trial(dataset=DATASET, pruner="snip", sparsity=0.9, sparsity_of={"critic": 0.5}, scope="joint", authors=True, fresh="smoke"),
        Trial(dataset=MAZE, algorithm="iql"),
        Trial(dataset=MAZE, algorithm="iql", reward_shift=-1),
        Trial(dataset=MAZE, algorithm="iql", reward_shift=-1e-5, reward_scale=1e22),
        Trial(dataset=MAZE, algorithm="bc", reward_shift=-1, hyper={"gaussian": True}),
        Trial(dataset=DATASET, pruner="rigl", sparsity=0.5, pruning={"delta": 7}, calibration_size=9, data="0123456789"),
        Trial(dataset=DATASET, algorithm="iql", initialization="xavier", timeouts="terminal", states="normalized", transitions=5),
        Trial(dataset=DATASET, hyper={"hidden": (16,), "alpha": 1e-7, "noise_clip": 1e22}),
    ],
    ids=lambda trial: trial.name,
)
def test_the_command_of_a_note_is_the_trials_own(trial: Trial) -> None:
    words = shlex.split(notes.command_of(trial))
    assert words[:3] == ["python", "-m", "trainables"]
    elsewhere = ("device", "execution", "tf32", "storage", "imports")  # where it is trained
    given = {name: value for name, value in vars(parser().parse_args(words[3:])).items() if name not in elsewhere}
    assert stack_of(given).trials == (trial,)
    assert stack_of(given).lead.key == trial.key


def test_a_message_in_a_note_is_no_html() -> None:
    """MLflow's page lets a frame of another site through."""
    event = Event(key=TRIAL.key, state="failed", detail={"reason": "user_error", "message": "<iframe src='http://elsewhere'>"})
    note = notes.of_trial(TRIAL, event, [{"kind": "pruned", "warnings": ["<img src=x>"]}])
    assert "&lt;iframe" in note
    assert "<" not in note


def test_a_note_says_what_it_is_how_it_ended_and_what_to_type(tmp_path: Path, tracking: Tracking) -> None:
    write(tmp_path, TRIAL, last=30)
    ship(tmp_path, TRIAL, tracking, "leased")
    (run,) = runs(tracking, TRIAL)
    assert "State: in training." in run.data.tags[NOTE]
    write(tmp_path, TRIAL)
    ship(tmp_path, TRIAL, tracking, "leased", "done")
    (run,) = runs(tracking, TRIAL)
    note = run.data.tags[NOTE]
    assert f"**BC, SNIP 80 %**, on `{DATASET}`, seed 1000, 40 updates." in note
    assert "State: done. Last evaluation: normalized score **20.0**, return 2.0, mean of 2 episodes after 40 updates." in note
    assert "Warning: actor: a hidden layer has 3 live units left." in note
    for line in (
        f"rollout {TRIAL.key} --video",
        f"export {TRIAL.key} --to",
        f"promote {TRIAL.key}",
        notes.command_of(TRIAL),
        "code abc123",
    ):
        assert line in note
    tags = {
        "winnow.dataset": DATASET,
        "winnow.algorithm": "bc",
        "winnow.pruner": "snip",
        "winnow.sparsity": "0.8",
        "winnow.cell": "snip@80",
    }
    assert tags.items() <= run.data.tags.items()
    assert run.data.tags["winnow.sweep.smoke"] == "trained"
    (parent,) = tracking._search({"winnow.sweep": "smoke"})
    assert parent.data.tags[NOTE].startswith("**Sweep smoke**, 1 trials")


def test_shipping_again_leaves_notes_as_they_are_and_those_of_people(tmp_path: Path, tracking: Tracking) -> None:
    trial = Trial(dataset=DATASET, algorithm="bc", seed=1001, updates=40, evaluations=2)
    write(tmp_path, trial)
    ship(tmp_path, trial, tracking, "leased")
    (run,) = runs(tracking, trial)
    for edited in (None, "the one in the paper"):
        if edited:
            tracking.log(run.info.run_id, (), {NOTE: edited})
        else:
            ship(tmp_path, trial, tracking, "leased", "done")
        before = runs(tracking, trial)[0].data
        paths.shipped(tmp_path, trial.key).unlink()
        ship(tmp_path, trial, tracking, "leased", "done")
        after = runs(tracking, trial)[0].data
        assert after.tags == before.tags
        assert edited is None or after.tags[NOTE] == edited
    assert shipped(tracking, trial)


def test_final_episodes_are_told_beside_the_last_evaluation() -> None:
    lines = [
        {"kind": kind, "update": 40, "returns": returns, "scores": []} for kind, returns in (("evaluated", [1.0, 3.0]), ("final", [5.0]))
    ]
    note = notes.of_trial(TRIAL, Event(key=TRIAL.key, state="done"), lines)
    assert "Last evaluation: return 2.0, mean of 2 episodes after 40 updates. Final episodes: return 5.0, mean of 1 episodes" in note


def test_a_failure_is_told_with_its_reason() -> None:
    event = Event(key=TRIAL.key, state="diverged", detail={"reason": "divergence", "message": "not finite after update 7"})
    note = notes.of_trial(TRIAL, event, [])
    assert "State: diverged: divergence: not finite after update 7." in note
    assert f"winnow logs {TRIAL.key}" in note
    assert "export" not in note


def test_an_experiment_of_each_study(tmp_path: Path, tracking: Tracking, monkeypatch: pytest.MonkeyPatch) -> None:
    """MLflow's own variable names it; what was shipped to one is shipped to the other, too, and is a page of its own."""
    trial = Trial(dataset=DATASET, algorithm="bc", seed=1002, updates=40, evaluations=2)
    write(tmp_path, trial)
    ship(tmp_path, trial, tracking, "leased", "done")
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "camera-ready")
    other = Tracking(tracking._storage)
    assert Shipper(tmp_path, "smoke", ledger_of(trial, "leased", "done"), other).ship() == len(shipped(tracking, trial))
    assert shipped(other, trial) == shipped(tracking, trial)
    client: Any = other._connected()
    found = {name: client.get_experiment_by_name(name) for name in (EXPERIMENT, "camera-ready")}
    assert tracking.page("smoke") != other.page("smoke")
    for experiment in found.values():
        assert experiment.tags["mlflow.experimentKind"] == "custom_model_development"
        assert json.loads(experiment.tags["mlflow.sharedViewState.winnow"])["orderByKey"] == "metrics.`eval/normalized_score`"
