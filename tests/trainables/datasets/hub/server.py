"""A Hugging Face Hub on loopback: as much of its HTTP as Minari's client speaks, over a folder of Minari datasets.

As there, a repository is the first name of an id, small files come from the hub itself and HDF5 files from another host.
"""

from __future__ import annotations

import hashlib
import json
import threading
from collections import defaultdict
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, cast
from urllib.parse import parse_qs, unquote, urlsplit

AUTHOR = "farama-minari"
COMMIT = "c0ffee" + 34 * "0"
NAMESPACE = "namespace_metadata.json"


class Hub(ThreadingHTTPServer):
    """Serves from the constructor to `end`; `environment` leads clients to it, `asked` is what they asked for."""

    daemon_threads = True

    def __init__(self, folder: Path, home: Path) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.repositories = _repositories(folder)
        self.asked: list[str] = []
        self.trouble: list[str] = []  # for the next deliveries of data, one each: "cut" in the middle, or "down"
        self.environment = {
            "HF_ENDPOINT": f"http://127.0.0.1:{self.server_port}", "HF_HOME": str(home), "NO_PROXY": "localhost,127.0.0.1",
            "HF_HUB_DISABLE_TELEMETRY": "1",
        }  # fmt: skip
        self._thread = threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.01})
        self._thread.start()

    def end(self) -> None:
        self.shutdown()
        self._thread.join()
        self.server_close()


def _repositories(folder: Path) -> dict[str, dict[str, bytes]]:
    """The files of each repository, and those that list a namespace's datasets and the namespaces below it."""
    found: dict[str, dict[str, bytes]] = defaultdict(dict)
    listed: dict[str, dict[str, list[str]]] = defaultdict(lambda: {"datasets": [], "namespaces": []})
    for metadata in sorted(folder.rglob("data/metadata.json")):
        dataset = metadata.parents[1]
        repository, *names = dataset.relative_to(folder).parts
        for path in dataset.rglob("*"):
            if path.is_file():
                found[repository][path.relative_to(folder / repository).as_posix()] = path.read_bytes()
        listed[repository]["datasets"].append("/".join([repository, *names]))
        for depth in range(1, len(names)):
            listed[repository]["namespaces"].append("/".join([repository, *names[:depth]]))
            found[repository]["/".join([*names[:depth], NAMESPACE])] = b"{}"
    for repository, lists in listed.items():
        found[repository][NAMESPACE] = json.dumps(lists).encode()
    return found


class _Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        hub, url = cast(Hub, self.server), urlsplit(self.path)
        hub.asked.append(f"{self.command} {url.path}")
        match [unquote(part) for part in url.path.split("/")[1:]]:
            case ["api", "datasets"]:
                query = parse_qs(url.query)
                names = [name for name in hub.repositories if query["search"][0] in name] if "search" in query else hub.repositories
                self._json([{"id": f"{AUTHOR}/{name}"} for name in names if query["author"] == [AUTHOR]])
            case ["api", "datasets", author, name]:
                self._json({"id": f"{author}/{name}", "sha": COMMIT, "cardData": {"license": "mit"}})
            case ["api", "datasets", author, name, "revision", "main"]:
                self._json({"id": f"{author}/{name}", "sha": COMMIT})
            case ["api", "datasets", _, name, "tree", _]:
                files = hub.repositories[name].items()
                self._json([{"type": "file", "path": path, "size": len(held), "oid": _etag(held)} for path, held in files])
            case ["datasets", _, name, "resolve", _, *path]:
                held = hub.repositories[name].get("/".join(path))
                if held is None:
                    self._answer(404, {"X-Error-Code": "EntryNotFound", "X-Repo-Commit": COMMIT})
                elif path[-1].endswith(".hdf5"):
                    elsewhere = f"http://localhost:{hub.server_port}/data/{name}/{'/'.join(path)}"
                    linked = {"Location": elsewhere, "X-Linked-Size": str(len(held)), "X-Linked-ETag": f'"{_etag(held)}"'}
                    self._answer(302, linked | {"X-Repo-Commit": COMMIT})
                else:
                    self._answer(200, {"ETag": f'"{_etag(held)}"', "X-Repo-Commit": COMMIT}, held)
            case ["data", name, *path]:
                trouble = hub.trouble.pop(0) if hub.trouble else ""
                if trouble == "down":
                    self._answer(500, {})
                else:
                    self._answer(200, {}, hub.repositories[name]["/".join(path)], cut=trouble == "cut")
            case _:
                self._answer(404, {})

    do_HEAD = do_GET  # noqa: N815 - http.server's name

    def _json(self, value: Any) -> None:
        self._answer(200, {"Content-Type": "application/json"}, json.dumps(value).encode())

    def _answer(self, status: int, headers: dict[str, str], body: bytes = b"", cut: bool = False) -> None:
        self.send_response(status)
        for name, value in (headers | {"Content-Length": str(len(body))}).items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body[: len(body) // 2] if cut else body)

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing: `asked` holds it."""


def _etag(held: bytes) -> str:
    return hashlib.sha256(held).hexdigest()
