"""Archives of one real trial beside what a storage already has of it; nothing is trained."""

from __future__ import annotations

import contextlib
import json
import time
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest

from service.__main__ import main
from service.delivery import adopt as adopt_module
from service.delivery import archive as archive_module
from service.delivery.adopt import adopt
from service.delivery.unfinished import Unfinished, take_along
from service.ledger import lease
from service.ledger.manifest import Manifest, read
from service.storage import paths
from trainables.errors import UserError
from trainables.storage import checkpoint_files
from trainables.storage.files import write
from trainables.trial import Trial

ARCHIVE = Path(__file__).parents[3] / "benchmarks" / "study.zip"
KEY = "015d1f73270a9e2a"  # a trial of the study


@pytest.fixture(scope="module")
def parts() -> dict[str, bytes]:
    """The files of the trial, by their name in an archive."""
    with zipfile.ZipFile(ARCHIVE) as file:
        return {name: file.read(name) for name in (f"trials/{KEY}/{part}" for part in ("trial.json", "spool.jsonl", "masks.json"))}


@pytest.fixture
def trial(parts: dict[str, bytes]) -> Trial:
    return Trial.from_json(json.loads(parts[f"trials/{KEY}/trial.json"]))


@pytest.fixture
def finished(parts: dict[str, bytes], tmp_path: Path) -> Path:
    """An archive of the trial, done."""
    with zipfile.ZipFile(tmp_path / "finished.zip", "w", zipfile.ZIP_DEFLATED) as file:
        for name, content in (parts | {"sweeps/study.json": json.dumps({KEY: {"seconds": 1.0}}).encode()}).items():
            file.writestr(name, content)
    return tmp_path / "finished.zip"


def fail(manifest: Manifest) -> None:
    manifest.record("leased", {KEY: {}})
    manifest.record("failed", {KEY: {"reason": "user_error", "message": "its dataset is not here"}})


def stop(manifest: Manifest) -> None:
    manifest.record("stopped", {KEY: {}})


@pytest.mark.parametrize("end", [fail, stop])
@pytest.mark.parametrize("elsewhere", [False, True])
def test_a_trial_that_ended_here_before_it_wrote_anything_is_done_once_adopted(
    end: Callable[[Manifest], None], elsewhere: bool, trial: Trial, finished: Path, tmp_path: Path
) -> None:
    """Also where another sweep here has done it meanwhile."""
    storage = tmp_path / "storage"
    for sweep, ends in (("study", True), ("another", False))[: 1 + elsewhere]:
        with contextlib.closing(Manifest(storage, sweep)) as manifest:
            manifest.plan([trial])
            if ends:
                end(manifest)
            else:
                manifest.record("done", {KEY: {}})
    adopted = adopt(finished, storage)["study"]
    assert (list(adopted.imported), adopted.done) == (([], [KEY]) if elsewhere else ([KEY], []))
    entry = read(storage, "study").entries[KEY]
    assert (entry.state, entry.detail) == ("done", {"sweep": "another"} if elsewhere else {"seconds": 1.0})


def test_an_adoption_of_planned_trials_that_was_killed_is_made_good_by_the_next(
    trial: Trial, finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    storage = tmp_path / "storage"
    with contextlib.closing(Manifest(storage, "study")) as manifest:
        manifest.plan([trial])
    with monkeypatch.context() as patch:
        patch.setattr(Manifest, "record_all", Mock(side_effect=KeyboardInterrupt))  # its files are written, its events are not
        with pytest.raises(KeyboardInterrupt):
            adopt(finished, storage)
    assert paths.spool(storage, KEY).exists()
    assert read(storage, "study").entries[KEY].state == "planned"
    adopted = adopt(finished, storage)["study"]
    assert (list(adopted.imported), adopted.begun) == ([KEY], [])
    assert read(storage, "study").entries[KEY].state == "done"


def test_what_a_planned_trial_has_written_since_is_left_alone(trial: Trial, finished: Path, tmp_path: Path) -> None:
    storage = tmp_path / "storage"
    with contextlib.closing(Manifest(storage, "study")) as manifest:
        manifest.plan([trial])
    write(paths.spool(storage, KEY), b'{"kind": "attempt"}\n')
    assert adopt(finished, storage)["study"].begun == [KEY]
    assert paths.spool(storage, KEY).read_bytes() == b'{"kind": "attempt"}\n'


def test_a_trial_of_two_sweeps_goes_on_from_one_checkpoint_though_its_training_comes_further_meanwhile(
    parts: dict[str, bytes], trial: Trial, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    storage, second, file = tmp_path / "first", tmp_path / "second", tmp_path / "begun.zip"
    updates = iter(trial.evaluation_updates())

    def train() -> int:
        """Up to the next evaluation, and a checkpoint there."""
        update, (about, spooled, masks) = next(updates), parts.values()
        lines = [line for line in spooled.splitlines(keepends=True) if json.loads(line).get("update", 0) <= update]
        head: dict[str, Any] = {"trial": KEY, "update": update}
        head["sha256"] = checkpoint_files.hashed(head, b"tensors")
        write(paths.trial_json(storage, KEY), about)
        write(paths.spool(storage, KEY), b"".join(lines))
        write(paths.masks_json(storage, KEY), masks)
        write(checkpoint_files.tensor_file(storage, KEY, update), b"tensors")
        write(checkpoint_files.head_file(storage, KEY, update), json.dumps(head).encode())
        return update

    def meanwhile(place: Path, one: Trial) -> Unfinished | None:
        found = take_along(place, one)
        train()
        return found

    monkeypatch.setattr(archive_module, "take_along", meanwhile)
    for sweep in ("study", "another"):
        with contextlib.closing(Manifest(storage, sweep)) as manifest:
            manifest.plan([trial])
    update = train()
    assert archive_module.archive(["study", "another"], file, storage, unfinished=True) == archive_module.Archived(0, 1)
    adopted = adopt(file, second)
    assert {sweep: list(each.unfinished) for sweep, each in adopted.items()} == {"study": [KEY], "another": [KEY]}
    assert checkpoint_files.updates(second, KEY) == [update]


def test_an_adoption_that_loses_its_lease_writes_no_further_trial_and_is_finished_by_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another host takes over what shows no sign of life for some seconds."""
    storage, file, keys = tmp_path / "storage", tmp_path / "two.zip", (KEY, "0265f168a5dcb534")
    with zipfile.ZipFile(ARCHIVE) as study, zipfile.ZipFile(file, "w") as two:
        for name in (f"trials/{key}/{part}" for key in keys for part in ("trial.json", "spool.jsonl", "masks.json")):
            two.writestr(name, study.read(name))
        two.writestr("sweeps/study.json", json.dumps({key: {"seconds": 1.0} for key in keys}))
    monkeypatch.setattr(lease, "BEAT", 0.01)
    written = list[Path]()

    def slow(path: Path, content: bytes) -> None:
        write(path, content)
        written.append(path)
        if len(written) == 3:  # all of a trial
            lease._create(paths.leases(storage, "study"), 2, {"state": "held", "owner": "another:1", "kernel": "its own"})
            time.sleep(1)

    with monkeypatch.context() as patch:
        patch.setattr(adopt_module, "write", slow)
        with pytest.raises(UserError, match=r"not all of .* is adopted: sweep 'study': another driver has taken"):
            adopt(file, storage)
    assert {path.parent.name for path in written} == {KEY}
    lease._file(paths.leases(storage, "study"), 2).unlink()
    assert list(adopt(file, storage)["study"].imported) == [*keys]


def test_a_folder_in_place_of_the_file_is_named_as_it_was_given(finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    storage, folder = tmp_path / "storage", tmp_path / "folder"
    folder.mkdir()
    adopt(finished, storage)
    assert main(["archive", "study", "--to", str(folder), "--storage", str(storage)]) == 2
    assert capsys.readouterr().err == f"error: {folder}: Is a directory\n"
