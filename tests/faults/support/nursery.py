"""Commands as forks of a process that has imported everything (tests/warm.py): the service without Ray, in a fraction of a second.

The commands are the real ones, `service.__main__.main`; only `service.cluster.ray_cluster.connect` gives a cluster that trains the
stacks one after the other in the child itself, through the same trainable. A child can be made to die, to be refused by the disk and so
on: see inject/switches.py.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from tests.warm import INJECT, ROOT, Warm

COMMAND = "import json, sys; from tests.faults.support import nursery; nursery.child(**json.loads(sys.argv[1]))"


@dataclass(frozen=True)
class Ended:
    """How a command ended: exit code, what it printed, and how often it asked the disk to make something last."""

    code: int
    out: str
    boundaries: int


class Nursery:
    """`run` forks a command and waits for its end."""

    def __init__(self, environment: dict[str, str], warm: Warm) -> None:
        self._environment, self._warm = environment | {"PYTHONPATH": f"{ROOT}:{INJECT}"}, warm

    def run(self, *argv: str, faults: Sequence[str] = (), **environment: str) -> Ended:
        """A command as in `winnow ...`, in a fork of its own."""
        command = ["-c", COMMAND, json.dumps({"argv": argv, "faults": faults})]
        with tempfile.TemporaryFile("w+", errors="replace") as file:
            code = self._warm.fork(command, ROOT, self._environment | environment, file.fileno(), file.fileno())
            file.seek(0)
            out = file.read()
        told = [line for line in out.splitlines() if line.startswith("boundaries ")]
        return Ended(code, out, int(told[-1].split()[1]) if told else -1)


def child(argv: list[str], faults: list[str]) -> None:
    """In the fork: the command, and how many boundaries it has passed."""
    import switches

    from service.cluster import ray_cluster

    ray_cluster.connect = connect
    from service.__main__ import main

    code = 70
    try:
        switches.install(faults)
        code = main(argv)
    except BaseException:
        import traceback

        traceback.print_exc()
    print(f"boundaries {switches.passed()}", flush=True)
    os._exit(code)


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
                    if conductor.first_update < math.inf and conductor.spent():  # updates were made, so that each run gets on
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
