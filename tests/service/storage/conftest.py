"""Storage on a real S3 server, as several hosts see it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from service.ledger import lease
from service.storage import paths, s3
from tests.s3 import Server, serving


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    yield from serving(tmp_path_factory.mktemp("s3"))


@pytest.fixture
def url(server: Server, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    for name, value in server.environment.items():
        monkeypatch.setenv(name, value)
    return server.bucket(f"test-{abs(hash(request.node.name))}") + "/some/prefix"


@pytest.fixture
def bucket(url: str) -> s3.Bucket:
    return s3.Bucket(url)


@pytest.fixture
def on_host(url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Path]:
    """`on_host("a")`: from now on this process is on a host with folders of its own; the storage there."""

    def move(name: str) -> Path:
        monkeypatch.setenv("WINNOW_CACHE", str(tmp_path / name))
        monkeypatch.setattr(lease, "owner", lambda: f"{name}:1")
        return paths.root(url)

    return move
