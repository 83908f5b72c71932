"""What a storage may be."""

from __future__ import annotations

from pathlib import Path

import pytest

from service.__main__ import main
from service.storage import paths
from trainables.datasets import local
from trainables.errors import UserError
from trainables.storage import cache


@pytest.mark.parametrize("given", ["gs://bucket/x", "http://host/x", "S3://bucket/x", "file:///data"])
def test_another_kind_of_storage_is_refused_and_not_made_a_folder(given: str) -> None:
    with pytest.raises(UserError, match=f"^storage '{given}' is of no kind that Winnow knows: a folder, or s3://bucket/prefix$"):
        paths.root(given)


def test_its_password_is_not_shown() -> None:
    with pytest.raises(UserError, match=r"'http://\*\*\*@host/x'"):
        paths.root("http://user:hunter2@host/x")


def test_a_folder_may_have_any_name(tmp_path: Path) -> None:
    for name in ("a:b", "gs:", "what? a storage"):
        assert paths.root(tmp_path / name) == tmp_path / name


@pytest.mark.parametrize(
    "words",
    [["plan", "smoke", "--storage=PATH"], ["plan", "PATH/mine.py"], ["init", "PATH"], ["archive", "smoke", "--to=PATH"], ["adopt", "PATH"]],
    ids=" ".join,
)
def test_the_home_of_nobody_is_one_line(words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    given = [word.replace("PATH", "~nosuchuser/x") for word in words]
    storage = [f"--storage={tmp_path}"] if words[0] in ("archive", "adopt") else []
    assert main([*given, *storage]) == 2
    path = next(word.partition("=")[2] or word for word in given if "~" in word)
    assert capsys.readouterr().err == f"error: '{path}': ~nosuchuser is not a home folder here; write the whole path\n"


def test_a_user_without_a_home_is_told_to_set_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a container whose user has a number and no name."""
    monkeypatch.setattr("os.getuid", lambda: 4_000_000)
    for name in ("HOME", "WINNOW_CACHE", "MINARI_DATASETS_PATH"):
        monkeypatch.delenv(name, raising=False)
    for root, path in ((cache.root, "~/.cache/winnow"), (local.root, "~/.minari/datasets")):
        with pytest.raises(UserError, match=f"^'{path}': ~ is not a home folder here; set HOME$"):
            root()
