"""Real sweeps: embedded Ray, MuJoCo, MLflow on sqlite. What is trained, what MLflow holds, and what running again does."""

from __future__ import annotations

import csv
import errno
import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from search_spaces.sweep import expand, load_sweep, override
from service.__main__ import main
from service.ledger import manifest
from service.spool import lines as spool
from service.spool.lines import Placed
from service.storage import paths
from service.tracking.experiment import EXPERIMENT
from service.tracking.runs import Tracking
from tests.faults.support.harness import LONG
from tests.faults.support.nursery import INJECT
from tests.service.conftest import ROOT, Command
from trainables.native import build
from trainables.trial import Trial

pytestmark = pytest.mark.filterwarnings("ignore:.*noload.*:DeprecationWarning")  # MLflow's own use of a newer SQLAlchemy

# A good and a diverging learning rate, in stacks of two; SNIP at 99.99 % leaves no path from input to output.
SETTINGS = (
    "datasets=test/hopper/random-v0",
    "seeds=0",
    "updates=600",
    "sparsities=0.8,0.9999",
    "final_episodes=3",
    "hyper.learning_rate=0.0003,1e30",
)
EVERY = 50  # updates between two checkpoints
PLACES = ["--device", "cpu", "--max-concurrent", "2", "--stack-size", "2"]  # of three stacks one is not begun when the signal comes
ARGUMENTS = [*PLACES, "--checkpoint-every", str(EVERY), *(f"--set={setting}" for setting in SETTINGS)]


@pytest.fixture(scope="module")
def slow(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Trials are slow while this file is there."""
    file = tmp_path_factory.mktemp("run") / "slow"
    file.touch()
    return file


@pytest.fixture(scope="module")
def slowly(service: Command, slow: Path) -> dict[str, str]:
    """The environment of a command whose trials are slow, and which has all the time it wants to leave."""
    faults = {"PYTHONPATH": f"{ROOT}:{INJECT}", "FAULTS": f"slow_while={slow} leaves_within={LONG}"}
    return service.environment | faults  # type: ignore[attr-defined,no-any-return]


@pytest.fixture(scope="module")
def interrupted(service: Command, slowly: dict[str, str], storage: Path) -> tuple[int, str, dict[str, list[Placed]]]:
    """The sweep, ended by SIGTERM when a trial has begun: exit code, output, and what is committed of each trial by then."""
    command = [sys.executable, "-m", "service", "run", "smoke", *ARGUMENTS]
    driver = subprocess.Popen(command, cwd=ROOT, env=slowly, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    keys = [trial.key for trial in trials().values()]
    while max(spool.committed_update(spool.read(paths.spool(storage, key))) for key in keys) < EVERY:
        assert driver.poll() is None, driver.communicate()[0]
        time.sleep(0.02)
    workers = {placed.line["pid"] for key in keys for placed in spool.read(paths.spool(storage, key)) if placed.line["kind"] == "attempt"}
    driver.send_signal(signal.SIGTERM)  # what `ray job stop` sends
    out, _ = driver.communicate(timeout=LONG)
    assert not [pid for pid in workers if is_running(pid)]
    return driver.returncode, out, {key: spool.committed(spool.read(paths.spool(storage, key))) for key in keys}


@pytest.fixture(scope="module")
def first(
    interrupted: tuple[int, str, dict[str, list[Placed]]], slowly: dict[str, str], slow: Path, storage: Path
) -> subprocess.CompletedProcess[str]:
    """The command that the interrupted one has printed, to the end; on the way the worker of a good trial is killed."""
    (printed,) = re.findall(r"`winnow (.*)` continues from the checkpoints\n", interrupted[1])
    command = [sys.executable, "-m", "winnow", *shlex.split(printed)]
    driver = subprocess.Popen(command, cwd=ROOT, env=slowly, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    file = paths.spool(storage, trials()["good dense"].key)
    begun = len(attempts(spool.read(file)))
    while len(found := attempts(spool.read(file))) == begun:
        assert driver.poll() is None, driver.communicate()[0]
        time.sleep(0.02)
    os.kill(found[-1], signal.SIGKILL)
    slow.unlink()
    out, err = driver.communicate(timeout=LONG)
    return subprocess.CompletedProcess(command, driver.returncode, out, err)


@pytest.fixture(scope="module")
def client(first: subprocess.CompletedProcess[str], storage: Path) -> Any:
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        return Tracking(storage)._connected()


@pytest.fixture
def here(service: Command, first: subprocess.CompletedProcess[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    """`here("status", "smoke")`: exit code and output of a command in this process, where ray and mlflow are imported already."""
    for name, value in service.environment.items():  # type: ignore[attr-defined]
        monkeypatch.setenv(name, value)

    def run(*arguments: str) -> tuple[int, str]:
        code = main(arguments)
        return code, capsys.readouterr().out

    return run


def trials() -> dict[str, Trial]:
    """`good dense`, `bad snip@99.99`, ...: the trials of the sweep."""
    found = expand(override(load_sweep("smoke"), SETTINGS))
    return {f"{'bad' if t.hyper_values()['learning_rate'] > 1 else 'good'} {t.name.split('/')[2]}": t for t in found}


def attempts(lines: list[Placed]) -> list[int]:
    """The processes that have written a spool, in order."""
    return [placed.line["pid"] for placed in lines if placed.line["kind"] == "attempt"]


def is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def runs(client: Any, kind: str = "trial") -> dict[str, Any]:
    experiment = client.get_experiment_by_name(EXPERIMENT)
    found = client.search_runs([experiment.experiment_id], f"tags.`winnow.kind` = '{kind}'")
    return {run.data.tags.get("winnow.trial_key", run.info.run_name): run for run in found}


def artifacts(client: Any, run: Any) -> set[str]:
    return {file.path for file in client.list_artifacts(run.info.run_id)}


def test_a_signal_leaves_a_sweep_that_goes_on_where_it_was(
    interrupted: tuple[int, str, dict[str, list[Placed]]], first: subprocess.CompletedProcess[str], storage: Path
) -> None:
    code, out, before = interrupted
    assert code == 130, out
    line = r"interrupted \(SIGTERM\); (kept [0-9,]+ of [0-9,]+ updates; )?`winnow run smoke --set=datasets=test/hopper/random-v0 "
    assert re.search(line + "--set=seeds=0 ", out)
    assert "Traceback" not in out
    begun = [key for key, lines in before.items() if lines and spool.end_line(lines) is None]
    assert any(spool.committed_update(before[key]) >= EVERY for key in begun)
    for key, lines in before.items():
        after = spool.read(paths.spool(storage, key))
        assert after[: len(lines)] == lines  # what was committed was not done again
        if key in begun:
            assert len(attempts(after)) == 2 + (key == trials()["good dense"].key)
        losses = [placed.update for placed in after if placed.line["kind"] == "trained"]
        assert losses == sorted(set(losses))


def test_good_trials_end_well_beside_bad_ones_and_the_exit_code_tells(first: subprocess.CompletedProcess[str], storage: Path) -> None:
    assert first.returncode == 1, first.stderr
    assert "Traceback" not in first.stderr + first.stdout
    assert "\x1b" not in first.stderr + first.stdout, "a pipe gets no colours"
    ledger = manifest.read(storage, "smoke")
    states = {name: ledger.state(trial.key) for name, trial in trials().items()}
    assert states == {
        "good dense": "done", "good snip@80": "done", "good snip@99.99": "failed",
        "bad dense": "diverged", "bad snip@80": "diverged", "bad snip@99.99": "failed",
    }  # fmt: skip
    failed = ledger.entries[trials()["good snip@99.99"].key].detail
    assert failed["reason"] == "user_error"
    assert "leaves no path from input to output of the actor" in failed["message"]


def test_a_killed_worker_is_an_infrastructure_failure_and_is_tried_again(first: subprocess.CompletedProcess[str], storage: Path) -> None:
    story = manifest.read(storage, "smoke").entries[trials()["good dense"].key].events
    assert [event.state for event in story][-4:] == ["failed", "planned", "leased", "done"]
    assert story[-4].detail["reason"] == "infrastructure"
    assert "worker process has died" in story[-4].detail["message"]
    assert "infrastructure: the worker died: " in first.stdout
    assert "it will be retried" in first.stdout


def test_mlflow_has_one_run_per_trial_under_the_sweeps_run(client: Any) -> None:
    (parent,) = runs(client, "sweep").values()
    found = runs(client)
    assert set(found) == {trial.key for trial in trials().values()}
    assert {run.data.tags["mlflow.parentRunId"] for run in found.values()} == {parent.info.run_id}
    assert {"results.txt", "scores.png"} <= artifacts(client, parent)
    assert parent.info.status == "FAILED", "some trials failed"
    status = {name: (found[t.key].info.status, found[t.key].data.tags.get("winnow.reason", "")) for name, t in trials().items()}
    assert status["good dense"] == ("FINISHED", "")
    assert status["bad dense"] == ("FAILED", "divergence")
    assert status["bad snip@99.99"] == ("FAILED", "user_error")


def test_a_run_has_its_params_tags_dataset_and_artifacts(client: Any) -> None:
    trial = trials()["good snip@80"]
    run = runs(client)[trial.key]
    params = run.data.params
    assert {name: params[name] for name in ("dataset", "algorithm", "pruner", "sparsity", "seed", "updates")} == {
        "dataset": trial.dataset, "algorithm": "bc", "pruner": "snip", "sparsity": "0.8", "seed": "0", "updates": "600",
    }  # fmt: skip
    assert params["hyper.learning_rate"] == "0.0003"
    assert params["hyper.batch_size"] == "256"
    tags = run.data.tags
    assert tags["winnow.revision"] == "abc123"
    assert tags["winnow.execution"]
    assert tags["winnow.host"]
    assert tags["winnow.kernels"] == build.simd()
    assert len(tags["winnow.dataset_hash"]) == 64
    (given,) = run.inputs.dataset_inputs
    assert given.dataset.name == trial.dataset
    assert tags["winnow.dataset_hash"].startswith(given.dataset.digest)
    assert artifacts(client, run) == {
        "trial.json",
        "masks.safetensors",
        "masks.json",
        "policy.safetensors",
        "policy.json",
        "evaluations.json",
    }


def test_mlflow_holds_every_point_of_the_spool_once(client: Any, storage: Path) -> None:
    for trial in trials().values():
        run = runs(client)[trial.key]
        lines = spool.committed(spool.read(paths.spool(storage, trial.key)))
        wanted = sorted((name, p.update, p.line["time"]) for p in lines for name in p.line.get("metrics", ()))
        found = [(name, p.step, p.timestamp) for name in run.data.metrics for p in client.get_metric_history(run.info.run_id, name)]
        assert sorted(found) == wanted
        assert len({(name, step) for name, step, _ in found}) == len(found)
    finished = runs(client)[trials()["good snip@80"].key].data.metrics
    assert {"train/actor_loss", "eval/return", "eval/normalized_score", "eval/normalized_score_std"} <= set(finished)
    assert finished["mask/density/actor"] == pytest.approx(0.2, abs=1e-4)
    assert finished["mask/effective_density/actor"] <= finished["mask/density/actor"]
    history = client.get_metric_history(runs(client)[trials()["good dense"].key].info.run_id, "eval/return")
    assert sorted(point.step for point in history) == [300, 600]
    assert {"final/return", "final/normalized_score", "final/normalized_score_std"} <= set(finished)


def test_the_artifacts_are_what_the_trial_left(client: Any, storage: Path, tmp_path: Path) -> None:
    from safetensors.numpy import load_file

    trial = trials()["good snip@80"]
    run = runs(client)[trial.key]
    for name in ("masks.safetensors", "policy.safetensors"):
        own = Path(client.download_artifacts(run.info.run_id, name, str(tmp_path)))
        assert own.read_bytes() == (paths.trial(storage, trial.key) / name).read_bytes()
    mask = load_file(paths.masks(storage, trial.key))["actor"]
    weights = 11 * 256 + 256 * 256 + 256 * 3
    assert mask.nbytes == -(-weights // 8)
    assert sum(int(byte).bit_count() for byte in mask) == round(0.2 * weights)
    evaluations = json.loads(Path(client.download_artifacts(run.info.run_id, "evaluations.json", str(tmp_path))).read_text())
    assert [(entry["update"], len(entry["returns"]), entry.get("final")) for entry in evaluations] == [
        (300, 2, None),
        (600, 2, None),
        (600, 3, True),
    ]
    assert all(len(entry["returns"]) == len(entry["scores"]) for entry in evaluations)


def test_the_run_ends_with_table_figure_and_the_command_for_mlflow(first: subprocess.CompletedProcess[str], storage: Path) -> None:
    lines = first.stdout.splitlines()
    assert any(line.startswith("  dense: ") and "n=1" in line for line in lines)
    assert any(line.startswith("  80 %") and "n=1" in line for line in lines)
    assert any(line.startswith("  99.99 %") and "failed: user_error" in line for line in lines)
    assert any("failed: divergence" in line for line in lines)
    assert "budget: 600 updates; the paper's claim" in first.stdout
    assert lines[-3] == f"figure: {paths.figure(storage, 'smoke')}"
    assert lines[-2] == f"all curves: mlflow ui --backend-store-uri sqlite:///{paths.mlflow_db(storage)}"
    assert lines[-1].startswith("  and then: http://127.0.0.1:5000/#/experiments/")
    assert paths.figure(storage, "smoke").read_bytes().startswith(b"\x89PNG")
    assert "\x1b" not in first.stdout
    assert "\r" not in first.stdout


def test_a_full_disk_keeps_nobody_from_the_results(first: Any, here, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(path: Path, content: bytes) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", str(path))

    monkeypatch.setattr("service.storage.shared_files.write", full)
    code, out = here("results", "smoke", *(f"--set={setting}" for setting in SETTINGS))
    assert code == 2, "neither the table nor the figure is written"
    assert [line for line in first.stdout.splitlines() if "n=1" in line] == [line for line in out.splitlines() if "n=1" in line] != []


def test_running_again_runs_nothing(first: subprocess.CompletedProcess[str], here, storage: Path, client: Any) -> None:
    before = {path: path.read_bytes() for path in paths.trials(storage).rglob("spool.jsonl")}
    runs_before = {key: run.info.run_id for key, run in runs(client).items()}
    rays_before = sorted(paths.ray_results(storage).iterdir())
    code, out = here("run", "smoke", *ARGUMENTS)
    assert code == 1
    assert "to run      0 in 0 stacks" in out
    assert [line for line in first.stdout.splitlines() if "n=1" in line] == [line for line in out.splitlines() if "n=1" in line]
    assert {path: path.read_bytes() for path in paths.trials(storage).rglob("spool.jsonl")} == before
    assert {key: run.info.run_id for key, run in runs(client).items()} == runs_before
    assert sorted(paths.ray_results(storage).iterdir()) == rays_before


def test_another_sweep_reuses_what_is_done(here, storage: Path, client: Any) -> None:
    same = ("datasets=test/hopper/random-v0", "pruners=dense", "seeds=0", "updates=600", "evaluations=2", "episodes=2", "final_episodes=3")
    code, out = here("run", "quickstart", *(f"--set={setting}" for setting in same))
    assert code == 0
    assert "1 by another sweep of this storage" in out
    key = trials()["good dense"].key
    assert manifest.read(storage, "quickstart").entries[key].detail == {"sweep": "smoke"}
    assert len(runs(client)) == 6
    assert runs(client)[key].data.tags["winnow.sweep.quickstart"] == "reused"
    assert runs(client)[key].info.status == "FINISHED"


def test_a_trial_is_trained_afresh_beside_what_another_sweep_has_done(here, storage: Path, client: Any) -> None:
    done = trials()["good dense"]
    same = ("datasets=test/hopper/random-v0", "pruners=dense", "seeds=0", "updates=600", "evaluations=2", "episodes=2", "final_episodes=3")
    before = paths.spool(storage, done.key).read_bytes()
    code, out = here("run", "quickstart", "--fresh", *(f"--set={setting}" for setting in same))
    assert code == 0
    assert "1 in 1 stacks" in out
    own = replace(done, fresh="quickstart")
    assert paths.spool(storage, done.key).read_bytes() == before
    for name in ("masks.safetensors", "policy.safetensors"):
        assert (paths.trial(storage, own.key) / name).read_bytes() == (paths.trial(storage, done.key) / name).read_bytes()
    found = runs(client)
    assert found[own.key].info.run_id != found[done.key].info.run_id
    assert found[own.key].data.params["fresh"] == "quickstart"
    assert "fresh" not in found[done.key].data.params
    code, again = here("run", "quickstart", *(f"--set={setting}" for setting in same))
    assert "0 in 0 stacks" in again
    assert [line for line in again.splitlines() if "n=1" in line] == [line for line in out.splitlines() if "n=1" in line]


def test_mlflow_is_proved_to_hold_exactly_what_the_trials_wrote(here, client: Any, storage: Path) -> None:
    assert here("verify", "smoke") == (0, "6 trials: MLflow holds exactly what they wrote\n")
    trial = trials()["good snip@80"]
    run, file = runs(client)[trial.key], paths.spool(storage, trial.key)
    content = file.read_bytes()
    who = f"{trial.key} {trial.name}: "
    missing = [line for line in content.splitlines(keepends=True) if b'"evaluated"' not in line]

    means = ("sweep smoke: metric ", "sweep smoke: tag winnow.best ")  # which follow: see test_summary.py

    def told() -> list[str]:
        code, out = here("verify", "smoke", "--json")
        assert code == 1
        told = json.loads(out)["differences"]
        return [line for line in told if not line.startswith(means)]

    file.write_bytes(b"".join(missing))
    table, points, evaluations = told()
    assert table == f"sweep smoke: artifact curves.json.gz has not what trial {trial.key} wrote"
    assert points.startswith(who + "MLflow has too much: 6 points: ('eval/")
    assert evaluations == who + "artifact evaluations.json is not what was evaluated"
    file.write_bytes(content.replace(b'"update": 300', b'"update": 301', 1))
    assert [line.split(": ")[1] for line in told()] == [table.split(": ")[1], "MLflow lacks", "MLflow has too much"]
    file.write_bytes(content)
    for artifact in ("trial.json", "masks.safetensors", "masks.json", "policy.safetensors", "policy.json"):
        path = paths.trial(storage, trial.key) / artifact
        whole = path.read_bytes()
        path.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
        assert [line.split(" has ")[0] for line in told()] == [who + f"artifact {artifact}"]
        path.write_bytes(whole)
    client.set_tag(run.info.run_id, "winnow.revision", "other")
    assert told() == [who + "tag winnow.revision is 'other', not 'abc123'"]
    client.set_tag(run.info.run_id, "winnow.revision", "abc123")
    client.set_terminated(run.info.run_id, "FAILED")
    assert told() == [who + "status FAILED, not FINISHED"]
    client.set_terminated(run.info.run_id, "FINISHED")
    ghost = client.create_run(run.info.experiment_id, tags=dict(run.data.tags))
    assert told() == [who + "2 runs, not one"]
    client.delete_run(ghost.info.run_id)
    assert here("verify", "smoke")[0] == 0


def test_the_report_reads_what_a_sweep_has_left(here, client: Any, storage: Path, tmp_path: Path) -> None:
    assert here("report", "smoke", "--to", str(tmp_path))[0] == 0
    rows = {row["key"]: row for row in csv.DictReader((tmp_path / "trials.csv").read_text().splitlines())}
    for key, entry in manifest.read(storage, "smoke").entries.items():
        assert (entry.state == "done") == bool(rows[key]["last"])
        if entry.state == "done":
            kept = sum(network["kept"] for network in json.loads(paths.masks_json(storage, key).read_bytes())["networks"].values())
            assert float(rows[key]["flops"]) == pytest.approx(3 * 2 * kept * 256 * 600)


def test_the_story_of_a_trial(here, first: subprocess.CompletedProcess[str], storage: Path) -> None:
    trial = trials()["good dense"]
    code, out = here("logs", trial.key[:10])
    assert code == 0
    for part in ("infrastructure", "sweep smoke", "attempt", "checkpointed", "finished", str(paths.policy(storage, trial.key))):
        assert part in out, part
    told = json.loads(here("logs", trial.key, "--json")[1])
    assert told["name"] == trial.name
    assert told["committed_update"] == 600
    assert [event["state"] for event in told["manifest"]][-1] == "done"
    assert here("logs", "bc/hopper-random/dense/s0")[0] == 2, "a good and a bad trial have that name"
    assert here("logs", "nothing")[0] == 2


def test_status_and_sync_and_results_by_hand(first: subprocess.CompletedProcess[str], here) -> None:
    set_ = [f"--set={setting}" for setting in SETTINGS]
    code, out = here("status", "smoke")
    assert code == 0
    assert "2 done" in out
    assert "2 diverged" in out
    assert "user_error: " in out
    here("sync", "smoke")
    assert here("sync", "smoke") == (0, "0 points shipped; MLflow holds all that is committed\n")
    (study,) = [s for s in json.loads(here("results", "smoke", "--json", *set_)[1]) if "1e+30" not in s["title"]]
    cells = {(cell["pruner"], cell["sparsity"]): cell for cell in study["cells"]}
    assert len(cells["snip", 0.8]["scores"]) == 1
    assert cells["snip", 0.9999]["others"] == ["failed: user_error"]
    code, out = here("results", "smoke", *(f"--set={setting}" for setting in SETTINGS))
    assert code == 0
    assert [line for line in out.splitlines() if "n=1" in line] == [line for line in first.stdout.splitlines() if "n=1" in line]
