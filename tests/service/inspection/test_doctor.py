"""`winnow doctor` reports what works and, for what does not, the fix; it leaves nothing behind."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import socket
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from service.__main__ import main
from service.inspection import checks
from service.inspection.checks import CheckResult
from service.inspection.doctor import check_all, describe
from tests.s3 import Server
from trainables.native import build

Examine = Callable[[str], list[CheckResult]]


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, hopper_folder: Path) -> Path:
    """A storage that does not exist yet, and an environment in which all is well."""
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(hopper_folder))
    for name in ("MLFLOW_TRACKING_URI", "RAY_ADDRESS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    monkeypatch.setattr(checks, "PORTS", {})
    return tmp_path / "not" / "yet"


@pytest.fixture
def ask(place: Path, monkeypatch: pytest.MonkeyPatch) -> Examine:
    """`ask("storage")`: the results of one check."""

    def asked(name: str) -> list[CheckResult]:
        monkeypatch.setattr("service.inspection.doctor.CHECKS", (getattr(checks, name),))
        return list(check_all(place))

    return asked


def test_all_is_well_and_nothing_stays(place: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checks, "LITTLE", 1)
    monkeypatch.setattr(checks, "TOO_LITTLE", 0)
    assert main(["doctor", f"--storage={place}"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line for line in lines if not line.startswith("ok    ")] == []
    assert {line[6:].split(":")[0] for line in lines} >= {
        "versions",
        "kernels",
        "GPU",
        "storage",
        "disk",
        "datasets",
        "MLflow",
        "Ray",
        "ports",
    }
    assert f"storage: {place} is writable and supports O_EXCL, flock, rename" in "\n".join(lines)
    assert list(place.parent.parent.iterdir()) == []


def test_for_programs(place: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:1")
    assert main(["doctor", f"--storage={place}", "--json"]) == 1
    (found,) = [finding for finding in json.loads(capsys.readouterr().out) if finding["what"] == "MLflow"]
    assert found["state"] == "fail"
    assert found["mend"] == "start it, or set MLFLOW_TRACKING_URI"


def test_versions(ask: Examine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert ask("versions")[-1].state == "ok"
    file = tmp_path / "constraints.txt"
    file.write_text("ray==1.2.3  # old\nmujoco==3.3.7\n")
    monkeypatch.setattr(checks, "CONSTRAINTS", file)
    monkeypatch.setattr(checks, "PACKAGES", ("ray", "mujoco", "no-such-package"))
    other, missing, good = ask("versions")
    assert describe(other).startswith("warn  versions: ray is 2.")
    assert other.fix == "pip install ray==1.2.3"
    assert (missing.state, missing.message) == ("fail", "no-such-package is not installed")
    assert "mujoco 3.3.7" in good.message
    assert "ray" not in good.message


def test_a_version_that_cannot_work_is_named(ask: Examine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where a wheel is installed there is no constraints.txt."""
    monkeypatch.setattr(checks, "CONSTRAINTS", tmp_path / "none.txt")
    monkeypatch.setattr(checks, "requires", lambda name: ["ray[tune]<1", "mujoco>=3.3", "numpy<1; extra == 'old'", "no-such-package>=1"])
    outside, good = ask("versions")
    assert describe(outside).startswith("warn  versions: ray is 2.")
    assert outside.fix == "pip install 'ray<1'"
    assert good.state == "ok"


def test_no_compiler(ask: Examine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WINNOW_CACHE", str(tmp_path / "empty"))
    monkeypatch.setenv("CC", "no-such-compiler")
    build.library.cache_clear()
    (found,) = ask("kernels")
    assert found.state == "warn"
    assert "no C compiler 'no-such-compiler'" in found.message


@pytest.mark.parametrize(("name", "promise"), [("flock", "flock"), ("replace", "rename"), ("open", "O_EXCL")])
def test_a_file_system_that_does_not_keep_its_word(name: str, promise: str, ask: Examine, monkeypatch: pytest.MonkeyPatch) -> None:
    broken = {
        "flock": (fcntl, lambda *_: None),
        "replace": (os, lambda old, new: Path(new).write_bytes(Path(old).read_bytes())),
        "open": (os, lambda path, flags, *more, opened=os.open, **given: opened(path, flags & ~os.O_EXCL, *more, **given)),
    }
    module, lie = broken[name]
    monkeypatch.setattr(module, name, lie)
    (found,) = ask("storage")
    assert found.state == "fail"
    assert found.message.endswith(f"does not support {promise}")


def test_a_storage_that_cannot_be_written(ask: Examine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checks, "existing", lambda _: Path("/proc"))
    (found,) = ask("storage")
    assert found.state == "fail"
    assert found.message.startswith("/proc: ")
    assert "WINNOW_STORAGE" in found.fix


def test_a_full_disk_is_not_taken_for_one_that_cannot_lock(ask: Examine, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    (found,) = ask("storage")
    assert (found.state, found.message.partition(": ")[2]) == ("fail", "No space left on device")


def test_little_room(ask: Examine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checks, "LITTLE", 1 << 60)
    assert {found.state for found in ask("disk")} == {"warn"}
    monkeypatch.setattr(checks, "TOO_LITTLE", 1 << 60)
    assert {found.state for found in ask("disk")} == {"fail"}
    assert [found.fix.rpartition(" ")[2] for found in ask("disk")] == ["WINNOW_STORAGE", "WINNOW_CACHE", "MINARI_DATASETS_PATH"]


@pytest.mark.parametrize(("setting", "what"), [("WINNOW_CACHE", "prepared tables"), ("MINARI_DATASETS_PATH", "datasets")])
def test_a_file_in_place_of_a_folder(setting: str, what: str, ask: Examine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv(setting, str(tmp_path / "file"))
    (found,) = [each for each in ask("disk") if each.state != "ok"]
    assert (found.state, found.message) == ("fail", f"{tmp_path / 'file'} is not a folder: {what} cannot be there")
    assert found.fix == f"choose another with {setting}"
    assert bool(ask("minari")) == (setting == "WINNOW_CACHE"), "the disk's line has said it"


def test_the_datasets(ask: Examine) -> None:
    (found,) = ask("minari")
    assert (found.state, found.message.split()[0]) == ("ok", "1")


def test_threads(ask: Examine, monkeypatch: pytest.MonkeyPatch) -> None:
    assert ask("threads")[0].state == "ok"
    monkeypatch.setenv("OMP_NUM_THREADS", "8")
    (found,) = ask("threads")
    assert found.state == "warn"
    assert "OMP_NUM_THREADS=8" in found.message


def test_a_port_that_is_taken(ask: Examine, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        monkeypatch.setattr(checks, "PORTS", {port: "MLflow (--port)"})
        (found,) = ask("ports")
    assert (found.state, found.message) == ("warn", f"{port} is in use here")
    assert ask("ports")[0].state == "ok"


def test_ray(ask: Examine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:1")
    assert [found.state for found in ask("ray")] == ["fail"]
    (tmp_path / ".ray").mkdir()
    (tmp_path / ".ray" / "auth_token").write_text("x")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("RAY_AUTH_MODE")
    assert [found.state for found in ask("ray")] == ["fail", "warn"]
    monkeypatch.delenv("RAY_ADDRESS")
    assert [found.state for found in ask("ray")] == ["ok"], "an embedded Ray has a token of its own"
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path))
    (found,) = ask("ray")
    assert found.state == "fail"
    assert "Ray's sockets fit into a folder of at most" in found.message


@pytest.fixture
def server() -> Iterator[HTTPServer]:
    """Answers as an MLflow server of another version, or one that does not know its name: `server.answers`."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            code, text = self.server.answers[self.path]  # type: ignore[attr-defined]
            self.send_response(code)
            self.end_headers()
            self.wfile.write(text)

        def log_message(self, *_: object) -> None:
            """Quiet."""

    with HTTPServer(("127.0.0.1", 0), Handler) as made:
        thread = threading.Thread(target=made.serve_forever)
        thread.start()
        yield made
        made.shutdown()
        thread.join()


def test_an_mlflow_server_that_will_not_do(ask: Examine, server: HTTPServer, monkeypatch: pytest.MonkeyPatch) -> None:
    place = f"127.0.0.1:{server.server_port}"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://{place}/")
    server.answers = {"/health": (200, b"OK"), "/version": (403, b"Invalid Host header")}  # type: ignore[attr-defined]
    (found,) = ask("mlflow")
    assert (found.state, found.fix) == ("fail", f"start it with --allowed-hosts {place}")
    server.answers = {"/health": (200, b"OK"), "/version": (200, b"2.9.0")}  # type: ignore[attr-defined]
    (found,) = ask("mlflow")
    assert found.state == "warn"
    assert "is version 2.9.0" in found.message


@pytest.mark.parametrize(
    ("uri", "state", "said"),
    [
        ("sqlite:///{place}/there.db", "ok", "exists"),
        ("sqlite:///{place}/new.db", "ok", "will be created"),
        ("sqlite:///{place}/no/such/folder/new.db", "fail", "there is no folder {place}/no/such/folder"),
        ("sqlite:///{place}", "fail", "cannot be written"),
        ("sqlite://", "fail", "names no file"),
        ("./mlruns", "fail", "is a folder, which MLflow no longer supports"),
        ("file:///{place}/mlruns", "fail", "is a folder, which MLflow no longer supports"),
        ("htp://127.0.0.1:5000", "fail", "is not an address that MLflow knows"),
        ("databricks", "warn", "cannot be checked from here"),
        ("databricks://profile", "warn", "cannot be checked from here"),
        ("postgresql+nosuchdriver://127.0.0.1:1/x", "fail", "needs the package nosuchdriver"),
    ],
)
def test_where_runs_would_go(uri: str, state: str, said: str, ask: Examine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "there.db").write_bytes(b"")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri.format(place=tmp_path))
    found = ask("mlflow")[0]
    assert (found.state, found.message.count(said.format(place=tmp_path))) == (state, 1), found.message
    assert not (tmp_path / "new.db").exists()


@pytest.mark.parametrize(
    ("name", "address", "port"),
    [
        ("MLFLOW_TRACKING_URI", "mysql+pymysql://127.0.0.1/x", 3306), ("MLFLOW_TRACKING_URI", "postgresql://127.0.0.1/x", 5432),
        ("RAY_ADDRESS", "ray://127.0.0.1", 10001), ("RAY_ADDRESS", "127.0.0.1", 6379),
    ],
)  # fmt: skip
def test_an_address_without_a_port_means_the_usual_one(
    name: str, address: str, port: int, ask: Examine, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []
    monkeypatch.setattr(checks.socket, "create_connection", lambda place, timeout: asked.append(place) or socket.socket())
    monkeypatch.setattr(checks, "find_spec", lambda _: object())
    monkeypatch.setenv(name, address)
    assert [found.state for found in ask("ray" if name.startswith("RAY") else "mlflow")] == ["ok"]
    assert asked == [("127.0.0.1", port)]


def test_auto_means_a_cluster_of_this_host(ask: Examine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "auto")
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path))
    (found,) = ask("ray")
    assert (found.state, found.message) == ("fail", "RAY_ADDRESS=auto, and no cluster runs on this host")
    with socket.create_server(("127.0.0.1", 0)) as server:
        (tmp_path / "ray").mkdir()
        (tmp_path / "ray" / "ray_current_cluster").write_text(f"127.0.0.1:{server.getsockname()[1]}")
        assert [found.state for found in ask("ray")] == ["ok"]
    assert [found.state for found in ask("ray")] == ["fail"]
    monkeypatch.setenv("RAY_ADDRESS", "local")
    monkeypatch.delenv("RAY_TMPDIR")
    assert [found.message for found in ask("ray")] == ["embedded, on loopback, with a token that only this user's run knows"]


def test_no_password_is_shown(ask: Examine, monkeypatch: pytest.MonkeyPatch) -> None:
    for address in ("http://ann:geheim@127.0.0.1:1", "postgresql://ann:geheim@127.0.0.1:1/mlflow"):
        monkeypatch.setenv("MLFLOW_TRACKING_URI", address)
        (found,) = ask("mlflow")
        assert found.state == "fail"
        assert "geheim" not in describe(found)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    server = Server(tmp_path_factory.mktemp("s3") / "log")
    yield server
    server.end()


def test_a_bucket(place: Path, store: Server, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in store.environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr("service.inspection.doctor.CHECKS", (checks.storage, checks.mlflow))
    url = store.bucket("doctor-test")
    assert main(["doctor", "--storage", f"{url}/some"]) == 0
    out = capsys.readouterr().out
    assert "ok    storage: s3://doctor-test/some is writable and supports conditional writes" in out
    assert "warn  MLflow: embedded, so each host has its own" in out
    assert store.client().list_objects_v2(Bucket="doctor-test")["KeyCount"] == 0
    assert main(["doctor", "--storage", "s3://no-such-bucket"]) == 1
    assert "fail  storage: s3://no-such-bucket: there is no such bucket" in capsys.readouterr().out
