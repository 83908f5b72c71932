"""A PostgreSQL server that can be killed and started again."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Any

from .harness import descendants, free_ports, kill, wait_for

PROGRAMS = next((path.parent for path in sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), reverse=True)), None)


class Postgres:
    """A server on loopback with its data in a folder of its own."""

    def __init__(self) -> None:
        assert PROGRAMS
        self._folder, (self._port,) = Path(tempfile.mkdtemp(prefix="wpg", dir="/tmp")), free_ports(1)
        user = pwd.getpwnam("nobody") if os.getuid() == 0 else None  # PostgreSQL refuses to be root
        self._owner: dict[str, Any] = {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []} if user else {}
        if user:
            os.chown(self._folder, user.pw_uid, user.pw_gid)
        self._run("initdb", "-D", str(self._folder / "data"), "--username=winnow", "--auth=trust", "--no-sync", "--locale=C", "-E", "UTF8")
        self.start()

    def start(self) -> None:
        assert PROGRAMS
        settings = [f"port={self._port}", "listen_addresses=127.0.0.1", f"unix_socket_directories={self._folder}"]
        words = [str(PROGRAMS / "postgres"), "-D", str(self._folder / "data"), *(word for text in settings for word in ("-c", text))]
        with (self._folder / "log").open("a") as log:
            self._process = subprocess.Popen(words, cwd="/", stdout=log, stderr=log, start_new_session=True, **self._owner)
        wait_for(lambda: self._run("pg_isready", *self._place(), check=False) == 0)

    def kill(self) -> None:
        """SIGKILL to the server and all its processes, as when its machine loses power."""
        for pid in [self._process.pid, *descendants(self._process.pid)]:
            kill(pid)
        self._process.wait()

    def database(self, name: str, like: str = "template0") -> str:
        """The address of a new database, a copy of `like`."""
        self._run("createdb", *self._place(), "-T", like, name)
        return self.address(name)

    def address(self, name: str) -> str:
        return f"postgresql://winnow@127.0.0.1:{self._port}/{name}"

    def end(self) -> None:
        self.kill()
        shutil.rmtree(self._folder)

    def _place(self) -> list[str]:
        return ["--host=127.0.0.1", f"--port={self._port}", "--username=winnow"]

    def _run(self, program: str, *words: str, check: bool = True) -> int:
        assert PROGRAMS
        return subprocess.run([PROGRAMS / program, *words], cwd="/", check=check, stdout=subprocess.DEVNULL, **self._owner).returncode
