"""The page on your own training code runs, and its examples do: d3rlpy and stable-baselines3 have their own environment."""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.documents import BLOCK
from trainables.errors import UserError
from trainables.library import PRUNERS

ROOT = Path(__file__).parents[3]
PEER = ROOT / ".venv-peer" / "bin" / "python"  # has neither ray nor mlflow nor safetensors (`make test` installs it)


def run(name: str, *arguments: str) -> str:
    """What an example prints in the peers' environment."""
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [str(PEER), f"examples/{name}.py", *arguments], cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture
def corl(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    spec = importlib.util.spec_from_file_location("corl_td3_bc", ROOT / "examples" / "corl_td3_bc.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "corl_td3_bc", module)
    spec.loader.exec_module(module)
    return module


def state(trainer: object) -> list[Tensor]:
    return [tensor.clone() for part in (trainer.actor, trainer.critics, trainer.critics_target) for tensor in part.state_dict().values()]


def test_a_single_file_td3_bc_continues_from_its_checkpoint_as_if_it_had_not_been_interrupted(corl: ModuleType, tmp_path: Path) -> None:
    given = {"episodes": 1, "batch_size": 32, "density": 0.1}
    whole = corl.train(corl.TrainConfig(updates=8, **given))
    checkpoint = str(tmp_path / "run.pt")
    corl.train(corl.TrainConfig(updates=4, checkpoint=checkpoint, **given))
    continued = corl.train(corl.TrainConfig(updates=8, checkpoint=checkpoint, **given))
    assert continued.total_it == 8
    assert all(torch.equal(a, b) for a, b in zip(state(whole), state(continued), strict=True))
    continued.masks.check(continued.actor_optimizer, continued.critic_optimizer)
    kept = sum(int(layer.weight.count_nonzero()) for layer in continued.critics_target.modules() if hasattr(layer, "weight"))
    assert kept == round(0.1 * 2 * (4 * 256 + 256 * 256 + 256))

    policy, given_states = continued.masks.fold(smaller=True)["actor"], torch.randn(8, 3)
    assert torch.allclose(policy(given_states), continued.actor(given_states), atol=1e-6)
    saved = torch.load(checkpoint, weights_only=True)
    saved["trainer"]["actor"]["net.0.weight"] += 1
    torch.save(saved, checkpoint)
    with pytest.raises(UserError, match=r"removed weights of layer 'net.0.weight' of 'actor' are not 0"):
        corl.train(corl.TrainConfig(updates=8, checkpoint=checkpoint, **given))


def test_the_page_on_your_own_training_code_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its blocks one after the other, and what it says of the pruners."""
    page = (ROOT / "docs" / "library.md").read_text()
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    for kind, block in BLOCK.findall(page):
        assert kind == "python"
        exec(block, names)
    states = names["batches"][0]["observations"]
    assert torch.allclose(names["policy"](states), names["actor"](states), atol=1e-6)
    assert sum(parameter.numel() for parameter in names["policy"].parameters()) < sum(p.numel() for p in names["actor"].parameters())
    listed = re.findall(r"`(\w+)`", "".join(line.split("|")[1] for line in page.splitlines() if re.match(r"\| `[a-z]", line)))
    assert sorted(listed) == sorted(PRUNERS)


def test_d3rlpys_own_td3_bc_trains_pruned_networks() -> None:
    assert PEER.exists(), "make .venv-peer/installed"
    printed = run("d3rlpy_td3_bc", "--density", "0.05", "--updates", "20")
    lines = [line for line in printed.splitlines() if " keeps " in line]
    assert [line.split(" keeps ")[0] for line in lines] == ["actor", "critic", "target actor", "target critic"]
    assert all("(5.0" in line or "(4.9" in line for line in lines), printed


def test_stable_baselines3_learns_with_pruned_networks_saves_them_and_goes_on() -> None:
    has = subprocess.run([str(PEER), "-c", "import stable_baselines3"], capture_output=True, check=False)
    if has.returncode:
        pytest.skip("stable-baselines3 is not in .venv-peer: make -B .venv-peer/installed")
    printed = run("sb3_td3", "--density", "0.05", "--updates", "10")
    lines = [line for line in printed.splitlines() if " keeps " in line]
    assert lines == [
        "actor keeps 3328 of 66560 weights (5.00 %) after 20 updates, saved and loaded",
        "critic keeps 6682 of 133632 weights (5.00 %) after 20 updates, saved and loaded",
    ]
