"""A small proxy before an MLflow server, with a mood: `well`, `down` (closes at once), `500`, `slow` (1 s), `silent` (never answers).

`python -m tests.faults.proxy PORT BACKEND MOOD_FILE`: the mood is read from the file at every request; `flapping` draws one each time.
"""

from __future__ import annotations

import http.client
import itertools
import sys
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

FLAPPING = itertools.cycle(("well", "500", "well", "down", "lost"))


class Proxy(BaseHTTPRequestHandler):
    backend, mood_file = 0, Path()

    def answer(self) -> None:
        mood = self.mood_file.read_text()
        mood = next(FLAPPING) if mood == "flapping" else mood
        content = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if mood == "down":
            self.close_connection = True
            return
        if mood == "silent":
            while self.mood_file.read_text() == "silent":
                time.sleep(0.1)
            self.close_connection = True
            return
        if mood == "500":
            self.send_error(500)
            return
        if mood == "slow":
            time.sleep(1)
        there = http.client.HTTPConnection("127.0.0.1", self.backend, timeout=60)
        there.request(self.command, self.path, content, {k: v for k, v in self.headers.items() if k.lower() not in ("host", "connection")})
        found = there.getresponse()
        body = found.read()
        if mood == "lost":  # done, but nobody hears of it
            self.close_connection = True
            return
        self.send_response(found.status)
        for name, value in found.getheaders():
            if name.lower() not in ("content-length", "transfer-encoding", "connection", "date", "server"):
                self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = answer  # noqa: N815

    def log_message(self, *_: object) -> None: ...


if __name__ == "__main__":
    port, Proxy.backend, Proxy.mood_file = int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3])
    ThreadingHTTPServer(("127.0.0.1", port), Proxy).serve_forever()
