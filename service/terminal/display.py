"""A line that is refreshed in place on a terminal and in a notebook, and printed now and then where the output goes elsewhere."""

from __future__ import annotations

import errno
import os
import sys
import time
from typing import Any, Protocol, TextIO

from trainables.output import is_notebook, printable

LINE_EVERY = 10.0  # seconds between lines where nobody watches, e.g. in `ray job logs`
REFRESH = 0.5  # the same on a terminal
FULL = (errno.ENOSPC, errno.EDQUOT)


def is_screen(stream: TextIO) -> bool:
    """Whether what is written there can be written over."""
    return stream.isatty() and os.environ.get("TERM") not in ("dumb", "unknown")


class Notes(Protocol):
    """Shows lines that stay, as `Display` does."""

    def note(self, line: str) -> None: ...


class Display:
    """Shows one line that changes, and lines that stay. On a narrower terminal the line continues below."""

    def __init__(self, stream: TextIO | None = None) -> None:
        self._stream = stream or sys.stdout
        self._terminal = is_screen(self._stream)
        self._notebook = is_notebook(self._stream)
        self._live: Any = None  # rich's, while it is shown
        self._shown = 0.0
        self._width = 0

    def show(self, line: str, *, last: bool = False) -> None:
        line, now = printable(line, lines=False), time.monotonic()
        if not last and now - self._shown < (REFRESH if self._terminal or self._notebook else LINE_EVERY):
            return
        self._shown = now
        if self._terminal:
            self._refresh(line, last)
        elif self._notebook:
            self._write("\r" + line.ljust(self._width) + ("\n" if last else ""))
            self._width = 0 if last else len(line)
        else:
            self._write(line + "\n")

    def note(self, line: str) -> None:
        """A line that stays."""
        line = printable(line, lines=False)
        if self._live:
            from rich.text import Text

            self._live.console.print(Text(line))
        else:
            self._write(("\r" + " " * self._width + "\r" if self._width else "") + line + "\n")

    def _write(self, text: str) -> None:
        """Where a log's disk is full the line is lost, and not the night."""
        try:
            self._stream.write(text)
            self._stream.flush()
        except OSError as error:
            if error.errno not in FULL:
                raise

    def _refresh(self, line: str, last: bool) -> None:
        from rich.console import Console
        from rich.live import Live
        from rich.text import Text

        if not self._live:
            console = Console(file=self._stream, force_terminal=True, highlight=False)
            # Drawn from here alone, never by a thread; the cursor stays visible, as a run may end at any moment.
            self._live = Live(
                console=console, auto_refresh=False, redirect_stdout=False, redirect_stderr=False, vertical_overflow="visible"
            )
            self._live.start()
            console.show_cursor(True)
        self._live.update(Text(line), refresh=True)
        if last:
            self._live.stop()
            self._live = None
