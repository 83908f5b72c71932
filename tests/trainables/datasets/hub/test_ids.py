"""Every dataset in the hub's groups `mujoco` and `D4RL` passes `check` by its metadata; those with discrete actions are refused."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from tests.trainables.datasets.hub.ids import PLAYED, REFUSED
from trainables.datasets import local, minari_store
from trainables.datasets.__main__ import main


@pytest.fixture(autouse=True)
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the hub says of an id, without its HTTP (test_hub.py has that): a client for each of sixty would take minutes."""

    def fetch(dataset: str, scratch: Path, look: bool = False) -> str:
        assert look, "nothing is downloaded"
        found = {"metadata": {"dataset_id": dataset} | (PLAYED | REFUSED)[dataset], "licence": "mit"}
        (scratch / minari_store.OFFERED).write_text(json.dumps(found))
        return ""

    monkeypatch.setattr(minari_store, "_fetch", fetch)
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "minari"))


def test_every_dataset_that_can_be_played_passes(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", *PLAYED]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == len(PLAYED) == 54
    for line, (dataset, held) in zip(lines, PLAYED.items(), strict=True):
        played = json.loads(held.get("eval_env_spec") or held["env_spec"])
        assert re.match(rf"{dataset}: not downloaded; 10000 transitions in 100 episodes of (gymnasium_robotics:)?{played['id']}", line)
        assert "which can be played; 12.5 MB to download, licence mit" in line
        assert ("played in its eval_env_spec" in line) == (held.get("eval_env_spec", held["env_spec"]) != held["env_spec"])
    assert not local.root().exists()


@pytest.mark.parametrize("dataset", sorted(PLAYED))
def test_the_time_limit_is_the_declared_one(dataset: str) -> None:
    held = PLAYED[dataset]
    played = json.loads(held.get("eval_env_spec") or held["env_spec"])
    assert minari_store.offered(dataset).metadata.horizon == played["max_episode_steps"]


@pytest.mark.parametrize("dataset", sorted(REFUSED))
def test_discrete_actions_are_refused_before_anything_is_to_be_installed(dataset: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", dataset]) == 2
    assert f"error: dataset '{dataset}': its actions are discrete (Discrete)" in capsys.readouterr().err
