"""Says on stderr what is being waited for, so that no command is silent for long."""

from __future__ import annotations

import contextlib
import sys
import threading
import time
from collections.abc import Iterator

PATIENCE = 2.0  # seconds of silence that nobody minds
EVERY = 10.0  # seconds between lines after that


@contextlib.contextmanager
def waiting(what: str) -> Iterator[None]:
    """`starting Ray ...` after two seconds, and every ten seconds how long it has been; nothing for what is quick."""
    over, begun = threading.Event(), time.monotonic()

    def tell() -> None:
        if over.wait(PATIENCE):
            return
        print(f"{what} ...", file=sys.stderr, flush=True)
        while not over.wait(EVERY):
            print(f"{what} ... {time.monotonic() - begun:.0f} s", file=sys.stderr, flush=True)

    threading.Thread(target=tell, name="waiting", daemon=True).start()
    try:
        yield
    finally:
        over.set()
