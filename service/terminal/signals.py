"""Leaving in time: `ray job stop` and init systems send SIGTERM and kill three seconds later; people press Ctrl-C.

The handler raises KeyboardInterrupt in the main thread, which unwinds through whatever runs. On a busy machine or inside foreign code
that can take too long, so a watchdog runs beside it: it commits the last words itself where that has not happened, and ends the process.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any

SIGNALS = (signal.SIGINT, signal.SIGTERM)
SPEAK = 1.2  # seconds after the signal until the watchdog commits the last words itself
LEAVE = 2.5  # seconds after the signal until it ends the process
INTERRUPTED = 130  # exit code, a shell's for Ctrl-C
UNREAD = 141  # exit code, a shell's for SIGPIPE


class Leaving:
    """Handles the signals. `last_words` commits what must not be lost; it is idempotent and may be called from any thread."""

    def __init__(self, last_words: Callable[[], None]) -> None:
        self._last_words = last_words
        self._over = threading.Event()
        self.why = ""

    def install(self) -> None:
        """Take the signals; again after anything that took them itself."""
        for number in SIGNALS:
            signal.signal(number, self._come)

    def now(self, why: str) -> None:
        """Leave as if a signal had come; from any thread."""
        self.why = self.why or why
        os.kill(os.getpid(), signal.SIGTERM)

    def _come(self, number: int, frame: Any) -> None:
        for each in SIGNALS:
            signal.signal(each, signal.SIG_IGN)  # one is enough, and the way out must not be interrupted
        self.why = self.why or signal.Signals(number).name
        threading.Thread(target=self._watch, name="watchdog", daemon=True).start()
        raise KeyboardInterrupt

    def _watch(self) -> None:
        if self._over.wait(SPEAK):
            return
        # If the storage hangs, so do the last words. The process still ends in time, and the next driver sees that its lease is dead.
        threading.Thread(target=self._speak, name="last words", daemon=True).start()
        if not self._over.wait(LEAVE - SPEAK):
            print(f"left at once ({self.why})", file=sys.stderr, flush=True)
            os._exit(INTERRUPTED)

    def _speak(self) -> None:
        with contextlib.suppress(Exception):
            self._last_words()

    @contextlib.contextmanager
    def installed(self) -> Iterator[None]:
        """Signals are taken inside, and given back after it."""
        before = [signal.getsignal(number) for number in SIGNALS]
        self.install()
        try:
            yield
        finally:
            self._over.set()
            for number, handler in zip(SIGNALS, before, strict=True):
                signal.signal(number, signal.SIG_DFL if handler is None else handler)


def unread() -> bool:
    """Whether the reader of this process's output has gone, as in `... | head`."""
    poll = select.poll()
    for stream in (1, 2):
        poll.register(stream, 0)  # the close of the other end is reported without being asked for
    return bool(poll.poll(0))
