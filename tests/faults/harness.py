"""Real drivers, Ray nodes and servers as processes of their own, and how to find and kill what belongs to them."""

from __future__ import annotations

import contextlib
import ipaddress
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from .nursery import HERE, ROOT

PORTS = range(7200, 7300)  # outside those that Ray gives to workers
LONG = 300.0  # seconds after which a wait is a hang


class Process:
    """A command in a session of its own, with its output in a file."""

    def __init__(self, command: list[str], environment: dict[str, str], log: Path, **more: str) -> None:
        self.log = log
        given = (
            environment | {"PYTHONPATH": f"{ROOT}:{HERE / 'inject'}", "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"} | more
        )
        with log.open("w") as file:
            self._process = subprocess.Popen(
                command, cwd=ROOT, env=given, stdin=subprocess.DEVNULL, stdout=file, stderr=subprocess.STDOUT, start_new_session=True
            )
        self.pid = self._process.pid

    @property
    def out(self) -> str:
        return self.log.read_text(errors="replace")

    def runs(self) -> bool:
        return self._process.poll() is None

    def signal(self, number: int) -> None:
        self._process.send_signal(number)

    def kill(self) -> None:
        self.signal(signal.SIGKILL)
        self._process.wait()

    def wait(self, seconds: float = LONG) -> int:
        return self._process.wait(seconds)

    def end(self) -> None:
        """Leave nothing of it, whatever state it is in."""
        if self.runs():
            for pid in [*descendants(self.pid), self.pid]:
                kill(pid)
            self._process.wait()


def driver(arguments: list[str], environment: dict[str, str], log: Path, **more: str) -> Process:
    """`python -m service ...`."""
    return Process([sys.executable, "-m", "service", *arguments], environment, log, **more)


def wait_for(what: Callable[[], Any], process: Process | None = None, seconds: float = LONG) -> Any:
    """The first true value of `what`; fails where `process` ends before."""
    until = time.monotonic() + seconds
    while not (found := what()):
        assert process is None or process.runs(), process.out
        assert time.monotonic() < until, f"waited {seconds} s; {process.out if process else ''}"
        time.sleep(0.05)
    return found


def kill(pid: int, number: int = signal.SIGKILL) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)


def descendants(*roots: int) -> list[int]:
    """The processes below `roots`, as /proc tells."""
    children: dict[int, list[int]] = {}
    for pid, parent in _parents():
        children.setdefault(parent, []).append(pid)
    found, left = [], list(roots)
    while left:
        below = children.get(left.pop(), [])
        found += below
        left += below
    return found


def workers(*roots: int) -> list[int]:
    """Ray's processes below `roots` that train or are about to."""
    return [pid for pid in descendants(*roots) if (name := title(pid)).startswith("ray::") and not name.startswith("ray::IDLE")]


def title(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
    except OSError:
        return ""


def raylet(root: int) -> int:
    (found,) = [pid for pid in descendants(root) if title(pid).split(" ")[0].endswith("/raylet")]
    return found


def open_to_others(pids: list[int]) -> set[str]:
    """The addresses other than loopback at which processes accept connections."""
    inodes = set()
    for pid in pids:
        for file in _files(pid):
            if file.startswith("socket:["):
                inodes.add(file[8:-1])
    found = set()
    for kind, family in (("tcp", socket.AF_INET), ("tcp6", socket.AF_INET6)):
        for line in Path(f"/proc/net/{kind}").read_text().splitlines()[1:]:
            fields = line.split()
            if fields[3] == "0A" and fields[9] in inodes:
                words = bytes.fromhex(fields[1].split(":")[0])
                address = b"".join(words[i : i + 4][::-1] for i in range(0, len(words), 4))
                found.add(socket.inet_ntop(family, address).removeprefix("::ffff:"))
    return {address for address in found if not ipaddress.ip_address(address).is_loopback}


def free_ports(count: int) -> list[int]:
    found: list[int] = []
    for port in PORTS:
        with socket.socket() as probe, contextlib.suppress(OSError):
            if len(found) < count:
                probe.bind(("", port))
                found.append(port)
    assert len(found) == count
    return found


class RayNode(Process):
    """A raylet, with a head's servers where `address` is empty; `--block` keeps its processes below this one."""

    def __init__(self, environment: dict[str, str], log: Path, number: int = 0, address: str = "", cpus: int = 1) -> None:
        own = f"127.0.0.{number + 2}"  # loopback, and not what Ray would take for localhost and replace by the machine's address
        self.folder = tempfile.mkdtemp(prefix="wf", dir="/tmp")  # short: sockets lie in it
        ports = free_ports(6)
        self.address, self.dashboard = address or f"{own}:{ports[0]}", f"http://127.0.0.1:{ports[1]}"
        place = ["--address", address]
        if not address:
            place = [
                "--head",
                f"--port={ports[0]}",
                "--include-dashboard=true",
                f"--dashboard-port={ports[1]}",
                f"--temp-dir={self.folder}",
            ]
        command = [str(Path(sys.executable).with_name("ray")), "start", "--block", f"--node-ip-address={own}", f"--num-cpus={cpus}"]
        # Given: a raylet that has to ask its agents for them gives up after 15 seconds, which a busy machine takes to start them.
        agents = ("dashboard-agent-grpc-port", "dashboard-agent-listen-port", "metrics-export-port", "runtime-env-agent-port")
        command += [f"--{name}={port}" for name, port in zip(agents, ports[2:], strict=True)]
        more = {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "1", "RAY_worker_niceness": "0"}
        super().__init__([*command, "--disable-usage-stats", "--object-store-memory=100000000", *place], environment, log, **more)

    def kill(self) -> None:
        """All of the node at once, as when its machine dies."""
        self.end()

    def end(self) -> None:
        super().end()
        shutil.rmtree(self.folder, ignore_errors=True)


def _parents() -> Iterator[tuple[int, int]]:
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            yield int(folder.name), int((folder / "stat").read_text().rpartition(")")[2].split()[1])
        except (OSError, IndexError):
            continue


def _files(pid: int) -> list[str]:
    try:
        return [os.readlink(path) for path in Path(f"/proc/{pid}/fd").iterdir()]
    except OSError:
        return []
