"""`winnow report --watch`: serves a report's page on loopback, and remakes it while the sweep runs."""

from __future__ import annotations

import errno
import hashlib
import sys
import threading
import time
from collections.abc import Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from service.results.report.build import Made, make
from service.results.report.page import live
from service.spool.scores import RETURN, SCORE
from service.terminal.signals import blocked
from service.terminal.waiting import waiting
from service.tracking.connection import TrackingError
from service.tracking.runs import Tracking
from trainables.errors import UserError

HOST = "127.0.0.1"
NAMES = (HOST, "localhost")  # by which a browser here knows this server; any other name is a foreign site's
EVERY = 10.0  # seconds between two looks at MLflow
SHARE = 0.1  # of the time, at most, that goes into making the report anew


class Server(ThreadingHTTPServer):
    """Serves one page at `/`. Raises UserError, in one line, for a port that cannot be had; 0 is a free one."""

    daemon_threads = True

    def __init__(self, port: int) -> None:
        self.shown = (b"", "")  # the page and its version
        try:
            super().__init__((HOST, port), Handler)
        except OSError as error:
            why = "is in use" if error.errno == errno.EADDRINUSE else f"cannot be had ({error.strerror})"
            raise UserError(f"--port {port} {why} on {HOST}; give another, or leave it out for one that is free") from None

    @property
    def address(self) -> str:
        return f"http://{HOST}:{self.server_port}/"

    def show(self, page: str) -> None:
        """Serve this page from now on."""
        version = hashlib.sha256(page.encode()).hexdigest()[:16]
        self.shown = (live(page, version).encode(), version)


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        self._answer(body=True)

    def do_HEAD(self) -> None:
        self._answer(body=False)

    def _answer(self, *, body: bool) -> None:
        if self.headers.get("Host", HOST).rsplit(":", 1)[0] not in NAMES:
            self.send_error(403)
            return
        if self.path != "/":
            self.send_error(404)
            return
        page, version = self.server.shown
        self.send_response(200)
        for name, value in {
            "Content-Type": "text/html; charset=utf-8",
            "Content-Length": str(len(page)),
            "Cache-Control": "no-store",
            "ETag": f'"{version}"',
        }.items():
            self.send_header(name, value)
        self.end_headers()
        if body:
            self.wfile.write(page)

    def log_message(self, format: str, *words: object) -> None:
        """Requests are nothing to tell."""


def watch(sweeps: Sequence[str], storage: Path, to: Path | None = None, style: str | None = None, port: int = 0) -> int:
    """Make the report, serve its page, and remake it whenever MLflow holds more, until Ctrl-C.

    MLflow is only read. Raises UserError for a port that is in use, and where there is nothing to report yet.
    """
    tracking = Tracking(storage)
    with Server(port) as server:
        begun = time.monotonic()
        seen = _seen(sweeps, tracking)
        with waiting("reading MLflow and drawing"):
            made = make(sweeps, tracking, storage, to, style)
        server.show(made.page)
        with blocked():
            threading.Thread(target=server.serve_forever, name="page", daemon=True).start()
        print(f"{_told(made)}\n{server.address}  (refreshed while the sweep runs; Ctrl-C ends it)", flush=True)
        while True:
            time.sleep(max(EVERY, (time.monotonic() - begun) * (1 / SHARE - 1)))
            begun = time.monotonic()
            try:
                if (now := _seen(sweeps, tracking)) == seen:
                    continue
                made, seen = make(sweeps, tracking, storage, to, style), now
            except (TrackingError, UserError) as error:  # the page stays as it was
                print(f"not renewed: {error}", file=sys.stderr, flush=True)
                continue
            server.show(made.page)
            print(_told(made), flush=True)


def _told(made: Made) -> str:
    runs = made.found.runs
    return f"{time.strftime('%H:%M:%S')}  {sum(run.done for run in runs)} of {len(runs)} trials with a last score: {made.folder}"


def _seen(sweeps: Sequence[str], tracking: Tracking) -> list[tuple[str, ...]]:
    """What MLflow shows of the sweeps' trials, as far as a report would change with it."""
    known = tracking.sweeps()
    rows = [row for sweep in sweeps if sweep in known for row in tracking.sweep_rows(sweep, known[sweep])]
    return sorted(
        (row.run_id, row.status, row.tags.get("winnow.state", ""), *(repr(row.metrics.get(name)) for name in (SCORE, RETURN)))
        for row in rows
    )
