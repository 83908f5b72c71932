"""A storage has one identity, whoever opens it first, wherever it is moved; a copy has its own."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from service.storage import paths
from service.storage.identity import existing_identity, identity_of
from tests.s3 import Server

PROGRAM = "import sys; from pathlib import Path; from service.storage.identity import identity_of; sys.stdin.read(1); "
PROGRAM += "print(identity_of(Path(sys.argv[1])))"


def test_it_is_made_once(tmp_path: Path) -> None:
    assert existing_identity(tmp_path) == ""
    assert list(tmp_path.iterdir()) == [], "to read makes nothing"
    made = identity_of(tmp_path)
    assert len(bytes.fromhex(made)) == 16
    assert made == identity_of(tmp_path) == existing_identity(tmp_path) != identity_of(tmp_path / "other")
    assert {path.name for path in tmp_path.iterdir()} == {"identity", "other"}


def test_of_many_processes_at_once_all_get_the_same(tmp_path: Path) -> None:
    command = [sys.executable, "-c", PROGRAM, str(tmp_path)]
    started = [subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for _ in range(4)]
    for process in started:
        assert process.stdin
        process.stdin.write("now")
        process.stdin.flush()
    assert len({process.communicate()[0] for process in started}) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["identity"]


def test_a_moved_storage_keeps_it_and_a_copy_gets_another(tmp_path: Path) -> None:
    made = identity_of(tmp_path / "a")
    (tmp_path / "a").rename(tmp_path / "b")
    assert identity_of(tmp_path / "b") == made
    shutil.copytree(tmp_path / "b", tmp_path / "c")
    copied = identity_of(tmp_path / "c")
    assert copied != made == identity_of(tmp_path / "b")
    assert identity_of(tmp_path / "c") == copied
    (tmp_path / "link").symlink_to(tmp_path / "b")
    assert identity_of(tmp_path / "link") == made, "another path of the same folder"


@pytest.mark.parametrize("content", [b"", b"{", b"[]", json.dumps({"id": 3}).encode()])
def test_a_damaged_file_is_an_error_and_stays(tmp_path: Path, content: bytes) -> None:
    paths.identity(tmp_path).write_bytes(content)
    for read in (identity_of, existing_identity):
        with pytest.raises(OSError, match="restore the file, or remove it for a new one"):
            read(tmp_path)
    assert paths.identity(tmp_path).read_bytes() == content


@pytest.fixture
def bucket(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    made = Server(tmp_path / "log")
    for name, value in made.environment.items():
        monkeypatch.setenv(name, value)
    yield paths.root(made.bucket("identity"))
    made.end()


def test_a_bucket_has_one_too(bucket: Path) -> None:
    assert existing_identity(bucket) == ""
    made = identity_of(bucket)
    assert made == identity_of(bucket) == existing_identity(bucket)
    assert not paths.identity(bucket).exists(), "it is in the bucket, not in this host's folder"
