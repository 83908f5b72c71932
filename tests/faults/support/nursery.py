"""A process that has imported everything and forks a child per command: the service without Ray, in a fraction of a second instead of ten.

The commands are the real ones, `service.__main__.main`; only `service.cluster.ray_cluster.connect` gives a cluster that trains the
stacks one after the other in the child itself, through the same trainable. A child can be made to die, to be refused by the disk and so
on: see inject/switches.py.
"""

from __future__ import annotations

import contextlib
import gc
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from .invariants import mlflow_client

HERE = Path(__file__).parent
ROOT = HERE.parents[2]


@dataclass(frozen=True)
class Ended:
    """How a command ended: exit code, what it printed, and how often it asked the disk to make something last."""

    code: int
    out: str
    boundaries: int


class Nursery:
    """The parent's side: `run` sends a command and waits for its end."""

    def __init__(self, environment: dict[str, str], tables: Path) -> None:
        """`tables`: a database that holds MLflow's empty tables."""
        command = [sys.executable, "-m", "tests.faults.support.nursery", str(tables)]
        environment = environment | {"PYTHONPATH": f"{ROOT}:{HERE / 'inject'}"}
        self._process = subprocess.Popen(command, cwd=ROOT, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def run(self, *argv: str, faults: Sequence[str] = (), **environment: str) -> Ended:
        """A command as in `winnow ...`, in a fork of its own."""
        assert self._process.stdin
        assert self._process.stdout
        self._process.stdin.write(json.dumps({"argv": argv, "faults": faults, "environment": environment}) + "\n")
        self._process.stdin.flush()
        return Ended(**json.loads(self._process.stdout.readline()))

    def close(self) -> None:
        self._process.communicate()


def serve() -> None:
    """The nursery's side: commands from stdin, one JSON line each; answers to stdout."""
    import matplotlib.figure  # noqa: F401
    import mlflow.store.tracking.sqlalchemy_store
    import mlflow.tracking._tracking_service.client  # noqa: F401
    import switches
    from mlflow.entities import Metric  # noqa: F401

    import service.driving.session  # noqa: F401
    import trainables.run  # noqa: F401
    from service.cluster import ray_cluster

    ray_cluster.connect = connect
    _warm_up(Path(sys.argv[1]))
    gc.collect()
    gc.freeze()  # a child's own garbage is looked for among what the child has made
    for line in sys.stdin:
        command = json.loads(line)
        ours, theirs = os.pipe()
        pid = os.fork()
        if pid == 0:
            os.dup2(theirs, 1)
            os.dup2(theirs, 2)
            os.close(ours)
            os.close(theirs)
            os.environ.update(command["environment"])
            os._exit(_child(command, switches))
        os.close(theirs)
        with os.fdopen(ours, errors="replace") as pipe:
            out = pipe.read()
        _, status = os.waitpid(pid, 0)
        told = [line for line in out.splitlines() if line.startswith("boundaries ")]
        answer = {"code": os.waitstatus_to_exitcode(status), "out": out, "boundaries": int(told[-1].split()[1]) if told else -1}
        print(json.dumps(answer), flush=True)


def _warm_up(tables: Path) -> None:
    """Import, map and compile what a child would, by reading the commands, using an MLflow of its own and training once."""
    from service.cli.parser import parser
    from trainables.run import run_stack
    from trainables.trial import Stack, Trial

    parser()
    with tempfile.TemporaryDirectory() as folder:
        _use_mlflow(Path(shutil.copy(tables, folder)))
    sizes = {"hidden": (16, 16), "batch_size": 32}
    trial = Trial(dataset="test/hopper/random-v0", algorithm="bc", pruner="snip", sparsity=0.9, updates=3, evaluations=1, hyper=sizes)
    for _ in run_stack(Stack((trial,))):
        pass


def _use_mlflow(file: Path) -> None:
    from mlflow.entities import Metric, Param, RunTag
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

    with mlflow_client(f"sqlite:///{file}") as client:
        run = client.create_run(client.create_experiment("warm", str(file.parent / "artifacts"))).info
        client.log_batch(run.run_id, [Metric("metric", 1.0, 1, 1)], [Param("param", "1")], [RunTag("tag", "1")])
        client.log_text(run.run_id, "text", "text.txt")
        client.search_runs([run.experiment_id], "tags.tag = '1'")
        client.get_metric_history(run.run_id, "metric")
        client.set_terminated(run.run_id)
    for engine in SqlAlchemyStore._engine_map.values():
        engine.dispose()  # no child shares a connection


def _child(command: dict[str, Any], switches: Any) -> int:
    from service.__main__ import main

    code = 70
    try:
        switches.install(command["faults"])
        code = main(command["argv"])
    except BaseException:
        import traceback

        traceback.print_exc()
    print(f"boundaries {switches.passed()}", flush=True)
    return code


@contextlib.contextmanager
def connect(options: Any, **how: Any) -> Iterator[Any]:
    from service.cluster.ray_cluster import Cluster

    class Inline(Cluster):
        """Trains one stack after the other, here."""

        slots = 1

        def train(
            self, name: str, conductor: Any, storage: Path, listen: Callable[..., Any], work: Callable[..., Any] | None = None
        ) -> None:
            from trainables.tune_trainable import StackTrainable

            while (stack := conductor.next()) or conductor.waits_for:
                if stack is None:
                    time.sleep(0.1)
                    conductor.idle()
                    continue
                conductor.started(stack)
                trainable = object.__new__(StackTrainable)  # without what Tune wants of it
                trials = json.dumps([trial.to_json() for trial in stack.trials])
                trainable.setup({"stack": trials}, storage=str(storage), listen=listen, options=self.options, work=work)
                while not (news := trainable.step()).get("done"):
                    conductor.reported(stack, news)
                    if "rate" in news and conductor.spent():  # updates were made, so that each run gets on
                        trainable._leave.asked = True
                        while not trainable.step().get("done"):
                            pass
                        conductor.left(stack, trainable._leave.update, trainable._leave.kept)
                        conductor.end()
                conductor.ended(stack, news)
                conductor.idle()
                if conductor.spent():
                    conductor.end()

    yield Inline(replace(options, device="cpu"))


if __name__ == "__main__":
    serve()
