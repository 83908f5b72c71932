"""The line that changes: on a terminal, in a notebook, in a pipe."""

import contextlib
import io
import os
import re

import pytest

from service.terminal import display as displays
from service.terminal.display import Display

LONG = "3/12 done | 4 running | 0 failed | 1,234 updates/s | 5 min left | scores so far: " + "  ".join(
    f"snip@{sparsity} {score}" for sparsity, score in ((80, 64), (90, 61), (95, 57), (98, 33), (99, 12))
)


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def screen(written: str, width: int) -> list[str]:
    """What a terminal of that width shows in the end: lines, `\\r`, and rich's codes to go up and to erase a line."""
    lines, row, column = [""], 0, 0
    for code, mode, text in re.findall(r"\x1b\[(\??\d*)([A-Za-z])|([^\x1b])", written):
        if mode == "A":
            row -= int(code or 1)
        elif mode == "K":
            lines[row] = ""
        elif text == "\r":
            column = 0
        elif text == "\n":
            row, column = row + 1, 0
            lines += [""] * (row - len(lines) + 1)
        elif text:
            assert column < width
            lines[row] = lines[row][:column].ljust(column) + text + lines[row][column + 1 :]
            column += 1
    return [line.rstrip() for line in lines]


def test_a_pipe_gets_plain_lines_once_in_a_while() -> None:
    stream = io.StringIO()
    display = Display(stream)
    for number in range(100):
        display.show(f"line {number}")
    display.show("the end", last=True)
    assert stream.getvalue() == "line 0\nthe end\n"


def test_a_terminal_gets_one_line_written_over(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(displays, "REFRESH", 0.0)
    stream = Terminal()
    display = Display(stream)
    display.note("starting")
    display.show("first line, which is longer")
    display.show("second line")
    display.note("a trial failed")
    display.show("end", last=True)
    display.note("and a table")
    assert screen(stream.getvalue(), 80) == ["starting", "a trial failed", "end", "and a table", ""]


def test_a_line_that_is_wider_than_the_terminal_goes_on_below_and_is_written_over_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(displays, "REFRESH", 0.0)
    monkeypatch.setenv("COLUMNS", "80")
    stream = Terminal()
    display = Display(stream)
    display.show(LONG)
    shown = screen(stream.getvalue(), 80)
    assert " ".join(line.strip() for line in shown).split() == LONG.split()
    display.show("12/12 done", last=True)
    assert [line for line in screen(stream.getvalue(), 80) if line] == ["12/12 done"]


def test_the_cursor_is_never_left_hidden() -> None:
    stream = Terminal()
    Display(stream).show("a run that is killed now")
    assert stream.getvalue().rindex("\x1b[?25h") > stream.getvalue().rindex("\x1b[?25l")


def test_a_log_on_a_full_disk_loses_its_lines_and_not_the_run() -> None:
    full = open("/dev/full", "w")  # noqa: SIM115  # closing it tries once more
    display = Display(full)
    display.show("1/4 done", last=True)
    display.note("a trial failed")
    display.show("4/4 done", last=True)
    with pytest.raises(OSError, match="No space left"):
        full.close()


def test_a_log_that_nobody_reads_any_more_ends_the_run() -> None:
    read, write = os.pipe()
    os.close(read)
    with contextlib.suppress(BrokenPipeError), os.fdopen(write, "w") as pipe, pytest.raises(BrokenPipeError):
        Display(pipe).show("1/4 done", last=True)
