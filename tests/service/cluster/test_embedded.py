"""Where an embedded Ray can start, and its private folder; without Ray. Its secrets: tests/faults/processes/test_embedded.py."""

from __future__ import annotations

import os
import shutil
import socket
import tempfile
import time
from pathlib import Path

import pytest

from service.cluster import address, embedded
from trainables.errors import UserError


def test_a_folder_whose_name_is_too_long_for_sockets_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.delenv("RAY_TMPDIR", raising=False)
    long = tmp_path / ("x" * 60)
    long.mkdir()
    monkeypatch.setattr(embedded.tempfile, "gettempdir", lambda: str(long))
    monkeypatch.setenv("TMPDIR", str(long))
    with pytest.raises(
        UserError, match=r"^TMPDIR /.* is \d+ letters long, and Ray's sockets fit into a folder of at most \d+; set RAY_TMPDIR"
    ):
        address.check_usable()
    with pytest.raises(UserError, match="TMPDIR"), embedded.private_folder():
        pass
    assert list(long.iterdir()) == []
    monkeypatch.setenv("RAY_TMPDIR", "/tmp")
    address.check_usable()


def test_the_length_that_is_refused_is_the_one_that_sockets_do_not_have(monkeypatch: pytest.MonkeyPatch) -> None:
    room = embedded.LONGEST - len(f"/{embedded.PREFIX}") - embedded.RANDOM - len(embedded.SOCKET)
    for length, well in ((room, True), (room + 1, False)):
        name = "/tmp/" + "x" * (length - 5) + f"/{embedded.PREFIX}" + "y" * embedded.RANDOM + embedded.SOCKET
        path = Path(name)
        path.parent.mkdir(parents=True)
        try:
            with socket.socket(socket.AF_UNIX) as each:
                if well:
                    each.bind(name)
                else:
                    with pytest.raises(OSError, match="too long"):
                        each.bind(name)
        finally:
            shutil.rmtree("/tmp/" + "x" * (length - 5))


def test_a_folder_that_is_not_there_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_TMPDIR", "/no/such")
    says = r"^RAY_TMPDIR /no/such cannot hold Ray's files \(No such file or directory\); set RAY_TMPDIR"
    with pytest.raises(UserError, match=says), embedded.private_folder():
        pass


def test_folders_of_dead_drivers_are_removed_and_those_of_living_ones_stay(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("RAY_TMPDIR", "/tmp")
    parent = Path(tempfile.mkdtemp(dir="/tmp"))
    monkeypatch.setenv("RAY_TMPDIR", str(parent))
    dead = parent / f"{embedded.PREFIX}dead" / "r"
    dead.mkdir(parents=True)
    (dead.parent / embedded.LOCK).touch()
    with embedded.private_folder() as living, embedded.private_folder() as another:
        assert sorted(parent.iterdir()) == sorted([living.parent, another.parent])
        assert living.parent.stat().st_mode & 0o777 == 0o700
    assert list(parent.iterdir()) == []
    parent.rmdir()


def test_auto_without_a_cluster_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "auto")
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path))
    with pytest.raises(UserError, match=r"^RAY_ADDRESS=auto, and no cluster runs on this host; `ray start --head`, or unset RAY_ADDRESS$"):
        address.check_usable()


def test_too_few_processes_are_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setenv("RAY_TMPDIR", "/tmp")
    monkeypatch.setattr(embedded.os, "geteuid", lambda: 1000)
    monkeypatch.setattr(embedded.resource, "getrlimit", lambda which: (300, 300))
    with pytest.raises(UserError, match=r"^Ray needs some \d+ threads on this machine, and `ulimit -u` 300 leaves \d+; raise it, or set"):
        address.check_usable()
    monkeypatch.setattr(embedded.resource, "getrlimit", lambda which: (100_000, 100_000))
    address.check_usable()


def test_a_process_that_the_kernel_holds_is_not_waited_for_without_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """As one in an uninterruptible sleep, on a disk that is gone; here this process, which nobody kills."""
    killed: list[int] = []

    def kill(pid: int, number: int) -> None:
        killed.append(pid)
        assert len(killed) < 1000, "it spins"

    monkeypatch.setattr(embedded, "descendants", lambda root: [os.getpid()])
    monkeypatch.setattr(embedded.os, "kill", kill)
    begun = time.monotonic()
    embedded.kill_all()
    assert killed
    assert time.monotonic() - begun < 60
