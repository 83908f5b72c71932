from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import HOPPER
from tests.trainables.datasets.hub.ids import box, spec
from tests.trainables.datasets.hub.server import Hub
from trainables.datasets import local
from trainables.datasets.__main__ import main
from trainables.datasets.table import load_table
from trainables.errors import UserError

DATA = f"/data/{HOPPER}/data/main_data.hdf5"


@pytest.fixture
def hub(hopper_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """A hub that has HOPPER, and this process led to it with nothing downloaded yet."""
    for name in ("HF_HUB_OFFLINE", "MINARI_REMOTE", "HF_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "minari"))
    monkeypatch.setattr("trainables.datasets.minari_store.SEARCH_SECONDS", 60.0)  # the machine may be busy
    hub = Hub(hopper_folder, tmp_path / "home")
    for name, value in hub.environment.items():
        monkeypatch.setenv(name, value)
    yield hub
    hub.end()


def files(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def refused(dataset: str) -> str:
    with pytest.raises(UserError) as caught:
        load_table(dataset)
    assert "\n" not in str(caught.value)
    assert dataset in str(caught.value)
    assert list(local.root().iterdir()) == []  # nothing is left of the try
    return str(caught.value)


def test_a_dataset_of_the_hub_is_downloaded_once_and_whole(
    hub: Hub, hopper_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    table = load_table(HOPPER)
    assert files(local.folder(HOPPER)) == files(hopper_folder / HOPPER)
    assert [path.name for path in local.root().iterdir()] == ["test"]
    assert not (tmp_path / "home").exists()
    assert capfd.readouterr() == ("", "")
    assert hub.asked.count(f"GET {DATA}") == 1
    hub.asked.clear()
    assert load_table(HOPPER).hash == table.hash
    assert hub.asked == []
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(hopper_folder))
    assert load_table(HOPPER).hash == table.hash


@pytest.mark.parametrize(
    ("dataset", "it_has"),
    [
        ("nobody/nothing-v0", ""),
        ("test/hopper/random-v7", f", it has {HOPPER}"),
        ("test/hoper/random-v0", f", it has {HOPPER}"),
        ("tset/hopper/random-v0", f", it has {HOPPER}"),
    ],
)
def test_what_the_hub_does_not_have_is_said(hub: Hub, dataset: str, it_has: str) -> None:
    assert f"(the hub has no such dataset{it_has})" in refused(dataset)
    assert f"GET {DATA}" not in hub.asked


def test_a_download_that_breaks_off_is_taken_up_again(hub: Hub, hopper_folder: Path) -> None:
    hub.trouble = ["cut"]
    load_table(HOPPER)
    assert files(local.folder(HOPPER)) == files(hopper_folder / HOPPER)
    assert hub.asked.count(f"GET {DATA}") == 2


def test_a_download_that_breaks_for_good_leaves_nothing(hub: Hub) -> None:
    hub.trouble = ["cut", "down"]
    said = refused(HOPPER)
    assert "(download failed: " in said
    assert "500 Internal Server Error" in said
    assert hub.trouble == []


def test_a_hub_that_cannot_be_reached_is_said_with_the_reason(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    hub.end()
    monkeypatch.setattr("trainables.datasets.minari_store.SEARCH_SECONDS", 2.0)
    said = refused(HOPPER)
    assert "(no answer from the hub in 2 s: '" in said
    assert "Connection refused' thrown while requesting GET http://127.0.0.1" in said


def wrapped(entry_point: str) -> str:
    hopper = json.loads(spec("Hopper-v5", "gymnasium.envs.mujoco.hopper_v5:HopperEnv", 1000))
    return json.dumps(hopper | {"additional_wrappers": [{"name": "Some", "entry_point": entry_point, "kwargs": {}}]})


METADATA = "hopper/random-v0/data/metadata.json"


def test_check_says_what_a_download_would_be_and_downloads_nothing(hub: Hub, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", HOPPER]) == 0
    said = capsys.readouterr().out
    assert said.startswith(f"{HOPPER}: not downloaded; ")
    assert " in 40 episodes of Hopper-v5, which can be played; " in said
    assert said.endswith(" MB to download, licence mit\n")
    assert f"GET {DATA}" not in hub.asked
    assert not local.exists(HOPPER)
    load_table(HOPPER)
    assert main(["check", HOPPER]) == 0
    assert "not downloaded" not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"env_spec": None, "eval_env_spec": None}, "names no environment"),
        ({"action_space": json.dumps({"type": "Discrete", "n": 2, "start": 0})}, "its actions are discrete (Discrete)"),
        ({"total_steps": 0}, "is empty"),
        ({"env_spec": spec("Nowhere-v0", "nowhere.envs:Nowhere", 10)}, "only modules that you name are imported: --import nowhere"),
        ({"env_spec": spec("Swimmer-v5", "gymnasium.envs.mujoco.swimmer_v5:SwimmerEnv", 1000)}, "(11, 3) numbers, Swimmer-v5 of (8, 2)"),
        ({"action_space": json.dumps(box(3, 9.0))}, "is wider than that of Hopper-v5"),
        ({"env_spec": wrapped("other_package:Wrapper")}, "wrapper Wrapper of environment 'Hopper-v5' is made by the module other_package"),
        ({"env_spec": wrapped("gymnasium.wrappers:NormalizeReward")}, "wrapper NormalizeReward of environment 'Hopper-v5' cannot be made"),
    ],
)
def test_no_download_is_begun_for_what_cannot_be_trained_on(hub: Hub, changed: dict[str, Any], said: str) -> None:
    held = json.loads(hub.repositories["test"][METADATA]) | {"eval_env_spec": None} | changed
    hub.repositories["test"][METADATA] = json.dumps({name: value for name, value in held.items() if value is not None}).encode()
    assert said in refused(HOPPER)
    assert main(["check", HOPPER]) == 2
    assert f"GET {DATA}" not in hub.asked
