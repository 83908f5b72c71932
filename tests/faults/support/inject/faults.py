"""What can go wrong, a function per fault: `die_at=12` calls `die_at("12")`."""

from __future__ import annotations

import builtins
import ctypes
import errno
import io
import os
import shutil
import signal
import sqlite3
import struct
import time
from collections.abc import Callable
from typing import Any

from hooks import after, at_boundaries, pass_one, passed, when_imported


def die_at(number: str) -> None:
    """Die as by SIGKILL ahead of the n-th fsync or rename of this process."""
    at_boundaries(lambda passed, name: os._exit(137) if passed == int(number) else None)


def die_after(moment: str) -> None:
    """Die when the spools have taken in a report: `Trained@50`, the one of update 50."""
    after(moment, lambda: os._exit(137))


def leaves_at(updates: str) -> None:
    """Each stack is asked to leave while it makes the updates of these numbers, `7,33`, as workers are when their driver leaves."""
    asked: list[Any] = []

    def change(module: Any) -> None:
        train_until = module.StackRun.train_until

        def asking(run: Any, stop: int) -> None:
            at = run.agent.at

            def ask(update: int) -> None:
                at(update)
                moment = update, run.stack.lead.key
                if str(update) in updates.split(",") and moment not in asked:
                    asked.append(moment)
                    run.leave.asked = True

            run.agent.at = ask
            try:
                train_until(run, stop)
            finally:
                del run.agent.at

        module.StackRun.train_until = asking

    when_imported("trainables.run", change)


def delete_after(moment_and_file: str) -> None:
    """Remove a file when the spools have taken in a report: `Trained@50:/path`."""
    moment, _, file = moment_and_file.partition(":")
    after(moment, lambda: os.unlink(file))


def remove_after(moment_and_folder: str) -> None:
    """Remove a folder when the spools have taken in a report: `Trained@50:/path`."""
    moment, _, folder = moment_and_folder.partition(":")
    after(moment, lambda: _remove(folder))


def replace_after(moment_and_folders: str) -> None:
    """The same, and a copy of another folder is there from then on: `Trained@50:/path:/other`."""
    moment, folder, other = moment_and_folders.split(":")

    def replace() -> None:
        _remove(folder)
        shutil.copytree(other, folder)

    after(moment, replace)


def _remove(folder: str) -> None:
    """At once, as another thread may be making files there."""
    os.rename(folder, f"{folder}.removed")
    shutil.rmtree(f"{folder}.removed", ignore_errors=True)


def lock_after(moment_and_file: str) -> None:
    """Lock an SQLite database from then on, as long as this process lives."""
    moment, _, file = moment_and_file.partition(":")
    held = []

    def lock() -> None:
        held.append(sqlite3.connect(file, check_same_thread=False))
        held[0].execute("begin exclusive")

    after(moment, lock)


def count() -> None:
    """Let all pass, and count."""
    at_boundaries(lambda passed, name: None)


def full_from(number_and_error: str) -> None:
    """From the n-th boundary on the disk is full: a write is cut short once and refused from then on, and so is what creates.

    `12:EDQUOT`: it is the user's quota that is exhausted."""
    number, _, name_of_error = number_and_error.partition(":")
    code = getattr(errno, name_of_error or "ENOSPC")

    def refuse(passed: int, name: str) -> None:
        if passed >= int(number) and name != "replace":
            raise OSError(code, os.strerror(code))

    at_boundaries(refuse)
    write, cut = os.write, []

    def short(file: int, content: bytes) -> int:
        if passed() < int(number) or file < 3:
            return write(file, content)
        if cut:
            raise OSError(code, os.strerror(code))
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


def no_rights() -> None:
    """The permissions of files hold for root, too: it loses the right to pass over them."""
    header = struct.pack("Ii", 0x20080522, 0)  # of capset, its third version, for this process
    dac = 1 << 1 | 1 << 2  # CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH
    libc, held = ctypes.CDLL(None, use_errno=True), ctypes.create_string_buffer(24)
    assert libc.capget(header, held) == 0
    words = [word & ~dac if number < 2 else word for number, word in enumerate(struct.unpack("6I", held.raw))]
    assert libc.capset(header, struct.pack("6I", *words)) == 0, os.strerror(ctypes.get_errno())


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

    when_imported("trainables.agent", change)


def die_at_call(number: str) -> None:
    """Die ahead of the n-th call to MLflow or the n-th note of how far that is; `boundaries` then counts these."""

    def guard(owner: Any, name: str) -> None:
        real = getattr(owner, name)

        def guarded(*arguments: Any, **named: Any) -> Any:
            if pass_one() == int(number):
                os._exit(137)
            return real(*arguments, **named)

        setattr(owner, name, guarded)

    def calls(module: Any) -> None:
        for name in ("create_run", "delete_run", "log_batch", "log_inputs", "update_run", "set_terminated"):
            guard(module.MlflowClient, name)

    when_imported("mlflow.tracking.client", calls)
    when_imported("mlflow.store.artifact.local_artifact_repo", lambda module: guard(module.LocalArtifactRepository, "log_artifact"))
    when_imported("service.tracking.sql.many", lambda module: guard(module, "insert"))
    when_imported("service.tracking.shipping.shipper", lambda module: guard(module, "write"))


def umask(mask: str) -> None:
    """The user's umask, in octal."""
    os.umask(int(mask, 8))


def halts_in_killing(seconds: str) -> None:
    """A process that kills others stands still for a while after the first of them, as on a busy machine."""
    kill, killed = os.kill, []

    def halt(pid: int, number: int) -> None:
        kill(pid, number)
        if number == signal.SIGKILL and not killed:
            killed.append(pid)
            time.sleep(float(seconds))

    os.kill = halt
