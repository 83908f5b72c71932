"""What is printed must not fail for want of a letter: a terminal or a job's log may take only ASCII or Latin-1."""

from __future__ import annotations

import io
import sys


def print_any_text() -> None:
    r"""Make stdout and stderr write what their encoding lacks as `\u00e9`, instead of raising UnicodeEncodeError."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper) and stream.errors != "backslashreplace":  # None if the stream is closed
            stream.reconfigure(errors="backslashreplace")
