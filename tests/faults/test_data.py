"""Data that changes under a sweep: a prepared table that was altered, a library that was planted, a disk with no room for a table."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from trainables.datasets import table_cache
from trainables.datasets.table import load_table
from trainables.errors import UserError
from trainables.native import build

from .conftest import Record
from .nursery import ROOT


@pytest.fixture
def cache(tmp_path: Path, hopper: str, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache of this test's own."""
    folder = tmp_path / "cache"
    monkeypatch.setenv("WINNOW_CACHE", str(folder))
    return folder


def altered(cache: Path, *, same_time: bool) -> Path:
    """One reward of the prepared table is changed in place: the file has the same name and size and, if asked, the same time."""
    path = next(cache.glob("*.npy"))
    before = path.stat()
    rows = np.load(path, mmap_mode="r+")
    rows[5, -2] += 100
    rows.flush()
    if same_time:
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    return path


@pytest.mark.parametrize("same_time", [False, True], ids=["new time", "same time"])
def test_a_table_that_was_altered_is_prepared_again(cache: Path, hopper: str, same_time: bool, record: Record) -> None:
    table = load_table(hopper)
    good, name = np.array(table.rows), table.hash
    path = altered(cache, same_time=same_time)
    again = load_table(hopper)
    assert again.hash == name
    np.testing.assert_array_equal(again.rows, good)
    np.testing.assert_array_equal(np.load(path), good)
    record(f"prepared table altered in place, {'with its old time' if same_time else 'written anew'}: prepared again")


def test_without_verification_an_altered_table_is_trained_on(cache: Path, hopper: str, monkeypatch: pytest.MonkeyPatch) -> None:
    good = np.array(load_table(hopper).rows)
    monkeypatch.setattr(table_cache, "_verified", lambda digest: True)
    altered(cache, same_time=False)
    assert not np.array_equal(load_table(hopper).rows, good)


def test_the_other_file_of_a_table_is_verified_too(cache: Path, hopper: str) -> None:
    good = load_table(hopper).mean
    path = next(cache.glob("*.npz"))
    with np.load(path) as file:
        arrays = {name: file[name] for name in file.files}
    np.savez(path, **(arrays | {"mean": arrays["mean"] + 1}))
    path.chmod(0o600)
    np.testing.assert_array_equal(load_table(hopper).mean, good)


def test_a_table_is_hashed_once_per_version(cache: Path, hopper: str, monkeypatch: pytest.MonkeyPatch) -> None:
    load_table(hopper)
    hashed = []
    real = table_cache._digest_of
    monkeypatch.setattr(table_cache, "_digest_of", lambda *files: hashed.append(files) or real(*files))
    load_table(hopper)
    assert hashed == []
    load_table(hopper, verify=True)
    assert len(hashed) == 1
    shutil.rmtree(cache / "verified")
    load_table(hopper)
    load_table(hopper)
    assert len(hashed) == 2


@pytest.mark.parametrize("protected", [True, False])
def test_a_library_that_others_can_write_is_not_loaded(
    cache: Path, protected: bool, monkeypatch: pytest.MonkeyPatch, record: Record
) -> None:
    """A library with the right name that would say so when it is loaded."""
    cache.mkdir(mode=0o777)
    cache.chmod(0o777)
    source, proof = cache.parent / "planted.c", cache.parent / "loaded"
    source.write_text(f'#include <stdlib.h>\n__attribute__((constructor)) static void go(void) {{ system("touch {proof}"); }}\n')
    target = cache / build._compiled(build.simd()).name
    subprocess.run(["cc", "-shared", "-fPIC", str(source), "-o", str(target)], check=True)
    target.chmod(0o777)
    if not protected:
        monkeypatch.setattr("trainables.storage.cache.trusted", lambda file: file.exists())
    program = f"import sys\nfrom trainables.storage import cache\n{'' if protected else 'cache.trusted = lambda file: file.exists()'}\n"
    program += "from trainables.native import build\nprint(build.available())\n"
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, env=os.environ, capture_output=True, text=True, check=False)
    assert proof.exists() is not protected
    if protected:
        assert done.stdout == "True\n", done.stderr
        assert cache.stat().st_mode & 0o777 == 0o755
        assert target.stat().st_mode & 0o777 == 0o700
        record("a library planted in a cache that others can write: compiled again, the folder closed")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file away")
def test_a_cache_of_another_user_is_refused(cache: Path, hopper: str) -> None:
    cache.mkdir(mode=0o755)
    os.chown(cache, 12345, 12345)
    with pytest.raises(UserError, match=r"belongs to another user \(id 12345\); set WINNOW_CACHE"):
        load_table(hopper)


def test_files_of_the_cache_are_their_owners_alone(cache: Path, hopper: str) -> None:
    before = os.umask(0)
    try:
        load_table(hopper)
        build._compiled(build.simd())
    finally:
        os.umask(before)
    assert {path.stat().st_mode & 0o077 for path in [cache, *cache.rglob("*")]} == {0}


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 64 kB, of which the small dataset's table takes more."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(folder)], capture_output=True, check=False)
    if mounted.returncode:
        pytest.skip("no file system can be mounted here")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


@pytest.mark.parametrize("protected", [True, False])
def test_a_full_disk_under_the_cache_is_one_line(small_disk: Path, hopper: str, protected: bool, record: Record) -> None:
    program = f"import sys, os\nfrom trainables.datasets.table import load_table\n{'' if protected else 'del os.posix_fallocate'}\n"
    program += f"try:\n    load_table({hopper!r})\nexcept Exception as error:\n    sys.exit(str(error))\n"
    environment = os.environ | {"WINNOW_CACHE": str(small_disk / "cache")}
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    left = [path.name for path in small_disk.rglob("*") if path.is_file()]
    if protected:
        assert (done.returncode, left) == (1, [])
        assert done.stderr.startswith(f"the prepared table of {hopper!r} cannot be written below {small_disk}/cache (WINNOW_CACHE): ")
        assert "No space left on device" in done.stderr
        assert len(done.stderr.splitlines()) == 1
        record("disk full under a table that is being prepared: one line, nothing left")
    else:
        assert done.returncode == -7  # a bus error, without a word
