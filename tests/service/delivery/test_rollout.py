"""`winnow rollout` and `winnow promote`: the trained policy plays as it was evaluated, and MLflow serves it."""

from __future__ import annotations

import importlib.metadata
import json
import math
import os
import shutil
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from service.__main__ import main
from service.delivery.video import PROBE
from service.ledger.others import ledger_of
from service.tracking.runs import Tracking
from service.tracking.sql import relocation
from service.tracking.verify import differences
from tests.conftest import HOPPER
from tests.service.trained import ship, train
from trainables import plugins
from trainables.datasets.table import load_table
from trainables.evaluation.evaluation import evaluation_seeds
from trainables.trial import Trial

from .test_export import as_trained, trial_of

pytestmark = pytest.mark.filterwarnings("ignore:.*noload.*:DeprecationWarning")  # MLflow's own use of a newer SQLAlchemy

SMALL = {"hidden": (32, 32), "batch_size": 32}
TRIALS = {name: trial_of(name, sparsity=0.8, episodes=2, hyper=SMALL) for name in plugins.names("algorithms")}
TRIALS |= {"dense": trial_of("td3_bc", "dense", 0.0, episodes=2), "gradual": trial_of("td3_bc", "gmp", 0.8, episodes=2, hyper=SMALL)}
PRUNED = TRIALS["td3_bc"]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, hopper_folder: Path) -> Path:
    """A storage whose sweep `smoke` has done a trial of every algorithm; PRUNED and a dense one are in MLflow."""
    storage = tmp_path_factory.mktemp("rollout") / "storage"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MINARI_DATASETS_PATH", str(hopper_folder))
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        train(storage, "smoke", list(TRIALS.values()))
        ship(storage, "smoke")
    return storage


@pytest.fixture(autouse=True)
def here(trained: Path, hopper: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WINNOW_STORAGE", str(trained))
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)


@pytest.mark.parametrize("trial", TRIALS.values(), ids=TRIALS)
def test_an_episode_has_the_return_of_the_last_evaluation_to_the_last_bit(trial: Trial, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["rollout", trial.key, "--episodes", "3", "--json"]) == 0
    episodes = json.loads(capsys.readouterr().out)
    assert [episode["seed"] for episode in episodes] == evaluation_seeds(trial, 3)
    assert [episode["total"] for episode in episodes[:2]] == [episode["evaluated"] for episode in episodes[:2]]
    assert episodes[2]["evaluated"] is None
    assert len({episode["total"] for episode in episodes}) == 3
    reference = load_table(HOPPER).reference
    for episode in episodes:
        assert episode["steps"] > 1
        assert episode["score"] == reference.normalize(episode["total"]) or math.isnan(episode["score"])


def test_what_people_read(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Also where the dataset is not: a policy brings all that it needs."""
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path))
    assert main(["rollout", PRUNED.key, "--episodes", "3"]) == 0
    first, *episodes, mean = capsys.readouterr().out.splitlines()
    assert first == f"{PRUNED.key}  {PRUNED.name} in Hopper-v5"
    assert [line.endswith("; as in the last evaluation") for line in episodes] == [True, True, False]
    assert f"episode 1 (seed {evaluation_seeds(PRUNED, 2)[1]}): return " in episodes[1]
    assert "normalized score" in mean


def has_renderer(name: str) -> bool:
    return (
        subprocess.run([sys.executable, "-c", PROBE], env=os.environ | {"MUJOCO_GL": name}, capture_output=True, check=False).returncode
        == 0
    )


def rolled(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "service", "rollout", PRUNED.key, *arguments]
    return subprocess.run(command, env=os.environ | environment, capture_output=True, text=True, check=False)


def test_a_film_has_a_picture_for_each_step_or_the_package_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Whichever it is here: with a renderer the film is right, without one people are told what to install."""
    import imageio_ffmpeg

    file = tmp_path / "hopper.mp4"
    main(["rollout", PRUNED.key, "--json"])
    steps = json.loads(capsys.readouterr().out)[0]["steps"]
    renderers = [name for name in ("egl", "osmesa") if has_renderer(name)]
    done = rolled("--video", str(file), MUJOCO_GL=renderers[0] if renderers else "")
    if not renderers:
        assert "apt-get install libegl1" in done.stderr
    else:
        assert done.returncode == 0, done.stderr
        assert "as in the last evaluation" in done.stdout, "drawing changes nothing"
        command = [imageio_ffmpeg.get_ffmpeg_exe(), "-v", "error", "-i", str(file), "-f", "rawvideo", "-pix_fmt", "rgb24", "-"]
        raw = subprocess.run(command, capture_output=True, check=True).stdout
        pictures = np.frombuffer(raw, np.uint8).reshape(-1, 480, 480, 3)
        assert len(pictures) == steps
        assert pictures[0].std() > 10, "there is something to see"
        assert np.abs(pictures[0].astype(int) - pictures[-1]).mean() > 0.1, "and it moves"
    assert [path.name for path in tmp_path.iterdir()] == (["hopper.mp4"] if renderers else [])


@pytest.mark.parametrize("renderer", ["disable", "nonsense"])
def test_without_a_renderer_people_are_told_what_to_install(renderer: str, tmp_path: Path) -> None:
    done = rolled("--video", str(tmp_path / "hopper.mp4"), MUJOCO_GL=renderer)
    assert done.returncode == 2
    assert (
        f"error: no renderer works for MuJoCo here (MUJOCO_GL={renderer}); EGL renders without a screen: apt-get install libegl1"
        in done.stderr
    )
    assert "Traceback" not in done.stderr
    assert "episode" not in done.stdout
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("file", "said"), [("hopper.avi", "does not end in .mp4"), ("nowhere/hopper.mp4", "there is no folder")], ids=["kind", "folder"]
)
def test_a_film_that_cannot_be_is_refused(file: str, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["rollout", PRUNED.key, "--video", str(tmp_path / file)]) == 2
    assert said in capsys.readouterr().err


def test_without_the_package_for_films_the_extra_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "imageio_ffmpeg", None)
    assert main(["rollout", PRUNED.key, "--video", str(tmp_path / "hopper.mp4")]) == 2
    assert "winnow-rl[video]" in capsys.readouterr().err


LOADED = """
import sys
sys.modules["torch"] = sys.modules["trainables"] = None
import mlflow, numpy
model = mlflow.pyfunc.load_model(sys.argv[1])
numpy.save(sys.argv[3], model.predict(numpy.load(sys.argv[2])))
"""


def versions(tracking: Tracking) -> list[Any]:
    return list(tracking._connected().search_model_versions())


def test_mlflow_serves_what_was_promoted(trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tracking = Tracking(trained)
    before = len(versions(tracking))
    assert main(["promote", PRUNED.name, "--sweep", "smoke"]) == 0
    assert "registered as version 1 of model 'td3_bc-hopper-random'" in capsys.readouterr().out
    (version,) = [found for found in versions(tracking) if found.name == "td3_bc-hopper-random"]
    assert len(versions(tracking)) == before + 1
    row = tracking.all_trials()[version.run_id]
    assert row.tags["winnow.trial_key"] == PRUNED.key == version.tags["winnow.trial_key"]
    assert version.tags["winnow.sparsity"] == "0.8"
    assert float(version.tags["winnow.normalized_score"]) == pytest.approx(row.metrics["eval/normalized_score"], abs=0.01)

    states, wanted = as_trained(trained, PRUNED)
    environment = os.environ | {"MLFLOW_TRACKING_URI": tracking.uri}
    assert states.dtype == np.float32
    np.save(tmp_path / "states.npy", states.astype(np.float64))  # as Gymnasium gives them
    uri = f"models:/{version.name}@newest"
    command = [sys.executable, "-c", LOADED, uri, str(tmp_path / "states.npy"), str(tmp_path / "actions.npy")]
    done = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "Warning" not in done.stderr
    np.testing.assert_allclose(np.load(tmp_path / "actions.npy"), wanted, rtol=0, atol=1e-6)

    client = tracking._connected()
    logged = client.get_logged_model(version.source.removeprefix("models:/"))
    assert (logged.source_run_id, logged.name) == (version.run_id, "policy")
    folder = Path(logged.artifact_location.removeprefix("file://"))
    pinned = (folder / "requirements.txt").read_text().split()
    assert pinned == [f"{name}=={importlib.metadata.version(name)}" for name in ("mlflow", "numpy", "safetensors")]
    assert (folder / "input_example.json").exists()
    assert '"shape": [-1, 11]' in (folder / "MLmodel").read_text()
    assert differences("smoke", ledger_of("smoke", trained), trained) == [], "the run is as the trial wrote it"


def test_promoting_again_says_so_and_makes_nothing(trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tracking, dense = Tracking(trained), TRIALS["dense"].key
    for name, number in (("first", "1"), ("first", "1"), ("second", "1")):
        before = len(versions(tracking))
        capsys.readouterr()
        assert main(["promote", dense, "--name", name]) == 0
        again = len(versions(tracking)) == before
        assert f"{'is already' if again else 'registered as'} version {number} of model {name!r}" in capsys.readouterr().out
    assert [found.name for found in versions(tracking) if found.tags["winnow.trial_key"] == dense] == ["second", "first"]
    assert len({found.source for found in versions(tracking) if found.tags["winnow.trial_key"] == dense}) == 1, "one model, two names"


def test_an_alias_names_what_was_promoted_last(trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Also where that version existed before; other aliases stay."""
    client = Tracking(trained)._connected()
    for key, number, was in ((PRUNED.key, "1", ""), (TRIALS["dense"].key, "2", "1"), (PRUNED.key, "1", "2"), (PRUNED.key, "1", "")):
        assert main(["promote", key, "--name", "hopper", "--alias", "champion"]) == 0
        told = f"alias 'champion' names version {number}{f', no longer version {was}' if was else ''}\n"
        assert told in capsys.readouterr().out
        assert client.get_model_version_by_alias("hopper", "champion").version == int(number)
    assert main(["promote", TRIALS["dense"].key, "--name", "hopper"]) == 0
    assert client.get_registered_model("hopper").aliases == {"champion": 1, "newest": 2}


@pytest.mark.filterwarnings("ignore:Implicitly cleaning up:ResourceWarning")  # the mended copy goes with its reader
def test_a_copy_that_may_only_be_read_promotes_nothing(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its database names the artifacts of the first storage: readers mend a copy of it, which is thrown away."""

    there, rename = shutil.copytree(trained, tmp_path / "copy"), relocation._rename

    def readonly(file: Path, *given: Any) -> None:
        if file.parent == there:
            raise sqlite3.OperationalError("attempt to write a readonly database")
        rename(file, *given)

    monkeypatch.setattr(relocation, "_rename", readonly)
    assert main(["promote", PRUNED.key, "--name", "copied", f"--storage={there}"]) == 2
    said = capsys.readouterr()
    assert said.err.splitlines()[-1] == f"error: {there / 'mlflow.db'} may only be read here, so that nothing can be promoted in it"
    assert "version" not in said.out


def test_what_cannot_be_promoted_is_said(trained: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    for arguments, said in {
        ("promote", PRUNED.key, "--name", "a/b"): "model name 'a/b' must not contain /",
        ("promote", TRIALS["bcq"].key): "bcq's policy is more than a network",
        ("promote", "nobody"): "no trial 'nobody'",
        ("promote", PRUNED.key, "--alias", "v7"): "alias 'v7' must be of letters, digits, _ and -, and neither 'latest' nor",
        ("promote", PRUNED.key, "--alias", "a b"): "alias 'a b' must be of letters",
    }.items():
        assert main(arguments) == 2
        assert said in capsys.readouterr().err
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{trained}/other.db")
    assert main(["promote", PRUNED.key]) == 2
    assert "has no run in sqlite" in capsys.readouterr().err
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    assert main(["promote", PRUNED.key]) == 2
    assert capsys.readouterr().err.splitlines()[-1].startswith("error: MLflow did not take the model (")
