"""Who may read and write what a sweep makes: a storage that a group shares, and a umask that forbids nothing."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from ..conftest import Fresh, Record, arguments
from ..support.nursery import Nursery

GROUP, OTHERS = stat.S_IRGRP | stat.S_IWGRP, stat.S_IRWXO


def shared(nursery: Nursery, fresh: Fresh, *faults: str) -> list[str]:
    """What somebody else of the group could not continue after a run in a storage of mode 2770, by a user whose umask is 077."""
    storage = fresh()
    (storage / "mlflow.db").unlink()
    storage.chmod(0o2770)
    ended = nursery.run(*arguments(storage), faults=["umask=077", "no_table", *faults])
    assert ended.code == 0, ended.out
    made = {path: path.stat().st_mode for path in storage.rglob("*")}
    assert any(path.name == "mlflow.db" for path in made)
    wanted = {path: GROUP | (stat.S_ISGID | stat.S_IXGRP if path.is_dir() else 0) for path in made}
    return [f"{path.relative_to(storage)} {mode:o}" for path, mode in made.items() if mode & wanted[path] != wanted[path] or mode & OTHERS]


def test_a_folder_of_a_group_stays_the_groups(nursery: Nursery, fresh: Fresh, record: Record) -> None:
    assert shared(nursery, fresh) == []
    record("a storage of mode 2770, and a user whose umask is 077: all of it is the group's")


def test_without_that_the_group_is_shut_out(nursery: Nursery, fresh: Fresh) -> None:
    assert any(line.startswith("sweeps/smoke/manifest.jsonl") for line in shared(nursery, fresh, "no_sharing"))


@pytest.mark.parametrize("mask", ["000", "022"])
def test_a_cache_is_its_owners_whatever_the_umask(nursery: Nursery, fresh: Fresh, tmp_path: Path, mask: str) -> None:
    """A storage follows the umask; prepared tables are private."""
    storage, cache = fresh(), tmp_path / "cache"
    ended = nursery.run(*arguments(storage), faults=[f"umask={mask}", "no_table", "no_mlflow"], WINNOW_CACHE=str(cache))
    assert ended.code == 0, ended.out
    made = [cache, *cache.rglob("*")]
    assert len(made) > 3
    assert [f"{path} {path.stat().st_mode:o}" for path in made if path.stat().st_mode & (stat.S_IRWXG | stat.S_IRWXO)] == []
    loose = [path for path in storage.rglob("*.jsonl") if path.stat().st_mode & stat.S_IWOTH]
    assert bool(loose) == (mask == "000")
