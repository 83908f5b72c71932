"""The report where people will open it: in MLflow's own page, served by a real server, in a real browser (`make test-pages`)."""

from __future__ import annotations

import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from service.tracking.runs import Tracking
from tests.service.results.report.browser.chromium import browser

pytestmark = [pytest.mark.browser, pytest.mark.filterwarnings("ignore:.*noload.*:DeprecationWarning")]
SHOWN = (
    "[document.body?.innerText ?? '', document.readyState === 'complete', innerWidth, innerHeight, document.querySelectorAll('svg').length]"
)
PATIENCE = 600.0  # seconds for the server to start, and for its page to fetch and show an artifact


@pytest.fixture
def server(storage: Path, made: Path, tmp_path: Path) -> Iterator[str]:
    """The address of an MLflow server on the storage's database."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    words = ["--backend-store-uri", f"sqlite:///{storage / 'mlflow.db'}", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    process = subprocess.Popen(
        [sys.executable, "-m", "mlflow", "server", *words], cwd=tmp_path, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    address, until = f"http://127.0.0.1:{port}", time.monotonic() + PATIENCE
    try:
        while True:
            try:
                urllib.request.urlopen(f"{address}/health", timeout=5).close()
                break
            except OSError:
                assert process.poll() is None
                assert time.monotonic() < until
                time.sleep(0.5)
        yield address
    finally:
        process.terminate()
        process.wait(60)


def test_the_page_opens_among_the_artifacts_of_the_sweeps_run(server: str, storage: Path, tmp_path: Path) -> None:
    tracking = Tracking(storage)
    run = tracking.sweeps()["smoke"]
    with browser(tmp_path / "profile") as page:
        page.call("Emulation.setDeviceMetricsOverride", width=1500, height=900, deviceScaleFactor=1, mobile=False)
        page.go(f"{server}/{tracking.file_page(run, 'report/page.html')}")
        until, found = time.monotonic() + PATIENCE, []
        while not any("of 3 cells retain" in text and whole for text, whole, *_ in found):
            assert time.monotonic() < until, (found, page.evaluate("document.body.innerText"))
            time.sleep(1)
            found = page.frames(SHOWN)
        ((*_, width, height, figures),) = found
        assert width > 300
        assert height > 300
        assert figures >= 10
        page.evaluate("1")
        assert not [each for each in page.told if "blob:" in each], "MLflow shows it sandboxed, and nothing of it is refused"


@pytest.mark.parametrize("view", ["as it is", "of older code"])
def test_the_link_shows_the_sweeps_runs_and_no_others(view: str, server: str, storage: Path, tmp_path: Path) -> None:
    """Another sweep's runs are in the same experiment; without the sweep's own view the link filters by itself."""
    tracking = Tracking(storage)
    if view == "of older code":
        tracking._connected()._client._tracking_client.store.delete_experiment_tag(
            tracking._experiment, "mlflow.sharedViewState.winnow-smoke"
        )
    own = {row.tags["mlflow.runName"] for row in tracking.all_trials().values() if "winnow.sweep.smoke" in row.tags}
    others = {row.tags["mlflow.runName"] for row in tracking.all_trials().values()} - own
    assert len(own) > 5
    assert others
    with browser(tmp_path / "profile") as page:
        page.call("Emulation.setDeviceMetricsOverride", width=1500, height=1400, deviceScaleFactor=1, mobile=False)
        page.go(f"{server}/{tracking.page('smoke')}")
        until, text = time.monotonic() + PATIENCE, ""
        while f"{len(own)} matching runs" not in text.replace("\n", " ") or not any(name in text for name in own):
            assert time.monotonic() < until, text
            time.sleep(1)
            text = page.evaluate("document.body.innerText")
        assert not [name for name in others if name in text]
        assert ("mask/effective_density/actor" in text) == (view == "as it is"), "the columns"
