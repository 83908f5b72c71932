"""`winnow stop`: asks the driver of a sweep to leave, on any host."""

from __future__ import annotations

import os
import platform
import signal
import time
from dataclasses import dataclass
from pathlib import Path

from service.ledger import lease, manifest
from service.ledger.others import ledger_of
from service.planning.run_settings import RunSettings
from service.storage import paths, shared_files
from service.terminal.waiting import waiting
from trainables.output import printable

PATIENCE = 30.0  # seconds to wait for the driver to leave


@dataclass(frozen=True, kw_only=True)
class Stopped:
    """What became of a request to stop: whether no driver is left, who it was, what is kept, and the command that continues."""

    sweep: str
    left: bool
    driver: str = ""
    kept: str = ""
    resume: str = ""

    def __str__(self) -> str:
        if not self.driver:
            return f"nobody runs sweep {self.sweep!r}"
        if not self.left:
            return f"{self.driver} has not left within {PATIENCE:g} s; the request stands"
        return f"{self.driver} has left; {self.kept}{'; ' if self.kept else ''}`{self.resume}` continues from the checkpoints"


def stop(name: str, storage: Path) -> Stopped:
    """Ask the driver to leave and wait until it has. Raises UserError for an unknown sweep.

    The request is a file, which the driver reads at its next heartbeat on any host; on this host it also gets a signal, which is faster.
    """
    ledger = ledger_of(name, storage)
    if not lease.alive(storage, name):
        return Stopped(sweep=name, left=True)
    about = lease.holder(storage, name)
    who = printable(str(about.get("owner", "another driver")), lines=False)
    host, _, pid = str(about.get("owner", "")).rpartition(":")
    shared_files.put(paths.stop_request(storage, name), b"")
    here = (about.get("kernel"), about.get("processes"), host) == (lease.lock_scope(storage, name), lease.processes(), platform.node())
    if here and pid.isdigit() and is_driver(int(pid)):
        os.kill(int(pid), signal.SIGTERM)
    until = time.monotonic() + PATIENCE
    with waiting(f"waiting for {who} to leave"):
        while time.monotonic() < until:
            now = lease.holder(storage, name)
            if now.get("epoch") != about["epoch"]:
                kept = manifest.read(storage, name).kept(about["epoch"])
                again = RunSettings.from_json(ledger.settings).command(name, storage)
                return Stopped(sweep=name, left=True, driver=who, kept=kept, resume=again)
            time.sleep(0.1)
    return Stopped(sweep=name, left=False, driver=who)


def is_driver(pid: int) -> bool:
    """Whether the process may be a driver: pids are reused."""
    try:
        return any(name in Path(f"/proc/{pid}/cmdline").read_bytes() for name in (b"service", b"winnow"))
    except OSError:
        return False
