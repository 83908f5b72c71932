"""What makes a test quick, or lets it see what a process does."""

from __future__ import annotations

import json
import mmap
import os
import struct
import time
from pathlib import Path
from typing import Any

from hooks import when_imported


def work(folder: str) -> None:
    """Note the first and the last update that each attempt computes, in a file that a SIGKILL does not lose."""

    def change(module: Any) -> None:
        init, at = module.Agent.__init__, module.Agent.at

        def begin(agent: Any, algorithm: Any, stack: Any, *more: Any, **named: Any) -> None:
            init(agent, algorithm, stack, *more, **named)
            path = Path(folder) / f"{time.monotonic_ns():020d}-{os.getpid()}"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(struct.pack("qq", -1, -1) + json.dumps([trial.key for trial in stack.trials]).encode())
            with path.open("r+b") as file:
                agent.__dict__["noted"] = mmap.mmap(file.fileno(), 16)

        def note(agent: Any, update: int) -> None:
            first, _ = struct.unpack("qq", agent.__dict__["noted"][:16])
            agent.__dict__["noted"][:16] = struct.pack("qq", update if first < 0 else first, update)
            at(agent, update)

        module.Agent.__init__, module.Agent.at = begin, note

    when_imported("trainables.agent", change)


def slow(milliseconds: str) -> None:
    """Every update takes so much longer, so that there is time to kill it."""

    def change(module: Any) -> None:
        at = module.Agent.at

        def wait(agent: Any, update: int) -> None:
            time.sleep(float(milliseconds) / 1000)
            at(agent, update)

        module.Agent.at = wait

    when_imported("trainables.agent", change)
    _one_by_one()


def _one_by_one() -> None:
    """No updates are made in a row without Python between."""

    def change(module: Any) -> None:
        init = module.Cycle.__init__

        def begin(cycle: Any, *arguments: Any, **named: Any) -> None:
            init(cycle, *arguments, **named)
            cycle.in_a_row = None

        module.Cycle.__init__ = begin

    when_imported("trainables.training.cycle", change)


def slow_while(file_and_seconds: str) -> None:
    """Every update takes so many seconds longer, a fifth where none are given, while that file is there: a test that needs others beside a
    trial sets the pace."""
    file, _, seconds = file_and_seconds.partition(":")

    def change(module: Any) -> None:
        at = module.Agent.at

        def wait(agent: Any, update: int) -> None:
            time.sleep(float(seconds or 0.2) * os.path.exists(file))
            at(agent, update)

        module.Agent.at = wait

    when_imported("trainables.agent", change)
    _one_by_one()


def leaves_within(seconds: str) -> None:
    """A driver has that much time to leave, where Ray gives three seconds."""

    def change(module: Any) -> None:
        module.SPEAK, module.LEAVE = float(seconds) / 2, float(seconds)

    when_imported("service.terminal.signals", change)


def no_table() -> None:
    """A run ends without its table and figure."""
    when_imported("service.driving.session", lambda module: setattr(module, "show", lambda *_: None))


def news_at_once() -> None:
    """A worker passes on each report at once, not those of a second together."""
    when_imported("trainables.tune_trainable", lambda module: setattr(module, "NEWS_EVERY", -1.0))


def no_mlflow() -> None:
    """Nothing is shipped."""

    class Idle:
        trouble, begun, left_alone = "", True, ()

        def __init__(self, ship: object) -> None: ...

        def start(self) -> None: ...

        def check(self, patience: float) -> None: ...

        def finish(self, patience: float, **_: bool) -> bool:
            return True

    when_imported("service.driving.session", lambda module: setattr(module, "ShipperThread", Idle))


def watches(seconds: str) -> None:
    """How long a driver watches a lease for signs of life."""

    def change(module: Any) -> None:
        module.Lease.__init__.__kwdefaults__["bound"] = float(seconds)

    when_imported("service.ledger.lease", change)


def s3_reads_within(seconds: str) -> None:
    """How long one try of a call to S3 waits for its answer."""
    when_imported("service.storage.s3", lambda module: setattr(module, "READ_TIMEOUT", float(seconds)))


def ships_every(seconds: str) -> None:
    """How long a shipper waits between two passes, and after a first failure twice as long."""
    when_imported("service.tracking.shipping.thread", lambda module: setattr(module, "PERIOD", float(seconds)))


def patience(seconds: str) -> None:
    """How long the end of a run waits for MLflow."""
    when_imported("service.driving.session", lambda module: setattr(module, "PATIENCE", float(seconds)))


def news_every(seconds: str) -> None:
    """A worker goes on by itself for so long before it passes on its reports and waits to be asked for more."""
    when_imported("trainables.tune_trainable", lambda module: setattr(module, "NEWS_EVERY", float(seconds)))


def no_ray() -> None:
    """A driver trains its stacks itself, one after the other, as in the nursery; it still has its lease, its signals and its process."""

    def change(module: Any) -> None:
        from tests.faults.support.nursery import connect

        module.connect = connect

    when_imported("service.cluster.ray_cluster", change)
