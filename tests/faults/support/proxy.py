"""A small proxy before an MLflow server, with a mood: `well`, `down` (closes at once), `500`, `slow` (1 s), `silent` (never answers),
`only Basic dXNlcjpwYXNz` (401 unless the header Authorization is that), `reads` (403 for whatever changes something).

`python -m tests.faults.support.proxy PORT BACKEND MOOD_FILE`: the mood is read from the file at every request. `flapping` is another at
each request of a kind: MLflow's client tries every call twice, so some of each kind are made twice, and some given up that were made.
"""

from __future__ import annotations

import http.client
import re
import sys
import time
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

FLAPPING = ("lost", "well", "down", "lost", "500", *["well"] * 14)
SEEN = Counter[str]()  # requests while flapping, by kind


class Proxy(BaseHTTPRequestHandler):
    backend, mood_file = 0, Path()

    def answer(self) -> None:
        mood = self.mood_file.read_text()
        if mood == "flapping":
            kind = self.command + re.split(r"\?|/artifacts/", self.path)[0]
            mood = FLAPPING[SEEN[kind] % len(FLAPPING)]
            SEEN[kind] += 1
        else:
            SEEN.clear()
        content = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if mood == "down":
            self.close_connection = True
            return
        if mood == "silent":
            while self.mood_file.read_text() == "silent":
                time.sleep(0.1)
            self.close_connection = True
            return
        if mood.startswith("only ") and self.headers.get("Authorization") != mood.removeprefix("only "):
            self.send_error(401)
            return
        if mood == "reads" and self.command != "GET" and not self.path.endswith("/search"):
            self.send_error(403)
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
