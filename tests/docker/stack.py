"""The stack of compose.yaml as plain processes on loopback, and a sweep through `ray job submit` on it: `make test-stack`.

Commands, environments and health checks are read from compose.yaml; only what must differ on one host without containers is changed
(`Twin`). The object store alone is another program: moto's S3 server. Needs PostgreSQL's programs (Debian: postgresql) and the extra [dev].
"""

from __future__ import annotations

import argparse
import contextlib
import os
import pwd
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from urllib.request import Request, urlopen

from .twin import ROOT, Twin

PATIENCE = 180.0  # seconds for a service to become healthy on a busy machine
SWEEP = ["python", "-m", "service", "run", "smoke", "--checkpoint-every=100"]
TRIALS = 4  # of the sweep


class Stack:
    """Running services; `end` leaves none of their processes."""

    def __init__(self, twin: Twin) -> None:
        self.twin = twin
        self._running: dict[tuple[str, int], subprocess.Popen[bytes]] = {}

    def start(self, name: str, number: int = 1, user: pwd.struct_passwd | None = None) -> None:
        """Start a service and wait until its health check passes; RuntimeError with its output where it does not."""
        command, log = self.twin.command(name, number), self.twin.folder / f"{name}{number}.log"
        environment = self.twin.environment | command.environment
        owner = {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []} if user else {}
        with log.open("w") as out:
            process = subprocess.Popen(
                command.words, env=environment, cwd=self.twin.folder, stdin=subprocess.DEVNULL, stdout=out, stderr=out, **owner
            )
        self._running[name, number] = process
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

    def die(self, name: str, number: int = 1) -> None:
        """A service and all that it has started get SIGKILL."""
        _kill(self._running.pop((name, number)))

    def end(self) -> None:
        """The youngest first: SIGTERM, and after ten seconds SIGKILL to it and to what it has started."""
        for (name, _), process in reversed(self._running.items()):
            below = list(_below(process.pid))
            process.send_signal(signal.SIGINT if name == "postgres" else signal.SIGTERM)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(10)
            _kill(process, below)


def main() -> int:
    """Start, sweep, check, end; 0 where all is as it should be."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--port", type=int, default=7500, help="the first of thirty that are free (default 7500)")
    port = parser.parse_args().port
    for number in range(port, port + 30):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", number))
            except OSError:
                parser.error(f"port {number} is in use; give --port")
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
        with timed("MLflow killed and started again"):
            stack.die("mlflow")
            stack.start("mlflow")
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
    stack.run(["python", "-m", "service", "doctor"], RAY_ADDRESS=f"127.0.0.2:{twin.port}")
    runs = stack.run(["python", "-c", RUNS, twin.mlflow]).split()
    experiment = f"{twin.mlflow}/api/2.0/mlflow/experiments/get-by-name?experiment_name=winnow"  # /health and /version answer to any name
    needed = {
        "every trial is a finished run of MLflow": runs.count("FINISHED") >= TRIALS,
        "the artifacts are in the object store": "artifacts" in stack.run(["python", "-c", KEYS, "mlflow", "artifacts/"], of="mlflow"),
        "the sweep is in the object store": "sweeps" in stack.run(["python", "-c", KEYS, "winnow", "sweeps/heads/"]),
        "MLflow answers to the name that compose gives it": _status(experiment, Host="mlflow:5000") == 200,
        "MLflow refuses any other name": _status(experiment, Host="elsewhere.example") == 403,
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


def _kill(process: subprocess.Popen[bytes], below: Sequence[tuple[int, str]] = ()) -> None:
    """SIGKILL to a process, to what it has started, and to those of `below` that are still the same."""
    for pid, started in [*below, *_below(process.pid)]:
        if _started(pid) == started:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
    process.kill()
    process.wait()


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
