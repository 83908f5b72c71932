"""Datasets that cannot be looked at are not here, and no look-up fails for them."""

from __future__ import annotations

from pathlib import Path

import pytest

from trainables.datasets import local

HERE = "mine/hopper/small-v0"


@pytest.fixture
def datasets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path))
    (tmp_path / HERE / "data").mkdir(parents=True)
    (tmp_path / HERE / "data" / "metadata.json").touch()
    return tmp_path


def test_an_id_longer_than_a_file_name_is_not_here(datasets: Path) -> None:
    assert local.exists(HERE)
    assert not local.exists("x" * 300 + "-v0")


def test_somebody_elses_private_dataset_hides_no_other(datasets: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Root may look into any folder, so that the answer of the system is given here."""
    private = datasets / "theirs" / "hopper" / "small-v0" / "data"
    private.mkdir(parents=True)
    looked = Path.is_file

    def is_file(path: Path) -> bool:
        if path.parent == private:
            raise PermissionError(13, "Permission denied", str(path))
        return looked(path)

    monkeypatch.setattr(Path, "is_file", is_file)
    assert local.local_datasets() == [HERE]
    assert not local.exists("theirs/hopper/small-v0")
