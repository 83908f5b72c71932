"""What is printed must fail for want neither of a letter nor of a reader: a job's log may take only ASCII, and stdout may be closed."""

from __future__ import annotations

import io
import os
import sys


def print_any_text() -> None:
    r"""Make stdout and stderr write what their encoding lacks as `\u00e9`, instead of raising UnicodeEncodeError."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper) and stream.errors != "backslashreplace":
            stream.reconfigure(errors="backslashreplace")


def open_streams() -> set[int]:
    """Let closed ones of stdin, stdout and stderr (`>&-`) lead nowhere; returns their numbers.

    Python makes them None. And the next file that is opened would get the number 1: whatever a library or a process below writes to its
    stdout would be written into that file.
    """
    names = ("stdin", "stdout", "stderr")
    for number in range(len(names)):
        try:
            os.fstat(number)
        except OSError:
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)  # the lowest free number, which is this one
    closed = {number for number, name in enumerate(names) if getattr(sys, name) is None}
    for number in closed:
        setattr(sys, names[number], open(os.devnull, "w" if number else "r"))  # noqa: SIM115
    return closed
