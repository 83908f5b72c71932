# PYTHON_ARGCOMPLETE_OK
"""The commands: winnow COMMAND ..."""

from __future__ import annotations

from service.terminal import signals

if __name__ == "__main__":
    signals.take()  # the imports below take a moment, and a signal may come in it

import errno
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from service.cli.arguments import name_sweeps
from service.cli.completion import complete
from service.cli.parser import parser
from service.storage import paths, sharing
from service.terminal.signals import INTERRUPTED, UNREAD, unread
from trainables import project
from trainables.errors import UserError
from trainables.output import OUTPUT, name_output, open_streams, print_any_text, printable

STDOUT = 1  # file descriptor
# What users can fix: a storage that is full, read-only, foreign or out of reach, and a path that is none.
REFUSALS = (
    errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM, errno.EHOSTUNREACH, errno.EIO, errno.ESTALE, errno.ENOLCK,
    errno.EOPNOTSUPP, errno.ENOTDIR, errno.EISDIR, errno.EEXIST, errno.ENAMETOOLONG, errno.ELOOP, errno.EBUSY,
)  # fmt: skip


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; returns the exit code: 0 done, 1 something is wrong, 2 bad input (one line on stderr), 130 interrupted, 141 unread."""
    closed = open_streams()
    print_any_text()
    name_output()
    signals.commands()
    try:
        try:
            return _run(argv) or (UNREAD if STDOUT in closed else 0)
        finally:
            sys.stdout.flush()  # not at exit, where it is too late to be quiet
    except KeyboardInterrupt:  # while the command was still being read
        return _interrupted()
    except SystemExit as ended:  # of argparse
        if ended.code or STDOUT not in closed:
            raise
        return UNREAD
    except BrokenPipeError:
        if not unread():
            raise
        _drop_output()
        return UNREAD
    except OSError as error:  # stdout is on a disk that is full
        if error.errno not in REFUSALS:
            raise
        _drop_output()
        print(f"error: {error.filename}: {error.strerror}", file=sys.stderr)
        return 2


def _drop_output() -> None:
    """Let what could not be flushed go nowhere, or it would be tried again at exit."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), STDOUT)


def _run(argv: Sequence[str] | None) -> int:
    given = made = None
    try:
        project.apply()
        known = parser()
        complete(known)
        arguments = known.parse_args(argv)
        given, made = getattr(arguments, "storage", None), getattr(arguments, "to", None)
        name_sweeps(arguments)
        storage = paths.root(given)
        sharing.follow(storage)
        return int(arguments.call(arguments, storage))
    except KeyboardInterrupt:
        return _interrupted()
    except Exception as error:
        if signals.left():  # a native module that is interrupted while it is imported says that it cannot be imported
            return _interrupted()
        if isinstance(error, UserError):
            text = str(error)
        elif isinstance(error, OSError) and error.filename != OUTPUT and (error.errno in REFUSALS or _beside(error, made)):
            text = f"{error.filename2 or error.filename or paths.root(given)}: {error.strerror}"  # of a rename, the name that was meant
        else:
            raise
        print(printable(f"error: {text}", lines=False), file=sys.stderr)
        return 2


def _beside(error: OSError, made: str | Path | None) -> bool:
    """Whether a file or folder that was to be made has no folder to be in, or one that takes none, as /proc."""
    if made is None or not isinstance(error, FileNotFoundError) or error.filename is None:
        return False
    return Path(error.filename).parent in Path(made).absolute().parents


def _interrupted() -> int:
    print("interrupted", file=sys.stderr)
    return INTERRUPTED


if __name__ == "__main__":
    code = main()
    signals.ignore()
    if signals.left():  # no time for what libraries do at exit
        os._exit(code)
    sys.exit(code)
