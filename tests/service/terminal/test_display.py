from __future__ import annotations

import io

from service.terminal.display import Display


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_pipe_gets_plain_lines_once_in_a_while() -> None:
    stream = io.StringIO()
    display = Display(stream)
    for number in range(100):
        display.show(f"line {number}")
    display.show("the end", last=True)
    assert stream.getvalue() == "line 0\nthe end\n"


def test_a_terminal_gets_one_line_written_over() -> None:
    stream = Terminal()
    display = Display(stream)
    display.show("first line")
    display.note("a trial failed")
    display.show("end", last=True)
    assert stream.getvalue() == "\rfirst line" + "\r" + " " * 10 + "\ra trial failed\n" + "\rend       \n"
