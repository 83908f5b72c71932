"""What can go wrong, and protections that can be taken away, as functions by name; `install(["die_at=12", "no_cut"])`.

A change to a module of ours waits until it is imported: in Ray's workers this runs before anything is.
"""

from __future__ import annotations

import builtins
import contextlib
import errno
import importlib.abc
import importlib.machinery
import io
import json
import mmap
import os
import signal
import sqlite3
import struct
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

Change = Callable[[Any], None]
_changes: dict[str, list[Change]] = {}
_passed = 0


def install(faults: Sequence[str]) -> None:
    for fault in faults:
        name, _, argument = fault.partition("=")
        globals()[name](*([argument] if argument else []))


# What can go wrong


def die_at(number: str) -> None:
    """Die as by SIGKILL ahead of the n-th fsync or rename of this process."""
    _at_boundaries(lambda passed, name: os._exit(137) if passed == int(number) else None)


def die_after(moment: str) -> None:
    """Die when the spools have taken in a report: `Trained@50`, the one of update 50."""
    _after(moment, lambda: os._exit(137))


def delete_after(moment_and_file: str) -> None:
    """Remove a file when the spools have taken in a report: `Trained@50:/path`."""
    moment, _, file = moment_and_file.partition(":")
    _after(moment, lambda: os.unlink(file))


def lock_after(moment_and_file: str) -> None:
    """Lock an SQLite database from then on, as long as this process lives."""
    moment, _, file = moment_and_file.partition(":")
    held = []

    def lock() -> None:
        held.append(sqlite3.connect(file, check_same_thread=False))
        held[0].execute("begin exclusive")

    _after(moment, lock)


def count() -> None:
    """Let all pass, and count."""
    _at_boundaries(lambda passed, name: None)


def full_from(number: str) -> None:
    """From the n-th boundary on the disk is full: a write is cut short once and refused from then on, and so is what creates."""

    def refuse(passed: int, name: str) -> None:
        if passed >= int(number) and name != "replace":
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    _at_boundaries(refuse)
    write, cut = os.write, []

    def short(file: int, content: bytes) -> int:
        if _passed < int(number) or file < 3:
            return write(file, content)
        if cut:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        cut.append(file)
        return write(file, content[: len(content) // 2])

    os.write = short


def read_only(folder: str) -> None:
    """Nothing below `folder` can be made or changed."""

    def guard(real: Callable[..., Any], writes: Callable[..., bool]) -> Callable[..., Any]:
        def guarded(path: Any, *arguments: Any, **named: Any) -> Any:
            if not isinstance(path, int) and os.fspath(path).startswith(folder) and writes(*arguments):
                raise OSError(errno.EROFS, os.strerror(errno.EROFS), os.fspath(path))
            return real(path, *arguments, **named)

        return guarded

    for name in ("mkdir", "replace", "unlink"):
        setattr(os, name, guard(getattr(os, name), lambda *_: True))
    os.open = guard(os.open, lambda flags, *_: bool(flags & (os.O_WRONLY | os.O_RDWR)))
    io.open = builtins.open = guard(open, lambda mode="r", *_: mode[0] in "wax")


def clock_jumps(seconds: str) -> None:
    """The wall clock jumps to and fro by so many seconds, every 0.2 seconds."""
    now, now_ns, quiet = time.time, time.time_ns, time.monotonic

    def jump() -> float:
        return float(seconds) * (int(quiet() / 0.2) % 2)

    time.time = lambda: now() + jump()
    time.time_ns = lambda: now_ns() + int(1e9 * jump())


def clock_off(seconds: str) -> None:
    """The wall clock is off by so many seconds."""
    now, now_ns = time.time, time.time_ns
    time.time = lambda: now() + float(seconds)
    time.time_ns = lambda: now_ns() + int(1e9 * float(seconds))


def out_of_memory_above(size: str) -> None:
    """A stack of more members than `size` does not fit."""

    def change(module: Any) -> None:
        init = module.Agent.__init__

        def guarded(agent: Any, algorithm: Any, stack: Any, *more: Any, **named: Any) -> None:
            if len(stack) > int(size):
                raise RuntimeError("CUDA out of memory. Tried to allocate 20.00 MiB")
            init(agent, algorithm, stack, *more, **named)

        module.Agent.__init__ = guarded

    _when_imported("trainables.agent", change)


def die_at_call(number: str) -> None:
    """Die ahead of the n-th call to MLflow or the n-th note of how far that is; `boundaries` then counts these."""

    def guard(owner: Any, name: str) -> None:
        real = getattr(owner, name)

        def guarded(*arguments: Any, **named: Any) -> Any:
            global _passed
            _passed += 1
            if _passed == int(number):
                os._exit(137)
            return real(*arguments, **named)

        setattr(owner, name, guarded)

    def calls(module: Any) -> None:
        for name in ("create_run", "delete_run", "log_batch", "log_inputs", "log_artifact", "log_text", "update_run", "set_terminated"):
            guard(module.MlflowClient, name)

    _when_imported("mlflow.tracking.client", calls)
    _when_imported("service.tracking.shipper", lambda module: guard(module, "write"))


def halts_in_killing(seconds: str) -> None:
    """A process that kills others stands still for a while after the first of them, as on a busy machine."""
    kill, killed = os.kill, []

    def halt(pid: int, number: int) -> None:
        kill(pid, number)
        if number == signal.SIGKILL and not killed:
            killed.append(pid)
            time.sleep(float(seconds))

    os.kill = halt


# What makes a test quick or lets it see


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

    _when_imported("trainables.agent", change)


def slow(milliseconds: str) -> None:
    """Every update takes so much longer, so that there is time to kill it."""

    def change(module: Any) -> None:
        at = module.Agent.at

        def wait(agent: Any, update: int) -> None:
            time.sleep(float(milliseconds) / 1000)
            at(agent, update)

        module.Agent.at = wait

    _when_imported("trainables.agent", change)


def no_table() -> None:
    """A run ends without its table and figure."""
    _when_imported("service.driving.session", lambda module: setattr(module, "show", lambda *_: None))


def no_mlflow() -> None:
    """Nothing is shipped."""

    class Idle:
        trouble, begun, left_alone = "", True, ()

        def __init__(self, ship: object) -> None: ...

        def start(self) -> None: ...

        def check(self, patience: float) -> None: ...

        def finish(self, patience: float, **_: bool) -> bool:
            return True

    _when_imported("service.driving.session", lambda module: setattr(module, "ShipperThread", Idle))


def watches(seconds: str) -> None:
    """How long a driver watches a lease for signs of life."""

    def change(module: Any) -> None:
        module.Lease.__init__.__kwdefaults__["bound"] = float(seconds)

    _when_imported("service.ledger.lease", change)


def s3_reads_within(seconds: str) -> None:
    """How long one try of a call to S3 waits for its answer."""
    _when_imported("service.storage.s3", lambda module: setattr(module, "READ_TIMEOUT", float(seconds)))


def ships_every(seconds: str) -> None:
    """How long a shipper waits between two passes, and after a first failure twice as long."""
    _when_imported("service.tracking.shipper", lambda module: setattr(module, "PERIOD", float(seconds)))


def patience(seconds: str) -> None:
    """How long the end of a run waits for MLflow."""
    _when_imported("service.driving.session", lambda module: setattr(module, "PATIENCE", float(seconds)))


# Protections taken away


def no_checkpoint_hash() -> None:
    _when_imported("trainables.training.checkpoint", lambda module: setattr(module, "_hash", lambda head, content: "same"))


def no_rename() -> None:
    """Checkpoints, masks and policies are written where they shall be, without temporary and rename, a head ahead of its tensors."""

    def change(module: Any) -> None:
        tensors: dict[Path, bytes] = {}

        def write(path: Path, content: bytes) -> None:
            if path.parent.name == "checkpoints" and path.suffix == ".safetensors":
                tensors[path] = content
                return
            torn(path, content)
            if (behind := path.with_suffix(".safetensors")) in tensors:
                torn(behind, tensors.pop(behind))

        module.write = write

    def torn(path: Path, content: bytes) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(path, "wb") as file:
            file.write(content[: len(content) // 2])
            file.flush()
            os.fsync(file.fileno())
            file.write(content[len(content) // 2 :])

    _when_imported("trainables.training.checkpoint", change)
    _when_imported("trainables.training.files_of_trial", change)


def no_tidy() -> None:
    """What a kill leaves behind stays."""
    _when_imported("trainables.storage.files", lambda module: setattr(module, "_tidy", lambda path: None))
    _when_imported("trainables.training.checkpoint", lambda module: setattr(module, "_tidy", lambda *_: None))


def no_work_kept() -> None:
    """A trial that goes on does not look for its checkpoint."""
    _when_imported("trainables.training.checkpoint", lambda module: setattr(module, "newest", lambda *_: None))


def no_data_check_of_the_driver() -> None:
    """A driver takes any data for that of the trials."""
    _when_imported("service.planning.data_here", lambda module: setattr(module.DataHere, "differs", lambda *_: False))


def no_data_check_of_workers() -> None:
    """A worker goes on from a checkpoint whatever it was trained on."""
    _when_imported("trainables.run", lambda module: setattr(module.StackRun, "check_data", lambda *_: None))


def no_versions() -> None:
    """Results take a dataset's name for its identity."""
    _when_imported("service.results.runs", lambda module: setattr(module, "_data_of", lambda row: ""))


def import_anything() -> None:
    """An environment's id imports its module, whichever that is."""
    _when_imported("trainables.environments", lambda module: setattr(module, "import_for", lambda *_: None))


def tune_restored() -> None:
    """Ray Tune goes on from its own newest state, where there is some."""

    def change(module: Any) -> None:
        real = module.tune.Tuner

        def tuner(trainable: Any, *, run_config: Any, **more: Any) -> Any:
            folders = sorted(file.parent for file in Path(run_config.storage_path).glob("*/tuner.pkl"))
            return real.restore(str(folders[-1]), trainable) if folders else real(trainable, run_config=run_config, **more)

        module.tune = _With(module.tune, Tuner=tuner)

    _when_imported("service.cluster.ray_cluster", change)


def unshielded() -> None:
    """Ray starts with whatever handlers of signals it likes."""
    _when_imported(
        "service.cluster.ray_cluster",
        lambda module: setattr(module, "signals", _With(module.signals, shielded=contextlib.nullcontext)),
    )


def unwatched() -> None:
    """Nobody looks whether an embedded Ray is alive."""
    _when_imported("service.cluster.ray_cluster", lambda module: setattr(module.Cluster, "watched", lambda *_: contextlib.nullcontext()))


def no_adoption() -> None:
    """What Ray's processes leave behind goes to init."""
    _when_imported("service.cluster.ray_cluster", lambda module: setattr(module, "embedded", _With(module.embedded, adopt=lambda: None)))


def no_cut() -> None:
    """A spool is gone on with as it is, without cutting off what is computed again, nor a torn line."""

    def change(module: Any) -> None:
        module.os = _With(os, ftruncate=lambda *_: None)

    _when_imported("service.spool.writer", change)


def ship_uncommitted() -> None:
    """The shipper takes all that a spool holds."""
    _when_imported("service.tracking.shipper", lambda module: setattr(module, "spool", _With(module.spool, committed=list)))


def no_source_time() -> None:
    """Points carry the time at which they are shipped."""

    def change(module: Any) -> None:
        points = module.spool.points
        module.spool = _With(module.spool, points=lambda lines: [(n, v, time.time_ns() // 1_000_000, u) for n, v, _, u in points(lines)])

    _when_imported("service.tracking.shipper", change)


def no_search() -> None:
    """A run is made without looking whether there is one."""

    def change(module: Any) -> None:
        def blind(tracking: Any, tag: str, value: str, name: str, tags: Any, known: str = "") -> str:
            if value not in tracking._runs:
                run = tracking._connected().create_run(tracking._experiment, run_name=name, tags={tag: value, **tags})
                tracking._runs[value] = run.info.run_id
            return tracking._runs[value]

        module.Tracking._find_or_create = blind

    _when_imported("service.tracking.runs", change)


def no_cursor_reset() -> None:
    """Another MLflow is taken for the one that the note of how far it is speaks of."""

    def change(module: Any) -> None:
        def trusting(shipper: Any, key: str) -> Any:
            cursor = module.cursors.read(shipper._storage, key)
            return module.Cursor(shipper._mlflow, shipper.tracking.trial_run(shipper._ledger.entries[key].trial, ""), cursor.offset, "")

        module.Shipper._stored = trusting

    _when_imported("service.tracking.shipper", change)


def cursor_believed() -> None:
    """What the cursors claim is not compared with what MLflow holds."""

    def change(module: Any) -> None:
        compared = module.comparison.Compared
        module.comparison = _With(module.comparison, compare=lambda tracking, sweep, ledger, storage, known, **_: compared(dict(known)))

    _when_imported("service.tracking.shipper", change)


def every_run_is_mine() -> None:
    """No run is another storage's."""
    _when_imported("service.tracking.runs", lambda module: setattr(module.Tracking, "mine", lambda *_: True))


def mlflow_speaks() -> None:
    """MLflow prints the address of each run that ends."""

    def change(module: Any) -> None:
        module.MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT.get = lambda: False

    _when_imported("mlflow.environment_variables", change)


def no_patience() -> None:
    """A call to S3 is tried once."""
    _when_imported("service.storage.s3", _impatient)


def _impatient(module: Any) -> None:
    call = module.Bucket._call
    module.Bucket._call = lambda bucket, what, key, patience: call(bucket, what, key, 0.0)


# The means


def _after(moment: str, act: Callable[[], None]) -> None:
    """Act, once, when the spools have taken in a report."""
    kind, _, update = moment.partition("@")
    acted: list[bool] = []

    def change(module: Any) -> None:
        take = module.StackSpool.__call__

        def taken(spool: Any, report: Any) -> None:
            take(spool, report)
            if not acted and type(report).__name__ == kind and report.update == int(update):
                acted.append(True)
                act()

        module.StackSpool.__call__ = taken

    _when_imported("service.spool.writer", change)


class _With:
    """A module with some names replaced."""

    def __init__(self, module: ModuleType, **names: Any) -> None:
        self._module = module
        self.__dict__.update(names)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._module, name)


def _at_boundaries(hook: Callable[[int, str], None]) -> None:
    def guard(name: str, real: Callable[..., Any]) -> Callable[..., Any]:
        def guarded(*arguments: Any, **named: Any) -> Any:
            global _passed
            _passed += 1
            hook(_passed, name)
            return real(*arguments, **named)

        return guarded

    for name in ("fsync", "replace"):
        setattr(os, name, guard(name, getattr(os, name)))


def passed() -> int:
    """How many boundaries this process has passed."""
    return _passed


def _when_imported(name: str, change: Change) -> None:
    if name in sys.modules:
        change(sys.modules[name])
        return
    if not _changes:
        sys.meta_path.insert(0, _Finder())
    _changes.setdefault(name, []).append(change)


class _Finder(importlib.abc.MetaPathFinder):
    def find_spec(self, name: str, path: Any, target: Any = None) -> Any:
        if name not in _changes:
            return None
        spec = importlib.machinery.PathFinder.find_spec(name, path)
        assert spec is not None
        assert spec.loader is not None
        run = spec.loader.exec_module

        def run_and_change(module: ModuleType) -> None:
            run(module)
            for change in _changes[name]:
                change(module)

        spec.loader.exec_module = run_and_change  # type: ignore[method-assign]
        return spec
