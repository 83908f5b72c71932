from __future__ import annotations

import contextlib
import json
import threading
import time
from collections.abc import Iterator
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from service.__main__ import main
from service.tracking.connection import OneLineErrors, TrackingError, client_class, pages
from service.tracking.experiment import check_address
from service.tracking.runs import Tracking
from trainables.errors import UserError

RUNS, WAIT = 1100, 6.0


class Busy(BaseHTTPRequestHandler):
    """A server of MLflow's protocol that is too slow for more than `at_most` runs in an answer."""

    at_most, asked = 0, list[tuple[int, int]]()

    def do_POST(self) -> None:
        question = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        size, start = int(question["max_results"]), int(question.get("page_token") or 0)
        self.asked.append((start, size))
        if size > self.at_most:
            time.sleep(WAIT)
        runs = [{"info": {"run_id": str(number), "experiment_id": "1"}} for number in range(start, min(RUNS, start + size))]
        content = json.dumps({"runs": runs, "next_page_token": str(start + size) if start + size < RUNS else ""}).encode()
        with contextlib.suppress(OSError):  # who has asked waits no longer
            self.send_response(200)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

    def log_message(self, *said: object) -> None: ...


@pytest.fixture
def search(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "1")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    Busy.asked.clear()
    server = ThreadingHTTPServer(("127.0.0.1", 0), Busy)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    client = OneLineErrors(client_class()(tracking_uri=f"http://127.0.0.1:{server.server_port}"))
    yield partial(client.search_runs, ["1"])
    server.shutdown()
    server.server_close()


def test_a_server_that_is_late_is_asked_for_fewer_runs_at_once(search: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Busy, "at_most", 200)
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "3")  # a second is too little for all answers of a busy machine
    assert [run.info.run_id for run in pages(search)] == [str(number) for number in range(RUNS)]
    assert Busy.asked == [(0, 1000), *((start, 200) for start in range(0, RUNS, 200))]


def test_one_that_never_answers_is_asked_three_times(search: Any) -> None:
    with pytest.raises(TrackingError, match="ReadTimeoutError"):
        list(pages(search))
    assert Busy.asked == [(0, 1000), (0, 200), (0, 40)]


@pytest.mark.parametrize("uri", ["./mlruns", "file:///mlruns", "htp://127.0.0.1:5000", "http://[127.0.0.1"])
def test_an_address_that_mlflow_cannot_use_is_one_line_before_anything_is_started(
    uri: str, tmp_path: Path, hopper: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    assert main(["run", "smoke", "--set", f"datasets={hopper}", "--storage", str(tmp_path / "storage")]) == 2
    said = capsys.readouterr().err.splitlines()[-1]
    assert said.startswith(f"error: MLFLOW_TRACKING_URI {uri!r} is ")
    assert said.endswith("; set http://HOST:PORT, sqlite:////FOLDER/mlflow.db, postgresql://USER:PASSWORD@HOST/DATABASE, or unset it")
    assert not (tmp_path / "storage").exists()
    with pytest.raises(UserError, match="; set http://HOST:PORT, "):
        Tracking(tmp_path).sweeps()


def test_a_store_of_an_installed_package_may_have_an_address_of_its_own(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "theirs://place")
    monkeypatch.setattr("service.tracking.experiment.entry_points", lambda group, name: [object()] * (name == "theirs"))
    check_address(tmp_path)
