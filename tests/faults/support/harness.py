"""Real drivers, Ray nodes and servers as processes of their own, and how to find and kill what belongs to them."""

from __future__ import annotations

import contextlib
import ipaddress
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from .nursery import INJECT, ROOT

WORKER = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0")[2:])
PORTS = range(7200 + 100 * WORKER, 7300 + 100 * WORKER)  # outside those that Ray gives to workers
LONG = 600.0  # seconds after which a wait is a hang
# A machine with ten times more to do than it has processors is slow, not dead. What Ray allows for is in seconds:
PATIENT = {
    "RAY_gcs_rpc_server_connect_timeout_s": "120",  # 5: a process ends that has not reached the head by then
    "RAY_py_gcs_connect_timeout_s": "120",  # 30: the same of Python's
    "RAY_gcs_server_request_timeout_seconds": "300",  # 60
    "RAY_gcs_server_port_wait_time_s": "300",  # 30
    "RAY_worker_register_timeout_seconds": "600",  # 60: a worker that is being started
    "RAY_agent_register_timeout_ms": "600000",  # 100 s: a node's agents
    "RAY_health_check_timeout_ms": "60000",  # 10 s: a node's answer, whereas nobody answers for a dead one at once,
    "RAY_health_check_period_ms": "1000",  # 3 s: which is asked so often
    "RAY_health_check_failure_threshold": "15",  # 5: and so many times
}


class Process:
    """A command in a session of its own, with its output in a file."""

    def __init__(self, command: list[str], environment: dict[str, str], log: Path, folder: Path = ROOT, **more: str) -> None:
        self.log = log
        given = environment | {"PYTHONPATH": f"{ROOT}:{INJECT}", "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"} | more
        with log.open("w") as file:
            self._process = subprocess.Popen(
                command, cwd=folder, env=given, stdin=subprocess.DEVNULL, stdout=file, stderr=subprocess.STDOUT, start_new_session=True
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
        below = descendants(self.pid) if self.runs() else []
        for pid in [*below, self.pid] if self.runs() else []:
            kill(pid)
        self._process.wait()
        wait_for(lambda: not any(title(pid) for pid in below))


def driver(
    arguments: list[str], environment: dict[str, str], log: Path, folder: Path = ROOT, prefix: Sequence[str] = (), **more: str
) -> Process:
    """`winnow ...`; `prefix` runs it on another host."""
    return Process([*prefix, sys.executable, "-m", "service", *arguments], environment, log, folder, **(PATIENT | more))


def wait_for(what: Callable[[], Any], process: Process | None = None, seconds: float = LONG, every: float = 0.05) -> Any:
    """The first true value of `what`; fails where `process` ends before."""
    until = time.monotonic() + seconds
    while not (found := what()):
        assert process is None or process.runs(), process.out
        assert time.monotonic() < until, f"waited {seconds} s; {process.out if process else ''}"
        time.sleep(every)
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
    """Ray's processes below `roots` that train or are about to: `ray::ResourceTrainable.train`, not `ray::IDLE` or an agent."""
    return [pid for pid in descendants(*roots) if "Trainable" in title(pid).partition(" ")[0]]


def title(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
    except OSError:
        return ""


def handles(pid: int, number: int = signal.SIGTERM) -> bool:
    """Whether a process of ours has taken a signal; Python itself takes only SIGINT."""
    status = Path(f"/proc/{pid}/status").read_text()
    caught = next(line for line in status.splitlines() if line.startswith("SigCgt:"))
    return all(int(caught.split()[1], 16) >> (each - 1) & 1 for each in {signal.SIGTERM, number})


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
    """A raylet, with a head's servers where `address` is empty; `--block` keeps its processes below this one. `gpus` are numbers to Ray.

    `host`: its own address and the prefix of a command there, where it is not this host. `patience`: in place of PATIENT's values."""

    def __init__(
        self,
        environment: dict[str, str],
        log: Path,
        *,
        number: int = 0,
        address: str = "",
        cpus: int = 1,
        gpus: int = 0,
        home: Path = ROOT,
        host: tuple[str, Sequence[str]] | None = None,
        patience: Mapping[str, str] | None = None,
    ) -> None:
        # Loopback, and not what Ray would take for localhost and replace by the machine's address.
        own, prefix = host or (f"127.0.0.{number + 2}", ())
        self.folder = tempfile.mkdtemp(prefix="wf", dir="/tmp")  # short: sockets lie in it
        ports = free_ports(6)
        self.address, self.dashboard = address or f"{own}:{ports[0]}", f"http://127.0.0.1:{ports[1]}"
        place = ["--address", address, *([f"--temp-dir={self.folder}"] if host else [])]
        if not address:
            place = [
                "--head",
                f"--port={ports[0]}",
                f"--include-dashboard={'false' if host else 'true'}",  # it answers on loopback
                f"--dashboard-port={ports[1]}",
                f"--temp-dir={self.folder}",
            ]
        command = [*prefix, str(Path(sys.executable).with_name("ray")), "start", "--block"]
        command += [f"--node-ip-address={own}", f"--num-cpus={cpus}", f"--num-gpus={gpus}"]
        # Given: a raylet that has to ask its agents for them gives up after 15 seconds, which a busy machine takes to start them.
        agents = ("dashboard-agent-grpc-port", "dashboard-agent-listen-port", "metrics-export-port", "runtime-env-agent-port")
        command += [f"--{name}={port}" for name, port in zip(agents, ports[2:], strict=True)]
        more = PATIENT | {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "1", "RAY_worker_niceness": "0"} | dict(patience or {})
        command += ["--disable-usage-stats", "--object-store-memory=100000000", *place]
        super().__init__(command, environment, log, home, **more)

    def log_of(self, job: str) -> str:
        """What the driver of a job has said, where this is the head."""
        return "".join(path.read_text(errors="replace") for path in Path(self.folder).glob(f"session_2*/logs/job-driver-{job}.log"))

    def kill(self) -> None:
        """All of the node at once, as when its machine dies."""
        self.end()

    def end(self) -> None:
        super().end()
        shutil.rmtree(self.folder, ignore_errors=True)


def node(environment: dict[str, str], log: Path, started: list[Process], **more: Any) -> RayNode:
    """A running node. `ray start` gives up after 30 seconds, which no setting changes, so it is tried again."""
    for _ in range(8):
        found = RayNode(environment, log, **more)
        started.append(found)
        wait_for(lambda found=found: "Ray runtime started" in found.out or not found.runs())
        if found.runs():
            return found
        found.end()
    raise AssertionError(found.out)


class Jobs:
    """Ray's job server: `ray job submit`, and its Jobs API for what is asked often or timed."""

    def __init__(self, head: RayNode, environment: dict[str, str], token: str) -> None:
        self._head, self._environment, self._token = head, environment, token

    def submit(self, id: str, *words: str, **more: str) -> subprocess.CompletedProcess[str]:
        command = [str(Path(sys.executable).with_name("ray")), "job", "submit", "--no-wait", "--address", self._head.dashboard]
        command += ["--submission-id", id, "--", *words]
        return subprocess.run(command, cwd=ROOT, env=self._environment | more, capture_output=True, text=True, check=False, timeout=LONG)

    def status(self, id: str) -> str:
        return str(json.loads(self._ask(id))["status"])

    def runs(self, id: str) -> bool:
        return self.status(id) in ("PENDING", "RUNNING")

    def stop(self, id: str) -> None:
        self._ask(f"{id}/stop", b"")

    def _ask(self, path: str, content: bytes | None = None) -> bytes:
        headers = {"Authorization": f"Bearer {self._token}"}
        request = urllib.request.Request(f"{self._head.dashboard}/api/jobs/{path}", content, headers)
        with urllib.request.urlopen(request, timeout=LONG) as answer:
            return bytes(answer.read())


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
