"""A storage that was moved or copied: nothing of it is lost, and nothing is written where it was before."""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path
from urllib.parse import unquote

import pytest

from service.results.report.gather import gather
from service.storage import paths
from service.tracking.runs import Tracking

from ..conftest import Fresh, Record, arguments
from ..support.invariants import Twin, check, mlflow_client
from ..support.nursery import Ended, Nursery


def content(folder: Path) -> dict[str, str]:
    """The files below a folder, by hash."""
    return {str(p.relative_to(folder)): hashlib.sha256(p.read_bytes()).hexdigest() for p in folder.rglob("*") if p.is_file()}


@pytest.fixture(scope="module")
def trained(nursery: Nursery, fresh: Fresh, twin: Twin, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A storage with the finished sweep and a registered policy, not to be changed."""
    storage = fresh()
    key = next(iter(twin.states))
    for command in (arguments(storage), ["promote", key, f"--storage={storage}"]):
        ended = nursery.run(*command, faults=["no_table"])
        assert ended.code == 0, ended.out
    return storage


def use(nursery: Nursery, storage: Path, twin: Twin, *switches: str, **environment: str) -> dict[str, Ended]:
    """What each command says of a storage that is elsewhere."""
    key = list(twin.states)[1]
    commands = {name: [name, "smoke", f"--storage={storage}"] for name in ("sync", "verify")}
    commands |= {"run": arguments(storage), "promote": ["promote", key, f"--storage={storage}"]}
    return {name: nursery.run(*command, faults=["no_table", *switches], **environment) for name, command in commands.items()}


def reported(storage: Path) -> list[tuple[object, ...]]:
    """What a report reads of each run: its masks, and what its points cost."""
    return [(run.masks, run.points) for run in gather(["smoke"], Tracking(storage), storage).runs]


def wrong_after_move(nursery: Nursery, trained: Path, twin: Twin, where: Path, *switches: str) -> list[str]:
    """What is wrong once commands have used a storage that was moved to `where`, without the storage that it is made from."""
    old, new = where / "old", where / "new"
    shutil.copytree(trained, old)
    assert nursery.run("sync", "smoke", f"--storage={old}").code == 0
    old.rename(new)
    told = use(nursery, new, twin, *switches)
    wrong = [ended.out for ended in told.values() if ended.code]
    wrong += [f"{old} was made again"] if old.exists() else []
    wrong += ["the report differs"] if reported(new) != reported(trained) else []
    with mlflow_client(f"sqlite:///{paths.mlflow_db(new)}") as client:
        models = [client.get_logged_model(version.source.removeprefix("models:/")) for version in client.search_model_versions()]
    wrong += [
        f"{model.artifact_location} is not there" for model in models if not Path(unquote(model.artifact_location[7:]), "MLmodel").exists()
    ]
    wrong += [f"{len(models)} models"] if len(models) != 2 else []
    notes = [line for ended in told.values() for line in ended.out.splitlines() if line.startswith("note: this storage was at")]
    wrong += notes if len(notes) != 1 else []
    return wrong + check(new, twin)


def test_a_moved_storage_loses_nothing(nursery: Nursery, trained: Path, twin: Twin, tmp_path: Path, record: Record) -> None:
    """And one whose name has letters that an address escapes."""
    (tmp_path / "a b#c").mkdir()
    assert wrong_after_move(nursery, trained, twin, tmp_path / "a b#c") == []
    record("storage moved: its artifacts come along", kills="")


def test_without_that_it_points_back(nursery: Nursery, trained: Path, twin: Twin, tmp_path: Path) -> None:
    wrong = wrong_after_move(nursery, trained, twin, tmp_path, "not_mended")
    assert f"{tmp_path / 'old'} was made again" in wrong


def test_a_copy_is_its_own(nursery: Nursery, trained: Path, twin: Twin, tmp_path: Path, record: Record) -> None:
    copy, before = tmp_path / "copy", content(trained)
    shutil.copytree(trained, copy)
    told = use(nursery, copy, twin)
    assert {name: ended.out for name, ended in told.items() if ended.code} == {}
    assert content(trained) == before
    assert check(copy, twin) == []
    record("storage copied: the copy never writes into the original", kills="")


def test_without_that_a_copy_writes_into_the_original(nursery: Nursery, trained: Path, twin: Twin, tmp_path: Path) -> None:
    original, copy = tmp_path / "original", tmp_path / "copy"
    shutil.copytree(trained, original)
    assert nursery.run("sync", "smoke", f"--storage={original}").code == 0
    shutil.copytree(original, copy)
    before = content(original)
    use(nursery, copy, twin, "not_mended")
    assert content(original) != before


def test_a_storage_behind_a_link_is_the_same(nursery: Nursery, trained: Path, twin: Twin, tmp_path: Path) -> None:
    storage, link = tmp_path / "storage", tmp_path / "link"
    shutil.copytree(trained, storage)
    link.symlink_to(storage)
    for place, notes in ((storage, 1), (link, 0), (storage, 0)):
        assert nursery.run("sync", "smoke", f"--storage={place}").out.count("note: this storage was at") == notes


def test_a_database_of_the_user_s_names_a_storage_that_is_gone(
    nursery: Nursery, fresh: Fresh, twin: Twin, tmp_path: Path, record: Record
) -> None:
    old, new, tracker = tmp_path / "old", tmp_path / "new", {"MLFLOW_TRACKING_URI": f"sqlite:///{fresh() / 'mlflow.db'}"}
    assert nursery.run(*arguments(old), faults=["no_table"], **tracker).code == 0
    old.rename(new)
    told = use(nursery, new, twin, **tracker)
    assert {name: ended.code for name, ended in told.items()} == {"sync": 2, "verify": 2, "run": 1, "promote": 2}, told
    assert all(f"keeps its artifacts in {old / 'artifacts'}, which is gone" in ended.out for ended in told.values()), told
    assert f"`ln -s {new} {old}`" in told["sync"].out
    assert not old.exists()
    old.symlink_to(new)
    assert {name: ended.out for name, ended in use(nursery, new, twin, **tracker).items() if ended.code} == {}
    record("storage moved, MLflow in a database elsewhere: one line, and a way out", kills="")
