"""Calls of the project's C on arguments that stay where they are, which a tape makes one after the other without Python."""

from __future__ import annotations

import ctypes
import functools
from collections.abc import Callable, Sequence
from typing import Any, Protocol

from torch import Tensor

from trainables.native import build


class Block(ctypes.Structure):
    """As in replay.c."""

    _fields_ = (("rows", ctypes.c_void_p), ("first", ctypes.c_int64))


class Row(ctypes.Structure):
    """As in replay.c."""

    _fields_ = (("to", ctypes.c_void_p), ("block", ctypes.c_void_p), ("update", ctypes.c_void_p), ("bytes", ctypes.c_int64))


class Draws(Protocol):
    """A block of rows, one for each of some updates in a row."""

    block: Block
    update: ctypes.c_int64  # the number of the update that is made next

    def hold(self) -> int:
        """Make the block hold this update's row; for how many updates from this one on it does."""

    def now(self) -> Tensor:
        """This update's row."""


class Call:
    """A call of a C function on arguments that stay where they are."""

    __slots__ = ("arguments", "function", "kept")

    def __init__(self, function: int, arguments: Any, kept: Any = None) -> None:
        self.function, self.arguments, self.kept = function, arguments, kept


class _Entry(ctypes.Structure):
    _fields_ = (("function", ctypes.c_void_p), ("arguments", ctypes.c_void_p))


def _entries(calls: Sequence[Call]) -> ctypes.Array[_Entry]:
    return (_Entry * len(calls))(*(_Entry(call.function, ctypes.addressof(call.arguments)) for call in calls))


def together(calls: Sequence[Call]) -> Callable[[], object]:
    """The function that makes `calls`, in their order."""
    entries = _entries(calls)
    replay = build.library().winnow_replay

    def made() -> None:
        replay(len(entries), entries)

    made.calls = calls  # type: ignore[attr-defined]  # their arguments stay alive
    return made


class _Recorded(ctypes.Structure):
    _fields_ = (("count", ctypes.c_int64), ("calls", ctypes.c_void_p))


def in_a_row(by_number: Sequence[Sequence[Call]], update: ctypes.c_int64, leave: ctypes.c_int64) -> Callable[[int], None]:
    """The function (stop) that makes the updates from `update` on, until before `stop` or until another thread sets `leave`, and counts
    `update` up. `by_number`: the calls of an update by its number modulo how many there are."""
    made = [_entries(each) for each in by_number]
    recorded = (_Recorded * len(made))(*(_Recorded(len(each), ctypes.addressof(each)) for each in made))
    repeat, addresses = build.library().winnow_repeat, (ctypes.addressof(update), ctypes.addressof(leave))

    def run(stop: int) -> None:
        repeat(addresses[0], stop, len(recorded), recorded, addresses[1])

    run.kept = made, by_number, update, leave  # type: ignore[attr-defined]  # stay alive
    return run


def row(to: Tensor, draws: Draws) -> Call:
    """The call that copies the row of the update that `draws` is at."""
    made = Row(to.data_ptr(), ctypes.addressof(draws.block), ctypes.addressof(draws.update), to.numel() * to.element_size())
    return Call(address("winnow_row"), made, (to, draws))


def packed(function: Any, arguments: Sequence[Any]) -> Call | None:
    """The call of one of the library's functions, if it takes one structure, or whole numbers and addresses only."""
    name = getattr(function, "__name__", "").removeprefix("winnow_")
    if len(arguments) == 1 and isinstance(arguments[0], ctypes.Structure):
        return Call(address(f"winnow_{name}"), arguments[0])
    if name not in build.REPLAYED:
        return None
    whole = [ctypes.addressof(a) if isinstance(a, ctypes.Array) else int(a or 0) for a in arguments]
    return Call(address(f"winnow_replayed_{name}"), (ctypes.c_int64 * len(whole))(*whole), arguments)


@functools.cache
def address(name: str) -> int:
    found = ctypes.cast(getattr(build.library(), name), ctypes.c_void_p).value
    assert found
    return found
