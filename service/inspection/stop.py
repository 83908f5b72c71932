"""`service stop`: the driver of a sweep leaves, wherever it runs."""

from __future__ import annotations

import os
import platform
import signal
import sys
import time
from pathlib import Path

from service.inspection.status import journal_of
from service.ledger import lease
from service.storage import paths, shared_files
from service.terminal.waiting import waiting

PATIENCE = 30.0  # seconds that the driver is given


def stop(name: str, storage: Path) -> int:
    """Ask the driver to leave and wait until it has; 0 where no driver is left, else 1. Raises UserError for an unknown sweep.

    The request is a file, which the driver sees within a heartbeat on whatever host it is; on this host a signal is faster.
    """
    journal_of(name, storage)
    if not lease.alive(storage, name):
        print(f"nobody runs sweep {name!r}")
        return 0
    about = lease.holder(storage, name)
    host, _, pid = str(about.get("owner", "")).rpartition(":")
    shared_files.put(paths.stop_request(storage, name), b"")
    if about.get("kernel") == lease.place(storage, name) and host == platform.node() and pid.isdigit() and is_driver(int(pid)):
        os.kill(int(pid), signal.SIGTERM)
    until = time.monotonic() + PATIENCE
    with waiting(f"waiting for {about['owner']} to leave"):
        while time.monotonic() < until:
            now = lease.holder(storage, name)
            if now.get("epoch") != about["epoch"]:
                print(f"{about['owner']} has left; `python -m service run {name}` goes on from the checkpoints")
                return 0
            time.sleep(0.1)
    print(f"{about['owner']} has not left within {PATIENCE:g} s; the request stands", file=sys.stderr)
    return 1


def is_driver(pid: int) -> bool:
    """Whether the process is one of ours: numbers are used again, and containers count for themselves."""
    try:
        return b"service" in Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return False
