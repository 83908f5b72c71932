"""Prints on stderr what a command waits for, so that none is silent for long."""

from __future__ import annotations

import contextlib
import sys
import threading
import time
from collections.abc import Iterator

from service.terminal.signals import blocked

PATIENCE = 2.0  # seconds of silence before the first line
EVERY = 10.0  # seconds between lines after that
JOIN = 1.0  # seconds that the end waits for a line that is being printed

_silent = threading.Event()


@contextlib.contextmanager
def silence() -> Iterator[None]:
    """What is waited for inside is not told, in any thread."""
    _silent.set()
    try:
        yield
    finally:
        _silent.clear()


@contextlib.contextmanager
def waiting(what: str) -> Iterator[None]:
    """Print `starting Ray ...` after two seconds, then every ten seconds how long it has taken; nothing for what is quick."""
    over, begun = threading.Event(), time.monotonic()

    def report() -> None:
        if over.wait(PATIENCE) or _silent.is_set():
            return
        print(f"{what} ...", file=sys.stderr, flush=True)
        while not over.wait(EVERY):
            print(f"{what} ... {time.monotonic() - begun:.0f} s", file=sys.stderr, flush=True)

    thread = threading.Thread(target=report, name="waiting", daemon=True)
    with blocked():
        thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join(JOIN)  # so that no line comes after the end
