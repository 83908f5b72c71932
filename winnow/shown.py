"""Where the lines go that a command would print: to the screen, to a function, or nowhere."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Callable, Iterator

Progress = bool | Callable[[str], object]


@contextlib.contextmanager
def lines_to(progress: Progress) -> Iterator[None]:
    """True prints what is printed inside; False prints nothing of it; a function is called with each line.

    Notes and warnings are on stderr in any case."""
    from service.terminal.waiting import silence
    from trainables.errors import UserError

    if not isinstance(progress, bool) and not callable(progress):
        raise UserError(f"progress {progress!r} is neither True nor False, nor a function that takes a line")
    with contextlib.ExitStack() as inside:
        if progress is not True:
            inside.enter_context(silence())
            inside.enter_context(contextlib.redirect_stdout(_Lines(progress) if callable(progress) else io.StringIO()))
        yield


class _Lines(io.TextIOBase):
    """A stream that hands whole lines on."""

    def __init__(self, take: Callable[[str], object]) -> None:
        self._take, self._rest = take, ""

    def write(self, text: str) -> int:
        *lines, self._rest = (self._rest + text).split("\n")
        for line in lines:
            if line.strip():
                self._take(line)
        return len(text)
