"""`winnow report --watch`: a page on loopback that is remade while its sweep runs."""

from __future__ import annotations

import itertools
import math
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from service.__main__ import main
from service.results.watch import Server, _seen
from service.tracking.runs import Tracking
from tests.service.results.report.browser.chromium import browser
from tests.service.results.report.conftest import scores, trial
from tests.service.results.report.study import ship, spool

# The command itself, looking at MLflow twice a second.
PROGRAM = (
    "import sys; from service.results import watch; watch.EVERY, watch.SHARE = .5, .9; from service.__main__ import main; sys.exit(main())"
)
PATIENCE = 240  # seconds: it ends by itself long before on any machine that is not stuck


def asked(address: str, method: str = "GET", host: str = "") -> tuple[str, str]:
    """The body and its version."""
    request = urllib.request.Request(address, method=method, headers={"Host": host} if host else {})
    with urllib.request.urlopen(request, timeout=PATIENCE) as answer:
        return answer.read().decode(), answer.headers["ETag"]


def until(true: Callable[[], bool]) -> None:
    begun = time.monotonic()
    while not true():
        assert time.monotonic() - begun < PATIENCE
        time.sleep(0.2)


def test_the_page_is_renewed_with_the_sweep_and_the_command_ends_with_ctrl_c(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    storage = tmp_path / "storage"
    storage.mkdir()
    dense, pruned = trial("dense", 0.0, 0), trial("snip", 0.95, 0)
    first = (dense, spool(storage, dense, scores(80.0)))
    ship(storage, "smoke", [first, (pruned, "planned")], Tracking(storage))
    words = [sys.executable, "-c", PROGRAM, "report", "smoke", "--watch", "--storage", str(storage)]
    process = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=os.environ | {"PYTHONUNBUFFERED": "1"})
    try:
        assert process.stdout
        assert "1 of 2 trials with a last score" in process.stdout.readline()
        address = process.stdout.readline().split()[0]
        assert address.startswith("http://127.0.0.1:")
        page, version = asked(address)
        assert ("1 of 2 trials with a last score" in page, "connect-src 'self'" in page, f"data-live='{version[1:-1]}'" in page) == (
            True,
        ) * 3
        assert asked(address, "HEAD") == ("", version)
        client, parent = Tracking(storage)._connected(), Tracking(storage).sweeps()["smoke"]
        client.delete_run(parent)
        assert process.stderr
        assert "not renewed: the run of sweep 'smoke' was deleted" in next(line for line in process.stderr if "reading MLflow" not in line)
        assert asked(address, "HEAD") == ("", version), "the page stays as it was"
        client.restore_run(parent)
        for wrong, host in ((f"{address}table.txt", ""), (address, "evil.example")):
            with pytest.raises(urllib.error.HTTPError):
                asked(wrong, host=host)
        ship(storage, "smoke", [first, (pruned, spool(storage, pruned, scores(79.0)))], Tracking(storage))
        until(lambda: asked(address, "HEAD")[1] != version)
        assert "2 of 2 trials with a last score" in asked(address)[0]
        assert any("2 of 2 trials" in line for line in process.stdout), "which is said once the page is there"
        kept = (storage / "reports" / "smoke" / "page.html").read_text()
        assert "data-live" not in kept.partition("<script>")[0].partition("<body")[2], "the file asks no server"
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=PATIENCE)
    finally:
        process.kill()
    assert (process.returncode, errors.splitlines()[-1]) == (130, "interrupted")


def test_a_trial_that_fails_is_news_as_one_that_scores(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    storage, own, seen = tmp_path / "storage", trial("snip", 0.95, 0), []
    storage.mkdir()
    for curve in ({250: [50.0]}, {250: [50.0]}, {250: [50.0], 500: [60.0]}, {250: [50.0], 500: [60.0], 750: [math.nan]}):
        ship(storage, "smoke", [(own, spool(storage, own, curve))], Tracking(storage))
        seen.append(_seen(["smoke"], Tracking(storage)))
    assert [one != other for one, other in itertools.pairwise(seen)] == [False, True, True]


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--watch", "--port", "PORT"], "error: --port PORT is in use on 127.0.0.1; give another, or leave it out for one that is free"),
        (["--port", "8000"], "error: --port 8000 is where --watch serves the page; give both, or neither"),
        (["--watch", "--port", "70000"], "'70000' is not a port from 1 to 65535"),
    ],
)
def test_ports_that_cannot_be_are_told_in_one_line(
    arguments: list[str], told: str, storage: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        number = str(taken.getsockname()[1])
        words = ["report", "smoke", "--storage", str(storage), *(word.replace("PORT", number) for word in arguments)]
        try:
            code = main(words)
        except SystemExit as ended:
            code = ended.code
    assert code == 2
    assert told.replace("PORT", number) in capsys.readouterr().err.splitlines()[-1]


@pytest.fixture
def server(made: Path) -> Iterator[Server]:
    with Server(0) as found:
        found.show((made / "page.html").read_text())
        threading.Thread(target=found.serve_forever, daemon=True).start()
        yield found
        found.shutdown()


@pytest.mark.browser
def test_a_page_that_loads_itself_anew_stays_sorted_and_filtered(server: Server, made: Path, tmp_path: Path) -> None:
    table = "[...document.querySelectorAll('table.sortable')].find(each => each.rows[0].cells[1].textContent === 'cell')"
    rows = f"[...{table}.rows].slice(1).filter(row => !row.hidden).map(row => row.cells[1].textContent).join()"
    with browser(tmp_path) as page:
        page.go(server.address)
        headings = page.evaluate(f"[...{table}.rows[0].cells].map(cell => cell.textContent)")
        column = max(number for number, text in enumerate(headings) if text in headings[:number])
        page.evaluate(f"{table}.rows[0].cells[{column}].click(); {table}.rows[0].cells[{column}].click()")
        field = f"{table}.parentElement.previousElementSibling"
        page.evaluate(f"{field}.value = 'hopper'; {field}.dispatchEvent(new Event('input')); {field}.focus()")
        before = page.evaluate(rows)
        server.show((made / "page.html").read_text().replace("<h1>", "<h1>renewed "))
        until(
            lambda: bool(
                page.evaluate("document.readyState === 'complete' && document.querySelector('h1').textContent.startsWith('renewed')")
            )
        )
        assert page.evaluate(rows) == before
        assert page.evaluate(f"{table}.rows[0].cells[{column}].getAttribute('aria-sort') + {field}.value") == "descendinghopper"
        assert page.evaluate(f"document.activeElement === {field}")
        assert page.told == []
