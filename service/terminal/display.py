"""A line that is refreshed in place on a terminal and in a notebook, and printed now and then where the output goes elsewhere."""

from __future__ import annotations

import sys
import time
from typing import TextIO

from trainables.output import is_notebook, printable

LINE_EVERY = 10.0  # seconds between lines where nobody watches, e.g. in `ray job logs`
REFRESH = 0.5  # the same on a terminal


class Display:
    """Shows one line that changes, and lines that stay."""

    def __init__(self, stream: TextIO | None = None) -> None:
        self._stream = stream or sys.stdout
        self._live = self._stream.isatty() or is_notebook(self._stream)
        self._shown = 0.0
        self._width = 0

    def show(self, line: str, *, last: bool = False) -> None:
        line, now = printable(line, lines=False), time.monotonic()
        if not last and now - self._shown < (REFRESH if self._live else LINE_EVERY):
            return
        self._shown = now
        if self._live:
            import shutil

            line = line[: shutil.get_terminal_size().columns - 1]
            self._stream.write("\r" + line.ljust(self._width) + ("\n" if last else ""))
            self._width = 0 if last else len(line)
        else:
            self._stream.write(line + "\n")
        self._stream.flush()

    def note(self, line: str) -> None:
        """A line that stays."""
        self._stream.write(("\r" + " " * self._width + "\r" if self._live else "") + printable(line, lines=False) + "\n")
        self._stream.flush()
