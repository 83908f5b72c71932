"""Commands of Python as forks of a process that has imported Ray, MLflow and torch: a tenth of a second instead of six.

A fork runs what `python -m MODULE` and `python -c PROGRAM` run, with arguments, folder, environment and streams of its own, and starts a
real Ray where it is asked to. It leaves out what Python does before the first line of a program and after its last one: tests of imports,
of signals while a command starts, and of its last moments start Python itself.
"""

from __future__ import annotations

import atexit
import gc
import io
import json
import os
import runpy
import select
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import time
import traceback
import types
import warnings
import weakref
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from tests import costs, tables

ROOT = Path(__file__).parents[1]
INJECT = ROOT / "tests" / "faults" / "support" / "inject"
# Python and C read these as they start; where one differs, so must the process. Ray's client reads its address when it is imported.
AT_START = ("PYTHON", "LC_", "LANG", "OMP_", "TZ", "LD_", "MALLOC_")
NOT_HERE = {"PYTHONPATH"}
ANSWER = struct.Struct(">qd")  # a process or its exit code, and the CPU seconds of one that has ended


def needs_python(environment: Mapping[str, str]) -> bool:
    """Whether a command in `environment` must be a Python of its own."""
    names = {name for name in {*environment, *os.environ} - NOT_HERE if name.startswith(AT_START)}
    return "RAY_ADDRESS" in environment or any(environment.get(name) != os.environ.get(name) for name in names)


class Warm:
    """The tests' side: `warm([sys.executable, "-m", "service", ...], cwd=..., env=...)` does what subprocess.run does."""

    def __init__(self, environment: Mapping[str, str], folder: Path) -> None:
        """`environment`: in which it can train once, before any fork. `folder`: of MLflow's tables."""
        self._environment, self._folder = environment, folder
        self._server: subprocess.Popen[bytes] | None = None
        self._one = threading.Lock()
        self._spent = 0.0

    def __call__(
        self, command: Sequence[str], *, cwd: Path, env: Mapping[str, str] | None = None, timeout: float = 600.0
    ) -> subprocess.CompletedProcess[str]:
        environment = dict(os.environ if env is None else env)
        assert command[0] == sys.executable
        if needs_python(environment):
            return subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, check=False, timeout=timeout)
        with tempfile.TemporaryFile("w+", errors="replace") as out, tempfile.TemporaryFile("w+", errors="replace") as err:
            code = self.fork(command[1:], cwd, environment, out.fileno(), err.fileno(), timeout)
            told = [file.read() for file in (out, err) if file.seek(0) == 0]
        return subprocess.CompletedProcess(list(command), code, *told)

    def fork(self, arguments: Sequence[str], cwd: Path, environment: Mapping[str, str], out: int, err: int, timeout: float = 600.0) -> int:
        """The exit code of a fork that writes to the files `out` and `err`. Several threads may each have one."""
        over, held = os.pipe()  # a fork holds the second end, and nobody else does in the end
        with open(os.devnull, "rb") as nothing:
            asked = {"arguments": list(arguments), "cwd": str(cwd), "environment": dict(environment)}
            pid = self._ask(asked, nothing.fileno(), out, err, held)
        os.close(held)
        until = time.monotonic() + timeout
        while not select.select([over], [], [], 1.0)[0] and not _is_dead(pid):
            if time.monotonic() > until:
                os.kill(pid, signal.SIGKILL)
        os.close(over)
        code = self._ask({"ended": pid})
        if time.monotonic() > until:
            raise subprocess.TimeoutExpired(list(arguments), timeout)
        return code

    def _ask(self, what: dict[str, Any], *files: int) -> int:
        with self._one:
            if self._server is None:
                self._start()
            content = json.dumps(what).encode()
            socket.send_fds(self._here, [len(content).to_bytes(8, "big")], files)
            self._here.sendall(content)
            if not (answer := self._here.recv(ANSWER.size, socket.MSG_WAITALL)):
                raise AssertionError("the process that commands are forked from has ended")
            code, cost = ANSWER.unpack(answer)
            costs.of_forks(cost)
            self._spent += cost
            return int(code)

    def _start(self) -> None:
        self._here, there = socket.socketpair()
        given = {name: value for name, value in self._environment.items() if not name.startswith(("RAY_", "MLFLOW_", "WINNOW_STORAGE"))}
        command = [sys.executable, "-m", "tests.warm", str(there.fileno()), str(self._folder)]
        given |= {"PYTHONPATH": f"{ROOT}:{INJECT}"}
        self._server = subprocess.Popen(command, cwd=ROOT, env=given, pass_fds=[there.fileno()], stdin=subprocess.DEVNULL)
        there.close()

    def close(self) -> None:
        if self._server is not None:
            self._here.close()
            self._server.wait()
            costs.of_forks(-self._spent)  # from here on they are counted as the server's


def _is_dead(pid: int) -> bool:
    """Whether a process has ended; what it has left running may still hold its files."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"


def serve(place: socket.socket) -> dict[str, Any] | None:
    """Fork for each command that `place` tells of. Returns in a fork, with what it is to do, and at the end, with None."""
    while True:
        head, files, _, _ = socket.recv_fds(place, 8, 4, socket.MSG_CMSG_CLOEXEC)
        if not head:
            return None
        asked: dict[str, Any] = json.loads(place.recv(int.from_bytes(head, "big"), socket.MSG_WAITALL))
        cost = 0.0
        if files:
            answer = os.fork()
            if answer == 0:
                place.close()
                for number, file in enumerate(files[:3]):
                    os.dup2(file, number)
                    os.close(file)
                return asked
        else:
            _, status, used = os.wait4(asked["ended"], 0)
            answer, cost = os.waitstatus_to_exitcode(status), used.ru_utime + used.ru_stime
        for file in files:
            os.close(file)
        place.sendall(ANSWER.pack(answer, cost))


def run(asked: dict[str, Any], path: list[str]) -> int:
    """What Python does with its arguments; the exit code."""
    kind, what, *arguments = asked["arguments"]
    os.environ.clear()
    os.environ.update(asked["environment"])
    os.chdir(asked["cwd"])
    time.tzset()
    how = {"encoding": sys.stdout.encoding, "write_through": sys.stdout.write_through}
    out, err = (os.fdopen(number, "wb", buffering=0 if sys.stdout.write_through else -1, closefd=False) for number in (1, 2))
    sys.stdout, sys.stderr = io.TextIOWrapper(out, **how), io.TextIOWrapper(err, errors="backslashreplace", line_buffering=True, **how)
    first = {"-m": asked["cwd"], "-c": ""}[kind]
    sys.path[:] = [first, *filter(None, asked["environment"].get("PYTHONPATH", "").split(":")), *path]
    sys.argv = [kind, *arguments]
    main = sys.modules["__main__"] = types.ModuleType("__main__")
    try:
        if kind == "-m":
            if not hasattr(sys.modules.get(what), "__path__"):
                sys.modules.pop(what, None)  # runpy warns of a module that is there already
            runpy.run_module(what, run_name="__main__", alter_sys=True)
        else:
            exec(compile(what, "<string>", "exec"), vars(main))
    except SystemExit as leave:
        if leave.code is None or isinstance(leave.code, int):
            return leave.code or 0
        print(leave.code, file=sys.stderr)
        return 1
    except BaseException:
        traceback.print_exc()
        return 1
    return 0


def _end(code: int) -> None:
    """As Python ends, without taking thousands of modules apart."""
    threading._shutdown()  # type: ignore[attr-defined]
    if (ray := sys.modules.get("ray._private.worker")) and not ray.is_initialized():
        atexit.unregister(ray.shutdown)  # of what was never started: half of what a short command costs
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    os._exit(code)


def _prepare(folder: Path) -> None:
    """Import what commands import, have forks copy MLflow's tables to where they need some, and use MLflow and train once."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # MLflow's use of a newer SQLAlchemy
        import matplotlib.backends.backend_agg
        import matplotlib.backends.backend_svg
        import matplotlib.figure  # noqa: F401
        import mlflow.store.tracking.sqlalchemy_store
        import mlflow.tracking._tracking_service.client
        import mlflow.utils.search_logged_model_utils  # noqa: F401
        import switches  # noqa: F401

        import trainables.run  # noqa: F401
        from service.cli.parser import parser
        from service.cluster import ray_cluster  # noqa: F401
        from service.driving import session  # noqa: F401
        from service.inspection import status  # noqa: F401
        from service.tracking import verify  # noqa: F401
        from service.tracking.connection import client_class
        from service.tracking.sql import database

        parser()
        tables.read_migrations_once()
        database._new = partial(tables.copied, folder)
        with tempfile.TemporaryDirectory() as used:
            _use_mlflow(database._new(Path(used) / "used.db", client_class()))
    _train()


def _train() -> None:
    from trainables.run import run_stack
    from trainables.trial import Stack, Trial

    sizes = {"hidden": (16, 16), "batch_size": 32}
    trial = Trial(dataset="test/hopper/random-v0", algorithm="bc", pruner="snip", sparsity=0.9, updates=3, evaluations=1, hyper=sizes)
    for _ in run_stack(Stack((trial,))):
        pass


def _use_mlflow(file: Path) -> None:
    from mlflow import MlflowClient
    from mlflow.entities import Metric, Param, RunTag
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

    client = MlflowClient(tracking_uri=f"sqlite:///{file}")
    run = client.create_run(client.create_experiment("warm", str(file.parent / "artifacts"))).info
    client.log_batch(run.run_id, [Metric("metric", 1.0, 1, 1)], [Param("param", "1")], [RunTag("tag", "1")])
    client.log_text(run.run_id, "text", "text.txt")
    client.search_runs([run.experiment_id], "tags.tag = '1'")
    client.get_metric_history(run.run_id, "metric")
    client.set_terminated(run.run_id)
    for engine in SqlAlchemyStore._engine_map.values():
        engine.dispose()  # no fork shares a connection


if __name__ == "__main__":
    installed = [folder for folder in sys.path[1:] if folder not in os.environ.get("PYTHONPATH", "").split(":")]
    gc.disable()
    _prepare(Path(sys.argv[2]))
    gc.enable()
    gc.collect()
    gc.freeze()  # a fork's own garbage is looked for among what the fork has made
    weakref.finalize._registry.clear()  # type: ignore[attr-defined]  # and at its end it cleans up nothing but that
    with socket.socket(fileno=int(sys.argv[1])) as place:
        found = serve(place)
    if found is not None:
        _end(run(found, installed))
