"""`winnow export`: folders that act as the trained policy does, wherever they are used."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from service.__main__ import main
from service.cli.trials.export import FORMATS
from service.delivery import export
from service.storage import paths
from service.tracking.runs import Tracking
from tests.conftest import HOPPER
from tests.service.trained import ship, train
from trainables import plugins
from trainables.agent import Agent
from trainables.datasets.scaling import Scaling, normalizes
from trainables.datasets.table import load_table
from trainables.evaluation.evaluation import evaluation_seeds
from trainables.policy.policy import load_policy
from trainables.training import checkpoint
from trainables.trial import TRAINING_CHOICES, Stack, Trial

pytestmark = pytest.mark.filterwarnings("ignore:.*noload.*:DeprecationWarning")  # MLflow's own use of a newer SQLAlchemy


def trial_of(algorithm: str, pruner: str = "snip", sparsity: float = 0.95, **more: object) -> Trial:
    given = {"dataset": HOPPER, "updates": 30, "evaluations": 1, "episodes": 3} | more
    return Trial(**given, algorithm=algorithm, pruner=pruner, sparsity=sparsity)


PRUNED, DENSE, STOCHASTIC, NORMED = trial_of("td3_bc"), trial_of("td3_bc", "dense", 0.0), trial_of("iql"), trial_of("bcq", sparsity=0.8)
# Its mean passes through no tanh, and leaves the box of actions.
BOUNDLESS = trial_of("iql", "magnitude", 0.5, hyper={"squash": False, "actor_learning_rate": 0.1})
NETWORKS = [trial_of("bc", network=network) for network in TRAINING_CHOICES["network"][1:]]
TWIN = trial_of("td3_bc", "dense", 0.0, updates=20)  # another sweep's, of DENSE's name
WAITING = trial_of("bc", "dense", 0.0, seed=7)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, hopper_folder: Path) -> Path:
    """A storage whose sweep `smoke` has done four trials, in MLflow, and plans a fifth; another sweep has one of the same name."""
    storage = tmp_path_factory.mktemp("export") / "storage"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MINARI_DATASETS_PATH", str(hopper_folder))
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        train(storage, "smoke", [PRUNED, DENSE, STOCHASTIC, BOUNDLESS, NORMED, *NETWORKS], planned=[WAITING])
        train(storage, "quickstart", [TWIN])
        train(storage, "td3bc_sparsity", [], planned=[PRUNED])  # where it waits for nobody: it is done
        ship(storage, "smoke")
    return storage


@pytest.fixture(autouse=True)
def here(trained: Path, hopper: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WINNOW_STORAGE", str(trained))
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)


def as_trained(storage: Path, trial: Trial) -> tuple[np.ndarray, np.ndarray]:
    """The dataset's states and the actions that the training's own policy, in torch, takes in them."""
    table, module = load_table(HOPPER), plugins.load("algorithms", trial.algorithm)
    agent = Agent(module, Stack((trial,)), table.observation_size, table.action_size)
    saved = checkpoint.newest(storage, Stack((trial,)), agent.specs)
    assert saved is not None
    agent.build("dense", {name: saved.rows[f"online/{name}"] for name in agent.specs}, saved.masks)
    states, scaling = np.array(table.rows[:, : table.observation_size]), Scaling(table, normalizes(module, trial.network))
    with torch.no_grad():
        actions = module.act(agent, scaling.observation(torch.from_numpy(states)[None]))[0].numpy()
    return states, scaling.action(actions)


# Runs the lines of each folder's README as they stand, in the folder and with names of their own.
HARNESS = """
import os, sys
if {without_torch}:
    sys.modules["torch"] = None
sys.modules |= dict.fromkeys(("trainables", "service", "search_spaces", "winnow"))
import numpy
for folder, lines in {blocks!r}:
    os.chdir(folder)
    names = {{"observation": numpy.load({states!r})}}
    exec({before!r} + lines, names)
    numpy.save("../" + os.path.basename(folder) + ".npy", numpy.asarray(names["action"]))
"""


def used(format: str, states: np.ndarray, *folders: Path) -> list[np.ndarray]:
    """The actions that the lines of each folder's README find, in a process of their own."""
    blocks = []
    for folder in folders:
        (block,) = re.findall(r"```python\n(.*?)```", (folder / "README.md").read_text(), re.DOTALL)
        assert len(block.strip().splitlines()) == 3
        blocks.append((str(folder), block))
    file = folders[0].with_name("states.npy")
    np.save(file, states)
    before = "import torch; observation = torch.from_numpy(observation)\n" if format == "torch" else ""
    code = HARNESS.format(without_torch=format != "torch", blocks=blocks, states=str(file), before=before)
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run([sys.executable, "-c", code], cwd=folders[0], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return [np.load(folder.with_name(f"{folder.name}.npy")) for folder in folders]


@pytest.mark.parametrize("format", FORMATS)
def test_the_readmes_three_lines_act_as_the_trained_policy(format: str, trained: Path, tmp_path: Path) -> None:
    """One process for all networks: each folder's lines are the same, and to import torch or ONNX takes longer than to act."""
    exported = [PRUNED, STOCHASTIC, BOUNDLESS, *NETWORKS]
    folders = [tmp_path / f"{trial.algorithm}-{trial.pruner}-{trial.network}" for trial in exported]
    for trial, folder in zip(exported, folders, strict=True):
        assert main(["export", trial.name, "--to", str(folder), "--format", format]) == 0
    found = used(format, as_trained(trained, PRUNED)[0], *folders)
    for trial, actions in zip(exported, found, strict=True):
        _, wanted = as_trained(trained, trial)
        assert np.ptp(wanted, axis=0).min() > 1e-2, "the states ask for different actions"
        clipped = np.mean(np.abs(wanted) == 1)
        assert 0.01 < clipped < 0.99 if trial is BOUNDLESS else clipped < 0.01, (trial.name, clipped)
        near = 1e-4 if trial is BOUNDLESS else 1e-6 if trial.network == "mlp" else 1e-5  # its numbers are large
        np.testing.assert_allclose(actions, wanted, rtol=0, atol=near, err_msg=trial.name)


def test_a_dense_policy_is_not_stored_as_a_sparse_one(trained: Path, tmp_path: Path) -> None:
    main(["export", DENSE.key, "--to", str(tmp_path / "dense")])
    file = tmp_path / "dense" / "policy.safetensors"
    states, wanted = as_trained(trained, DENSE)
    assert file.stat().st_size < 1.02 * 4 * sum(weight.size for weight, _ in load_policy(file).layers) + 5000
    np.testing.assert_allclose(load_policy(file)(states), wanted, rtol=0, atol=1e-6)
    (actions,) = used("compact", states, tmp_path / "dense")
    np.testing.assert_allclose(actions, wanted, rtol=0, atol=1e-6)


def test_a_pruned_halfcheetah_actor_takes_at_most_30_kilobytes(tmp_path: Path) -> None:
    from tests.trainables.policy.test_policy import halfcheetah

    export.compact_file(halfcheetah(0.05), tmp_path / "policy.safetensors")
    assert (tmp_path / "policy.safetensors").stat().st_size <= 30_000
    assert [path.name for path in tmp_path.iterdir()] == ["policy.safetensors"]


def test_what_lies_beside_the_policy(trained: Path, tmp_path: Path) -> None:
    main(["export", PRUNED.key[:8], "--to", str(tmp_path / "policy")])
    folder = tmp_path / "policy"
    assert (folder / "masks.json").read_bytes() == paths.masks_json(trained, PRUNED.key).read_bytes()
    table, lineage = load_table(HOPPER), json.loads((folder / "lineage.json").read_bytes())
    assert lineage["trial"]["sparsity"] == 0.95
    assert lineage["trial"]["hyper"]["batch_size"] == 256
    assert (lineage["key"], lineage["name"]) == (PRUNED.key, PRUNED.name)
    assert lineage["dataset"] == {"id": HOPPER, "sha256": table.hash, "mean_score": "1.50"}
    assert lineage["calibration"] == {"rows": 256, "seed": 0, "batches": 1, "batch_size": 256}
    assert lineage["seeds"] == {"trial": 0, "evaluation": evaluation_seeds(PRUNED, 3)}
    assert lineage["code"] == {"revision": "abc123", "execution": "sparse"}
    (evaluation,) = lineage["scores"]["evaluations"]
    assert lineage["scores"]["last"]["return"] == pytest.approx(np.mean(evaluation["returns"]))
    assert len(lineage["mlflow_run"]) == 32
    for name, digest in lineage["export"]["files"].items():
        assert hashlib.sha256((folder / name).read_bytes()).hexdigest() == digest
    normalizer = json.loads((folder / "normalizer.json").read_bytes())
    np.testing.assert_allclose(normalizer["observation_scale"], 1 / (table.std + 1e-3), rtol=1e-5)
    assert {path.name for path in folder.iterdir()} == {*lineage["export"]["files"], "lineage.json"}


def test_an_mlflow_run_is_enough_where_the_storage_is_another(trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tracking = Tracking(trained)
    (run_id,) = [id for id, row in tracking.all_trials().items() if row.tags["winnow.trial_key"] == PRUNED.key]
    main(["export", PRUNED.name, "--to", str(tmp_path / "here")])
    monkeypatch.setenv("WINNOW_STORAGE", str(tmp_path / "empty"))
    monkeypatch.setenv("MLFLOW_TRACKING_URI", tracking.uri)
    for number, wanted in enumerate((run_id, PRUNED.key[:6], PRUNED.name)):
        assert main(["export", wanted, "--to", str(tmp_path / str(number))]) == 0
        for file in (tmp_path / "here").iterdir():
            assert (tmp_path / str(number) / file.name).read_bytes() == file.read_bytes(), file.name
    assert not (tmp_path / "empty").exists()


def refused(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    assert main(["export", *arguments]) == 2
    lines = [line for line in capsys.readouterr().err.splitlines() if " ..." not in line or line.startswith("error: ")]
    assert len(lines) == 1
    return lines[0]


def test_what_cannot_be_exported_is_said_and_nothing_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    to = ("--to", str(tmp_path / "policy"))
    assert f"the nearest: {PRUNED.name}" in refused(capsys, PRUNED.name.replace("snip", "snap"), *to)
    assert f"no run '{'ab' * 16}'" in refused(capsys, "ab" * 16, *to)
    assert f"trial {WAITING.key} ({WAITING.name}) is planned; a trial has a policy once it is done" in refused(capsys, WAITING.name, *to)
    assert "bcq's policy is more than a network" in refused(capsys, NORMED.name, *to)
    assert "no sweep 'smok' in " in (said := refused(capsys, PRUNED.name, "--sweep", "smok", *to))
    assert said.endswith("there are: quickstart, smoke, td3bc_sparsity; did you mean 'smoke'?")
    assert list(tmp_path.iterdir()) == []


def test_of_two_trials_with_one_name_the_sweep_or_the_key_tells(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    to = str(tmp_path / "policy")
    said = refused(capsys, DENSE.name, "--to", to)
    assert f"{DENSE.name!r} matches 2 trials: " in said
    assert DENSE.key in said
    assert TWIN.key in said
    for arguments, wanted in (
        ((DENSE.name, "--sweep", "quickstart"), TWIN),
        ((DENSE.name, "--sweep", "smoke"), DENSE),
        ((TWIN.key,), TWIN),
    ):
        assert main(["export", *arguments, "--to", to]) == 0
        assert json.loads((tmp_path / "policy" / "lineage.json").read_bytes())["key"] == wanted.key


@pytest.mark.parametrize("number", [errno.EBUSY, errno.EXDEV])
def test_a_mount_point_is_told_and_kept(
    number: int, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    to = tmp_path / "mounted"
    to.mkdir()

    def busy(self: Path, target: Path, rename: Callable[[Path, Path], Path] = Path.rename) -> Path:
        if self == to:
            raise OSError(number, os.strerror(number), str(self))
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", busy)
    assert refused(capsys, PRUNED.name, "--to", str(to)) == f"error: '{to}' is a mount point, which cannot be replaced; give a folder in it"
    assert [path.name for path in tmp_path.iterdir()] == ["mounted"]


def test_nobody_is_left_in_a_removed_folder_and_a_link_stays_a_link(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    assert "not while you are in it" in refused(capsys, PRUNED.name, "--to", ".")
    assert main(["export", PRUNED.name, "--to", "./policy"]) == 0
    monkeypatch.chdir("policy")
    assert "not while you are in it" in refused(capsys, PRUNED.name, "--to", str(tmp_path / "here" / "policy"))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "current").symlink_to(tmp_path / "here" / "policy")
    assert main(["export", PRUNED.name, "--to", "current", "--format", "torch"]) == 0
    assert (tmp_path / "current").is_symlink()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["current", "here"]
    assert json.loads((tmp_path / "here" / "policy" / "lineage.json").read_bytes())["export"]["format"] == "torch"


def test_a_folder_of_somebody_else_stays_as_it_is(trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").write_text("mine")
    assert "is a file; give a folder" in refused(capsys, PRUNED.name, "--to", str(tmp_path / "file"))
    assert "cannot be written" in refused(capsys, PRUNED.name, "--to", str(tmp_path / "file" / "below"))
    (tmp_path / "mine").mkdir()
    main(["export", PRUNED.name, "--to", str(tmp_path / "mine")])  # an empty folder is as good as none
    (tmp_path / "mine" / "notes.txt").write_text("mine")
    before = {path.name: path.read_bytes() for path in (tmp_path / "mine").iterdir()}
    assert "holds notes.txt, which no export wrote" in refused(capsys, DENSE.key, "--to", str(tmp_path / "mine"))
    assert {path.name: path.read_bytes() for path in (tmp_path / "mine").iterdir()} == before
    (tmp_path / "mine" / "notes.txt").unlink()
    main(["export", DENSE.key, "--to", str(tmp_path / "mine"), "--format", "onnx"])
    assert json.loads((tmp_path / "mine" / "lineage.json").read_bytes())["key"] == DENSE.key
    assert not (tmp_path / "mine" / "policy.safetensors").exists()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "mine"]


def test_an_export_that_fails_on_the_way_leaves_the_older_one(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    main(["export", PRUNED.name, "--to", str(tmp_path / "policy")])
    before = {path.name: path.read_bytes() for path in (tmp_path / "policy").iterdir()}
    monkeypatch.setitem(sys.modules, "onnx", None)
    assert "winnow-rl[export]" in refused(capsys, PRUNED.name, "--to", str(tmp_path / "policy"), "--format", "onnx")
    assert {path.name: path.read_bytes() for path in (tmp_path / "policy").iterdir()} == before
    assert [path.name for path in tmp_path.iterdir()] == ["policy"]
