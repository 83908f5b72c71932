"""The stack of compose.yaml as plain processes on loopback, and a sweep through `ray job submit` on it: `make test-stack`.

Commands, environments and health checks are read from compose.yaml; only what must differ on one host without containers is changed
(`Twin`). The object store alone is another program: moto's S3 server. Needs PostgreSQL's programs (Debian: postgresql) and the extra [dev].
"""

from __future__ import annotations

import argparse
import contextlib
import os
import pwd
import re
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

import yaml

ROOT = Path(__file__).parents[2]
COMPOSE = ROOT / "docker" / "compose.yaml"
PATIENCE = 180.0  # seconds for a service to become healthy on a busy machine
OUTSIDE = ("AWS_", "RAY_", "MLFLOW_", "WINNOW_", "MINARI_", "PG", "POSTGRES_")  # variables of the caller's that must not get in
VARIABLE = re.compile(r"\$\{(\w+)(?::([-?])([^{}]*))?\}")
SWEEP = ["python", "-m", "service", "run", "smoke", "--checkpoint-every=100"]
TRIALS = 4  # of the sweep


def read(given: Mapping[str, str]) -> dict[str, Any]:
    """compose.yaml with its variables replaced, as `docker compose` does it; KeyError for one that is needed and not given."""

    def value(found: re.Match[str]) -> str:
        name, kind, text = found.groups()
        return given.get(name) or (text if kind == "-" else given[name])

    return dict(yaml.safe_load(VARIABLE.sub(value, COMPOSE.read_text())))


@dataclass(frozen=True)
class Command:
    """How a service runs: its words, its own environment and its health check (empty: it ends by itself)."""

    words: list[str]
    environment: dict[str, str]
    health: list[str]


class Twin:
    """compose.yaml's services at this host's addresses: ports from `port` on, files under `folder`."""

    def __init__(self, port: int, folder: Path, programs: Path) -> None:
        self.port, self.folder, self._programs = port, folder, programs
        self.store, self.mlflow, self.dashboard = (f"http://127.0.0.1:{port + offset}" for offset in (4, 1, 2))
        self.secrets = {name: secrets.token_hex(16) for name in ("RAY_AUTH_TOKEN", "POSTGRES_PASSWORD", "AWS_SECRET_ACCESS_KEY")}
        given = {**self.secrets, "AWS_ACCESS_KEY_ID": "winnow", "AWS_ENDPOINT_URL": self.store, "WINNOW_CPUS": "1"}
        self._services = read(given)["services"]
        # What the image sets; the rest of the caller's environment is as good as the container's.
        threads = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")
        places = {"MINARI_DATASETS_PATH": str(folder / "minari"), "WINNOW_CACHE": str(folder / "cache"), "HOME": str(folder)}
        kept = {name: value for name, value in os.environ.items() if not name.startswith(OUTSIDE)}
        path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
        self.environment = kept | threads | places | {"PATH": path, "PYTHONPATH": str(ROOT), "TMPDIR": str(folder)}

    def command(self, name: str, number: int = 1) -> Command:
        """Of the service `name`; `number` tells the workers apart."""
        service, port = self._services[name], self.port
        agent = port + 10 + 4 * {"head": 0}.get(name, number)
        moved = {
            "head:6379": f"127.0.0.2:{port}", "--port=6379": f"--port={port}",
            "http://mlflow:5000": self.mlflow, "127.0.0.1:5000": f"127.0.0.1:{port + 1}", "--port=5000": f"--port={port + 1}",
            "127.0.0.1:8265": f"127.0.0.1:{port + 2}", "--dashboard-port=8265": f"--dashboard-port={port + 2}",
            "postgres:5432": f"127.0.0.1:{port + 3}", "--port=5432": f"--port={port + 3}",
            "host=0.0.0.0": "host=127.0.0.1", "127.0.0.1:52365": f"127.0.0.1:{agent}",
            "/opt/winnow/buckets.py": str(ROOT / "docker" / "buckets.py"),
        }  # fmt: skip

        def here(text: str) -> str:
            for old, new in moved.items():
                text = text.replace(old, new)
            return text

        words = [here(str(word)) for word in service["command"]]
        environment = {name: here(str(value)) for name, value in service["environment"].items()}
        if words[0] == "ray":
            words += self._beside_each_other(name, number, agent)
            environment["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "1"  # whatever its name: raylets may be on addresses of loopback
        if name == "postgres":
            words[0] = str(self._programs / words[0])
            words += ["-D", str(self.folder / "postgres"), "-c", f"port={port + 3}", "-c", "listen_addresses=127.0.0.1"]
            words += ["-c", f"unix_socket_directories={self.folder / 'postgres'}"]
        if name == "objects":
            words = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port + 4)]
            return Command(words, {}, ["python", "-c", f"import urllib.request as u; u.urlopen('{self.store}/moto-api/')"])
        health = [here(word) for word in service.get("healthcheck", {}).get("test", ["CMD"])[1:]]
        if health[:1] == ["pg_isready"]:
            health[0] = str(self._programs / "pg_isready")
        return Command(words, environment, health)

    def _beside_each_other(self, name: str, number: int, agent: int) -> list[str]:
        """What raylets need that share a host: an address, ports and a folder of their own."""
        own = 2 if name == "head" else 2 + number  # not 127.0.0.1, which Ray would replace by the host's own address
        agents = ("dashboard-agent-listen-port", "dashboard-agent-grpc-port", "metrics-export-port", "runtime-env-agent-port")
        given = [f"--{flag}={agent + offset}" for offset, flag in enumerate(agents)]
        place = [f"--temp-dir={self.folder / 'ray'}"] if name == "head" else []
        return [f"--node-ip-address=127.0.0.{own}", *given, *place]


class Stack:
    """Running services; `end` leaves none of their processes."""

    def __init__(self, twin: Twin) -> None:
        self.twin, self._running = twin, []  # type: ignore[var-annotated]

    def start(self, name: str, number: int = 1, user: pwd.struct_passwd | None = None) -> None:
        """Start a service and wait until its health check passes; RuntimeError with its output where it does not."""
        command, log = self.twin.command(name, number), self.twin.folder / f"{name}{number}.log"
        environment = self.twin.environment | command.environment
        owner = {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []} if user else {}
        with log.open("w") as out:
            process = subprocess.Popen(
                command.words, env=environment, cwd=self.twin.folder, stdin=subprocess.DEVNULL, stdout=out, stderr=out, **owner
            )
        self._running.append(process)
        until = time.monotonic() + PATIENCE
        while subprocess.run(command.health, env=environment, capture_output=True, check=False).returncode:
            if process.poll() is not None or time.monotonic() > until:
                raise RuntimeError(f"{name} is not healthy:\n{log.read_text()[-3000:]}")
            time.sleep(0.5)

    def run(self, words: list[str], of: str = "head", **more: str) -> str:
        """The output of a command with the environment of a service; RuntimeError where it fails."""
        environment = self.twin.environment | self.twin.command(of).environment | more
        done = subprocess.run(words, env=environment, cwd=ROOT, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
        if done.returncode:
            raise RuntimeError(f"{' '.join(words)}: {done.returncode}\n{done.stdout[-3000:]}{done.stderr[-3000:]}")
        return done.stdout

    def end(self) -> None:
        """The youngest first: SIGTERM, and after ten seconds SIGKILL to it and to what it has started."""
        for process in reversed(self._running):
            below = list(_below(process.pid))
            process.send_signal(signal.SIGINT if process.args[0].endswith("postgres") else signal.SIGTERM)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(10)
            for pid, started in [*below, *_below(process.pid)]:
                if _started(pid) == started:
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(pid, signal.SIGKILL)
            process.kill()
            process.wait()


def main() -> int:
    """Start, sweep, check, end; 0 where all is as it should be."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--port", type=int, default=7500, help="the first of thirty that are free (default 7500)")
    port = parser.parse_args().port
    for number in range(port, port + 30):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(("127.0.0.1", number))
    folder = Path(tempfile.mkdtemp(prefix="ws"))  # short: sockets lie in it
    folder.chmod(0o711)  # PostgreSQL's user passes through
    stack = Stack(Twin(port, folder, _postgresql()))
    begun = time.monotonic()
    try:
        with timed("Postgres"):
            postgres(stack)
        with timed("object store and buckets"):
            stack.start("objects")
            stack.run(stack.twin.command("buckets").words, of="buckets")
        with timed("MLflow"):
            stack.start("mlflow")
        with timed("Ray head and two workers"):
            stack.start("head")
            stack.start("worker", 1)
            stack.start("worker", 2)
        with timed("sweep by ray job submit"):
            sweep(stack)
        with timed("checks"):
            check(stack)
    except RuntimeError as error:
        print(f"FAILED: {error}", file=sys.stderr)
        return 1
    finally:
        stack.end()
        shutil.rmtree(folder)
    print(f"the stack works: {time.monotonic() - begun:.0f} s")
    return 0


def postgres(stack: Stack) -> None:
    """As the image does it at its first start: a cluster with one user, who has a password, and one database."""
    twin, folder = stack.twin, stack.twin.folder / "postgres"
    user = pwd.getpwnam("nobody") if os.getuid() == 0 else None  # PostgreSQL refuses to be root
    owner = {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []} if user else {}
    folder.mkdir(mode=0o700)
    word = twin.folder / "word"
    word.write_text(twin.secrets["POSTGRES_PASSWORD"])
    if user:
        os.chown(folder, user.pw_uid, user.pw_gid)
        os.chown(word, user.pw_uid, user.pw_gid)
    programs = Path(twin.command("postgres").words[0]).parent
    initdb = [programs / "initdb", "-D", folder, "--username=mlflow", f"--pwfile={word}", "--auth=scram-sha-256", "--encoding=UTF8"]
    done = subprocess.run([*initdb, "--no-sync", "--locale=C"], cwd="/", capture_output=True, text=True, check=False, **owner)  # type: ignore[call-overload]
    word.unlink()
    if done.returncode:
        raise RuntimeError(f"initdb: {done.stderr}")
    stack.start("postgres", user=user)
    place = ["--host=127.0.0.1", f"--port={twin.port + 3}", "--username=mlflow"]
    stack.run([str(programs / "createdb"), *place, "mlflow"], of="postgres", PGPASSWORD=twin.secrets["POSTGRES_PASSWORD"])


def sweep(stack: Stack) -> None:
    """Record a little data on the shared path, then the sweep as a job."""
    record = ["python", "-m", "trainables.datasets.collect", "record", "winnow/hopper/random-v0", "--transitions", "2000"]
    stack.run(record)
    stack.run(["ray", "job", "submit", "--address", stack.twin.dashboard, "--working-dir", str(ROOT), "--", *SWEEP])


def check(stack: Stack) -> None:
    """What a user of the stack relies on; RuntimeError names what is not so."""
    twin, environment = stack.twin, stack.twin.command("head").environment
    stack.run(["python", "-m", "service", "verify", "smoke"])
    runs = stack.run(["python", "-c", RUNS, twin.mlflow]).split()
    needed = {
        "every trial is a finished run of MLflow": runs.count("FINISHED") >= TRIALS,
        "the artifacts are in the object store": "artifacts" in stack.run(["python", "-c", KEYS, "mlflow", "artifacts/"], of="mlflow"),
        "the sweep is in the object store": "sweeps" in stack.run(["python", "-c", KEYS, "winnow", "sweeps/heads/"]),
        "MLflow answers to the name that compose gives it": _status(f"{twin.mlflow}/version", Host="mlflow:5000") == 200,
        "MLflow refuses any other name": _status(f"{twin.mlflow}/version", Host="elsewhere.example") == 403,
        "Ray refuses who has no token": _status(f"{twin.dashboard}/api/jobs/") == 401,
        "Ray lets in who has it": _status(f"{twin.dashboard}/api/jobs/", Authorization=f"Bearer {environment['RAY_AUTH_TOKEN']}") == 200,
    }  # fmt: skip
    if wrong := [what for what, holds in needed.items() if not holds]:
        raise RuntimeError(f"not so: {'; '.join(wrong)}")


RUNS = """
import sys, mlflow
client = mlflow.MlflowClient(sys.argv[1])
found = client.search_runs([client.get_experiment_by_name("winnow").experiment_id], "tags.`winnow.kind` = 'trial'")
print(*(run.info.status for run in found))
"""
KEYS = """
import sys, boto3
bucket, prefix = sys.argv[1:]
print(*(item["Key"] for item in boto3.client("s3").list_objects_v2(Bucket=bucket, Prefix=prefix).get("Contents", [])))
"""


def _status(url: str, **headers: str) -> int:
    """The answer's code, whatever it is."""
    from urllib.error import HTTPError

    try:
        return int(urlopen(Request(url, headers=headers), timeout=20).status)
    except HTTPError as error:
        return error.code


def _postgresql() -> Path:
    """The folder of PostgreSQL's programs; leaves with a line where there are none."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    program = str(found[-1]) if found else shutil.which("initdb")
    if not program:
        raise SystemExit("no PostgreSQL here: apt-get install postgresql")
    return Path(program).parent


def _below(pid: int) -> Iterator[tuple[int, str]]:
    """The processes that `pid` has started, and theirs, with their times of start: numbers are given again."""
    with contextlib.suppress(OSError):
        for thread in Path(f"/proc/{pid}/task").iterdir():
            for child in map(int, (thread / "children").read_text().split()):
                yield child, _started(child)
                yield from _below(child)


def _started(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
    except OSError:
        return ""


@contextlib.contextmanager
def timed(what: str) -> Iterator[None]:
    begun = time.monotonic()
    print(f"{what} ...", flush=True)
    yield
    print(f"{what}: {time.monotonic() - begun:.0f} s", flush=True)


if __name__ == "__main__":
    sys.exit(main())
