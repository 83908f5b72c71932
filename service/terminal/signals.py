"""Leaving in time: `ray job stop` and init systems send SIGTERM and kill three seconds later; people press Ctrl-C or close the terminal.

The handler raises KeyboardInterrupt in the main thread, which unwinds through whatever runs. On a busy machine that can take too long, and
inside foreign code that waits, as Ray's does for a head that is dead, the handler is not called at all. So a watchdog hears of the signal
by itself: it commits the last words where that has not happened, and ends the process.

SIGUSR1 is a batch system's warning that the job will be ended in a minute or two: a run then ends as at a limit, and its workers have time.

Where no command runs, but `winnow.run` in a notebook or a script, Ctrl-C ends that call alone: then the watchdog leaves the process be.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
SPEAK = 1.6  # seconds after the signal until the watchdog commits the last words itself; before that, workers may commit their work
LEAVE = 2.5  # seconds after the signal until it ends the process
AGAIN = 0.01  # seconds until a signal whose exception was dropped comes once more: after the callback that dropped it
LOOK = 0.1  # seconds between two looks whether a shielded block is over
WARNED = 90.0  # seconds after SIGUSR1 until the process asks itself to leave, if it is still there
INTERRUPTED = 130  # exit code, a shell's for Ctrl-C
UNREAD = 141  # exit code, a shell's for SIGPIPE


class Leaving:
    """Handles the signals. `last_words` commits what must not be lost; it is idempotent and may be called from any thread."""

    current: Leaving | None = None  # the one that is installed

    def __init__(self, last_words: Callable[[], None]) -> None:
        self._last_words, self._over = last_words, threading.Event()
        self.why, self.code = "", INTERRUPTED

    def install(self) -> None:
        """Take the signals; again after anything that took them itself. A SIGHUP that `nohup` has made us deaf to stays ignored."""
        for number in SIGNALS:
            if number != signal.SIGHUP or signal.getsignal(number) is not signal.SIG_IGN:
                signal.signal(number, self._come)

    def now(self, why: str, code: int = INTERRUPTED) -> None:
        """Leave as if a signal had come; from any thread."""
        if not self.why:
            self.why, self.code = why, code
            os.kill(os.getpid(), _own_signal())

    def at_once(self, number: int) -> None:
        """Leave from another thread than the main one, which is inside foreign code that must not be interrupted."""
        _hang_up(number)
        self.why = self.why or signal.Signals(number).name
        self._speak_within(SPEAK)
        self._end()

    def _come(self, number: int, frame: Any) -> None:
        for each in SIGNALS:
            signal.signal(each, _hurry)  # one is enough, and the way out must not be interrupted
        global _left
        _hang_up(number)
        _left, self.why = True, self.why or signal.Signals(number).name
        raise KeyboardInterrupt

    def _unraisable(self, dropped: sys.UnraisableHookArgs) -> None:
        """Python drops an exception that comes in a `__del__` or the callback of a weak reference: the signal then comes once more."""
        if dropped.exc_type is not KeyboardInterrupt or not self.why or threading.current_thread() is not threading.main_thread():
            return sys.__unraisablehook__(dropped)
        self.install()
        with blocked():
            again = threading.Timer(AGAIN, signal.pthread_kill, [threading.get_ident(), _own_signal()])
            again.daemon = True
            again.start()
        return None

    def _watch(self, heard: int) -> None:
        """Wait for a signal, then for the process to leave, and end it if it does not. Python's C code writes each signal to a pipe that
        ends in `heard` when it comes, whatever the main thread is doing."""
        with os.fdopen(heard, "rb", buffering=0) as pipe:  # open to the end: a second signal is written, too
            number = next((number for number in iter(partial(pipe.read, 1), b"") if number[0] in ending_signals()), b"")
            if number and not self._over.wait(SPEAK):
                self.why = self.why or signal.Signals(number[0]).name
                # If the storage hangs, so do the last words. The process still ends in time, and the next driver sees a dead lease.
                threading.Thread(target=self._speak, name="last words", daemon=True).start()
                if not self._over.wait(LEAVE - SPEAK):
                    self._end()
            self._over.wait()

    def _speak_within(self, seconds: float) -> None:
        thread = threading.Thread(target=self._speak, name="last words", daemon=True)
        thread.start()
        thread.join(seconds)

    def _speak(self) -> None:
        with contextlib.suppress(Exception):
            self._last_words()

    def _end(self) -> None:
        for ending in reversed(_endings):
            with contextlib.suppress(Exception):
                ending()
        with contextlib.suppress(OSError):
            print(f"left at once ({self.why})", file=sys.stderr, flush=True)
        os._exit(self.code)

    @contextlib.contextmanager
    def installed(self) -> Iterator[None]:
        """Signals are taken inside, and given back after it: in a notebook or a script, the process goes on after an interruption."""
        global _left, _more
        before = [signal.getsignal(number) for number in SIGNALS]
        heard, said = os.pipe()
        os.set_blocking(said, False)
        with blocked():
            threading.Thread(target=self._watch, args=[heard], name="watchdog", daemon=True).start()
        Leaving.current = self
        waked, hook = signal.set_wakeup_fd(said, warn_on_full_buffer=False), sys.unraisablehook
        sys.unraisablehook = self._unraisable
        self.install()
        try:
            yield
        finally:
            self._over.set()
            sys.unraisablehook = hook
            signal.set_wakeup_fd(waked)
            os.close(said)
            Leaving.current = None
            if process_goes_on() or not self.why:  # else the process is about to end, and no second signal may stop it in that
                for number, handler in zip(SIGNALS, before, strict=True):
                    signal.signal(number, signal.SIG_DFL if handler is None else handler)
                _left, _more = False, 0


_endings: list[Callable[[], object]] = []  # what is done before the process ends in mid-work
_shielded = False
_commands = False  # whether one runs; before that, there is nothing to undo
_left = False
_warned = False
_more = 0  # signals that have come after the first


@contextlib.contextmanager
def ending(action: Callable[[], object]) -> Iterator[None]:
    """Inside, `action` is called by whoever ends the process at once, from any thread."""
    _endings.append(action)
    try:
        yield
    finally:
        _endings.remove(action)


@contextlib.contextmanager
def blocked() -> Iterator[None]:
    """Signals wait inside. A thread that is started here never gets one, so that all come to the main thread or to `shielded`."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextlib.contextmanager
def shielded() -> Iterator[None]:
    """For foreign code that takes signals for itself, or does not survive an exception in its middle, as Ray does while it starts.

    A thread waits for those that end the process, and leaves; others come after the block. Processes that are started inside do not wait
    with us, and a terminal that is closed does not end them: we do.
    """
    global _shielded
    leaving, over = Leaving.current, threading.Event()
    if leaving is None:
        yield
        return

    def wait() -> None:
        while not over.is_set():
            if come := signal.sigtimedwait(ending_signals(), LOOK):
                leaving.at_once(come.si_signo)

    with blocked():
        thread = threading.Thread(target=wait, name="signals", daemon=True)
        thread.start()
        _shielded = True
        try:
            yield
        finally:
            _shielded = False
            over.set()
            thread.join()
            leaving.install()  # ahead of what has come meanwhile


def _in_child() -> None:
    if Leaving.current:
        signal.set_wakeup_fd(-1)  # or a signal to the child would be heard by our watchdog
    if _shielded:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
        signal.signal(signal.SIGHUP, signal.SIG_IGN)


os.register_at_fork(after_in_child=_in_child)


def retake() -> None:
    """Take the signals again from foreign code; from the main thread."""
    if Leaving.current:
        Leaving.current.install()


def ignore() -> None:
    """The work is over: the process ends with its own exit code, whatever comes while its libraries end."""
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)


def take() -> None:
    """Take the signals of a process that has just begun and has nothing to lose: it ends with one line."""
    sys.unraisablehook = _dropped
    signal.signal(signal.SIGUSR1, _warn)
    for number in SIGNALS:
        if number != signal.SIGHUP or signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, _first)


def _warn(number: int, frame: Any) -> None:
    global _warned
    if not _warned:
        _warned = True
        with blocked():
            later = threading.Timer(WARNED, os.kill, [os.getpid(), signal.SIGTERM])
            later.daemon = True
            later.start()


def warned() -> bool:
    """Whether SIGUSR1 has come since `take`: the process will be ended soon, but not at once."""
    return _warned


def _dropped(dropped: sys.UnraisableHookArgs) -> None:
    """Python has dropped an exception that came in a callback. A signal's is raised again by `obey`, so there is nothing to tell."""
    if dropped.exc_type is not KeyboardInterrupt or not _left:
        sys.__unraisablehook__(dropped)


def commands() -> None:
    """A command begins: after `take`, a signal now raises KeyboardInterrupt, so that what is half done is undone."""
    global _commands, _left
    _commands, _left = True, False


def ending_signals() -> Sequence[signal.Signals]:
    """Those after which the process has to end, and soon."""
    return [number for number in SIGNALS if number != signal.SIGINT or not process_goes_on()]


def obey() -> None:
    """Raise KeyboardInterrupt where a signal has come since the command began, and foreign code has dropped its exception."""
    if _commands and _left:
        raise KeyboardInterrupt


def _own_signal() -> signal.Signals:
    """The one by which this process asks itself to leave."""
    return signal.SIGINT if process_goes_on() else signal.SIGTERM


def process_goes_on() -> bool:
    """Whether the process does something else after what has been interrupted, so that all has to be left in good order."""
    return not _commands


def hurried() -> bool:
    """Whether a second signal has come: then nothing is waited for."""
    return _more > 0


def count() -> None:
    """The work is over, and a signal is expected: those that come are counted, and do nothing else."""
    for number in SIGNALS:
        signal.signal(number, _hurry)


def more() -> int:
    """How many signals have come after the first."""
    return _more


def _hurry(number: int, frame: Any) -> None:
    global _more
    _more += 1


def leaving() -> bool:
    """Whether this process, or the call in a notebook, has been asked to end: then nothing is waited for that may not come."""
    return _left or bool(Leaving.current and Leaving.current.why)


def left() -> bool:
    """Whether the process ends because of a signal: then there is no time for what libraries do at exit."""
    return _left


def _first(number: int, frame: Any) -> None:
    global _left
    _hang_up(number)
    _left = True
    if _commands:
        for each in SIGNALS:
            signal.signal(each, signal.SIG_IGN)
        raise KeyboardInterrupt
    os.write(2, b"interrupted\n")
    os._exit(INTERRUPTED)


def _hang_up(number: int) -> None:
    """Write into nothing where the terminal is closed: else each line of the way out would raise an error."""
    if number == signal.SIGHUP:
        for stream in _gone():
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream)


def unread() -> bool:
    """Whether the reader of this process's output has gone, as in `... | head`."""
    return bool(_gone())


def _gone() -> list[int]:
    """Those of stdout and stderr that nobody can read any more."""
    poll = select.poll()
    for stream in (1, 2):
        poll.register(stream, 0)  # the close of the other end is reported without being asked for
    return [stream for stream, event in poll.poll(0) if not event & select.POLLNVAL]
