"""How a driver waits for storage on S3 that does not answer: longer than anybody else, as its whole sweep would end with it.

Opened by the thread that drives (`patient`), and handed on to the calls that it makes in parallel. The heartbeat, workers and short
commands have none: they give up after `s3.PATIENCE`."""

from __future__ import annotations

import contextlib
import errno
import math
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextvars import ContextVar

from service.terminal import signals
from trainables.output import printable

LONG = 1800.0  # seconds, from when the storage was given up by a shorter patience
PAUSE = 5.0  # seconds between two looks whether it answers
LINE_EVERY = 300.0  # seconds between two lines on stderr
SLICE = 0.2  # seconds between two looks whether we have been asked to leave: a thread of its own gets no signal


class Patience:
    """Of one driver; its threads wait one after another, so that there is one wait, with one deadline and one line."""

    def __init__(self, check: Callable[[], None]) -> None:
        """`check` raises OSError while the storage does not answer, and SupersededError where the lease is no longer ours."""
        self._check, self._waiting = check, threading.Lock()
        self._since: float | None = None  # of the wait that is under way, or was in vain: until there is an answer none begins
        self._said = -math.inf

    def wait(self, url: str, answered: float) -> bool:
        """Wait for an answer, of which the last one came at `answered`; False where there is none in time, or we have to leave. What
        `check` raises is raised: who has lost the lease meanwhile writes nothing more."""
        with self._waiting:
            if self._since is None or self._since < answered:
                self._since, self._said = time.monotonic(), -math.inf
            while not signals.leaving():
                if self._answers():
                    if self._said > -math.inf:
                        _say(f"storage {url} answers again")
                    self._since, self._said = None, -math.inf
                    return True
                left = self._since + LONG - time.monotonic()
                if left <= 0:
                    return False
                if time.monotonic() - self._said >= LINE_EVERY:
                    _say(f"storage {url} does not answer; waiting, {math.ceil(left / 60)} min left")
                    self._said = time.monotonic()
                pause(min(PAUSE, left))
            return False

    def _answers(self) -> bool:
        token = _current.set(None)
        try:
            self._check()
        except OSError as error:
            if error.errno != errno.EHOSTUNREACH:
                raise
            return False
        finally:
            _current.reset(token)
        return True


_current: ContextVar[Patience | None] = ContextVar("patience", default=None)


@contextlib.contextmanager
def patient(check: Callable[[], None]) -> Iterator[None]:
    """Inside, this thread waits for storage on S3; `check` as for `Patience`."""
    token = _current.set(Patience(check))
    try:
        yield
    finally:
        _current.reset(token)


def wait(url: str, answered: float) -> bool:
    """Wait with the patience of this thread, if it has any; whether the storage answers now."""
    found = _current.get()
    return found is not None and found.wait(url, answered)


def pause(seconds: float) -> None:
    until = time.monotonic() + seconds
    while not signals.leaving() and (left := until - time.monotonic()) > 0:
        time.sleep(min(SLICE, left))


def _say(line: str) -> None:
    after_progress = "\n" if sys.stderr.isatty() else ""  # whose line does not end
    with contextlib.suppress(OSError):  # a log's full disk loses the line and not the night
        print(after_progress + printable(line, lines=False), file=sys.stderr, flush=True)
