"""UserError and its kinds, which commands print as one line before they exit with code 2, and the two errors that end the work on a
stack."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class UserError(ValueError):
    """Bad input. The message is one line that shows the value and the choices."""


class MachineError(UserError):
    """A fault of this machine: its cache, compiler, clock or keys. A command refuses it like bad input; a worker's host may be the only one
    that has it, so the work is tried again, perhaps on another: trainables/failures.py."""


class CannotComputeError(UserError):
    """A network that an execution has no room for, or no kernel on this device."""


class SupersededError(RuntimeError):
    """Another worker has taken over the work: nothing more may be written."""

    kind = "superseded"  # the class of this failure: trainables/failures.py


class StoppedError(RuntimeError):
    """Some members were asked to stop; the others continue without them from the checkpoint that was just written."""


def unknown(kind: str, value: object, choices: Iterable[object], where: str = "") -> UserError:
    """`no pruner 'snop'; there are: dense, erk, ...; did you mean 'snip'?`, and after the value ` where` it was looked for."""
    names = [str(choice) for choice in choices]
    near = difflib.get_close_matches(str(value), names, n=1, cutoff=0.7)
    return UserError(
        f"no {kind} {str(value)!r}{where}; there are: {', '.join(names) or 'none'}" + (f"; did you mean {near[0]!r}?" if near else "")
    )


def first_line(error: BaseException, *, named: bool = False) -> str:
    """The first line of an exception's text, after its class where `named`; the class alone where it has no text."""
    kind, text = type(error).__name__, next(iter(str(error).strip().splitlines()), "")
    return f"{kind}: {text}" if named and text else text or kind


def one_line(error: BaseException) -> str:
    """An exception's text on one line, without its colour codes and at most 200 characters."""
    text = " ".join(str(error).replace("\x1b[0m", "").split()) or type(error).__name__
    return text if len(text) <= 200 else text[:197] + "..."
