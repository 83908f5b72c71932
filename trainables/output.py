"""What is printed must fail for want neither of a letter nor of a reader, since a job's log may take only ASCII and stdout may be closed,
and must not command the terminal: names, messages and logs may come from anybody's files."""

from __future__ import annotations

import functools
import io
import json
import math
import os
import re
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

OUTPUT = "stdout"  # as an error names it
# What moves the cursor, colours, rings or turns the direction of writing: control and format characters, C0, C1 and Unicode's.
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u061c\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ud800-\udfff]")


def is_notebook(stream: object) -> bool:
    """Whether what is written to the stream appears in a notebook: no terminal, but a line can be overwritten."""
    return type(stream).__module__ == "ipykernel.iostream"


def name_output() -> None:
    """Let an OSError of writing to stdout have `stdout` for its file: a full disk there is not the storage's."""

    def named(method: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(method)
        def call(*given: Any) -> Any:
            try:
                return method(*given)
            except OSError as error:
                error.filename = error.filename or OUTPUT
                raise

        return call

    given = getattr(sys.stdout, "__dict__", {"write": None})
    if "write" not in given:  # a program may call a command again and again
        given |= {name: named(getattr(sys.stdout, name)) for name in ("write", "flush")}


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


def printable(text: str, *, lines: bool = True) -> str:
    r"""The text with control characters escaped, as `\x1b`. `lines`: line ends stay; without it, the text stays one line."""
    return _CONTROL.sub(lambda found: found[0] if lines and found[0] == "\n" else repr(found[0])[1:-1], text)


def to_json(value: object) -> str:
    """The value as every JSON parser takes it: what is no finite number is null, a path is its text."""
    return json.dumps(_plain(value), indent=1, allow_nan=False)


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _plain(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(each) for each in value]
    if hasattr(value, "tolist"):  # numpy's
        return _plain(value.tolist())
    if isinstance(value, Path):
        return str(value)
    return None if isinstance(value, float) and not math.isfinite(value) else value
