"""Archives of one real trial beside what a storage already has of it; nothing is trained."""

from __future__ import annotations

import contextlib
import json
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from service.delivery.adopt import adopt
from service.ledger.manifest import Manifest, read
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
