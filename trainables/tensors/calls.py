"""Calls of the project's C on arguments that stay where they are, which a tape makes one after the other without Python."""

from __future__ import annotations

import ctypes
import functools
from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor

from trainables.native import build


class Move(ctypes.Structure):
    """As in replay.c."""

    _fields_ = (("to", ctypes.c_void_p), ("from_", ctypes.c_void_p), ("bytes", ctypes.c_int64))


class Call:
    """A call of a C function on arguments that stay where they are."""

    __slots__ = ("arguments", "function", "kept")

    def __init__(self, function: int, arguments: Any, kept: Any = None) -> None:
        self.function, self.arguments, self.kept = function, arguments, kept


class _Entry(ctypes.Structure):
    _fields_ = (("function", ctypes.c_void_p), ("arguments", ctypes.c_void_p))


def together(calls: Sequence[Call]) -> Callable[[], object]:
    """The function that makes `calls`, in their order."""
    entries = (_Entry * len(calls))(*(_Entry(call.function, ctypes.addressof(call.arguments)) for call in calls))
    replay = build.library().winnow_replay

    def made() -> None:
        replay(len(entries), entries)

    made.calls = calls  # type: ignore[attr-defined]  # their arguments stay alive
    return made


def move(to: Tensor, source: Callable[[], tuple[Tensor, int]]) -> tuple[Call, Callable[[], None]]:
    """The call that copies row `i` of `block` to `to`, for `source` giving (block, i), and what sets it for the next time."""
    bytes_of_row = to.numel() * to.element_size()
    made = Move(to.data_ptr(), None, bytes_of_row)

    def prepare() -> None:
        block, row = source()
        made.from_ = block.data_ptr() + row * bytes_of_row

    return Call(address("winnow_move"), made, (to, source, prepare)), prepare


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
