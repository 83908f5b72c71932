"""Whole updates of a stack, one block of threads for each member: what onchip.h reads, and the launch of its kernel.

On a GPU CUDA's run-time compiler, part of torch, compiles onchip.cu; on a CPU the same headers are part of the project's C (build.py).
"""

from __future__ import annotations

import ctypes
import re
import sys
from collections.abc import Sequence
from functools import cache
from typing import Any

import numpy as np
import torch
from torch import Tensor

from trainables.errors import one_line
from trainables.native import build, cuda

TILE, DEPTH, PARTS, NONE = 32, 8, 4, -1  # as in onchip.h
THREADS = 512  # of a block
SHARED = {80: 163 * 1024, 90: 227 * 1024}  # bytes of a block, by compute capability; CUDA's programming guide, table of technical data
SCRATCH = 4 * TILE * TILE  # bytes that sums need
OPERATIONS = (
    "copy", "neg", "abs", "square", "reciprocal", "relu", "add", "sub", "mul", "div", "minimum", "maximum", "clamp", "gate", "where",
    "ge", "gt", "le", "lt", "eq", "logical_and", "exp", "log", "tanh", "sqrt", "sigmoid", "softplus", "tanh_slope", "sigmoid_slope",
    "softplus_slope",
)  # fmt: skip
CODES = ("elementwise", "sum", "draw", "gather", "forward", "backward", "adam", "track", "extras")
DRAWS = ("integers", "uniform", "normal")
WEIGHT = np.dtype([("take", "<i4"), ("from", "<u2"), ("to", "<u2")])
ROW = np.dtype([("first", "<i4"), ("pairs", "<u2"), ("to", "<u2")])

_int, _pointer = ctypes.c_int32, ctypes.c_void_p


def _fields(names: str, kind: Any = _int) -> list[Any]:
    return [(name, kind) for name in names.split()]


class Copy(ctypes.Structure):
    _fields_ = (
        *_fields("forward backward units inputs", _pointer),
        *_fields("unit input weight", _int * (DEPTH + 1)),
        *_fields("back height"),
    )


class Network(ctypes.Structure):
    _fields_ = (*_fields("values first second copies", _pointer), *_fields("width count depth features outputs tanh"))


class Elementwise(ctypes.Structure):
    _fields_ = (("operation", _int), ("size", _int * 3), ("step", _int * 3 * 4), ("at", _int * 4), ("number", ctypes.c_float * 4))


class Sum(ctypes.Structure):
    _fields_ = (*_fields("size to_step from_step inner inner_step", _int * 3), *_fields("to from_"), ("divisor", ctypes.c_float))


class Draw(ctypes.Structure):
    _fields_ = _fields("kind count below key to")


class Gather(ctypes.Structure):
    _fields_ = _fields("count index to")


class Part(ctypes.Structure):
    _fields_ = _fields("at row step size")


class Pass(ctypes.Structure):
    _fields_ = (*_fields("network copy batch parts out gradient"), ("part", Part * PARTS), ("input", _int * PARTS))


class Adam(ctypes.Structure):
    _fields_ = _fields("network gradient rate ordinal")


class Track(ctypes.Structure):
    _fields_ = _fields("target online tau")


class Extras(ctypes.Structure):
    _fields_ = _fields("network count to")


class _Any(ctypes.Union):
    _fields_ = [(kind.__name__.lower(), kind) for kind in (Elementwise, Sum, Draw, Gather, Pass, Adam, Track, Extras)]


class Instruction(ctypes.Structure):
    _fields_ = (("code", _int), ("of", _Any))


class Machine(ctypes.Structure):
    _fields_ = (
        *_fields("arena networks instructions starts table shift scale", _pointer),
        ("room", ctypes.c_longlong),
        *_fields("columns ordinals"),
    )


def instruction(code: str, operands: ctypes.Structure) -> Instruction:
    made = Instruction(code=CODES.index(code))
    setattr(made.of, type(operands).__name__.lower(), operands)
    return made


def there(values: Any, device: str | torch.device) -> Tensor:
    """The bytes of structures or of an array on a device."""
    return torch.frombuffer(bytearray(values), dtype=torch.uint8).to(device)


class Machinery:
    """Programs on the rows of an arena [K, room] and on networks; `table`: the dataset's rows, shifts and scales, where they are read."""

    def __init__(
        self, arena: Tensor, networks: Sequence[Network], programs: Sequence[Sequence[Instruction]], table: Sequence[Tensor] = ()
    ) -> None:
        self.members, self.device = len(arena), arena.device
        listed = [each for program in programs for each in program]
        starts = np.cumsum([0, *map(len, programs)]).astype(np.int32)
        self.kept = [
            arena, *table,
            *(there(part, self.device) for part in ((Network * len(networks))(*networks), (Instruction * len(listed))(*listed), starts)),
        ]  # fmt: skip
        at = [tensor.data_ptr() for tensor in (arena, *self.kept[-3:], *(table or [arena] * 3))]
        ordinals = 1 + max((each.of.adam.ordinal for each in listed if CODES[each.code] == "adam"), default=-1)
        machine = Machine(*at, arena.shape[1], table[0].shape[1] if table else 0, ordinals)
        self.machine = there(machine, self.device)

    def launch(self, first: int, program: Sequence[int], numbers: Tensor, shared: int) -> None:
        """Make the updates `first`, ..., of which each is of a `program`; `numbers` [updates, 2 x optimizers] are what Adam is given, and
        `shared` the bytes of a block."""
        which, numbers = torch.tensor(program, dtype=torch.int32), numbers.float().contiguous()
        shared = max(shared, SCRATCH)
        if self.device.type == "cpu":
            memory = torch.empty(shared // 4 + 4)  # starts at a cache line
            build.library().winnow_onchip(
                self.machine.data_ptr(), self.members, first, len(program), which.data_ptr(), numbers.data_ptr(), memory.data_ptr()
            )
            return
        with torch.cuda.device(self.device):
            kernel = _kernel(self.device.index, THREADS)
            if shared > kernel._max_shared_mem_bytes:
                kernel.set_shared_memory_config(shared)
            given = [part.to(self.device) for part in (torch.tensor([first]), which, numbers)]
            kernel((self.members, 1, 1), (THREADS, 1, 1), [self.machine, given[0], len(program), *given[1:]], shared)


def room(device: torch.device) -> int:
    """Bytes that a block can have on the chip of a GPU; on a CPU as many as it wants."""
    if device.type == "cpu":
        return sys.maxsize
    properties: Any = torch.cuda.get_device_properties(device)
    return int(properties.shared_memory_per_block_optin)


def source(name: str = "onchip.cu") -> str:
    """The kernel as one text, because CUDA's compiler is given no folder to look for headers in."""
    seen: set[str] = set()

    def read(name: str) -> str:
        lines = []
        for line in (build.NATIVE / name).read_text().splitlines():
            included = re.match(r'#include "(.*)"', line)
            if included and included[1] not in seen:
                seen.add(included[1])
                lines.append(read(included[1]))
            elif not included and line != "#pragma once":
                lines.append(line)
        return "\n".join(lines)

    return read(name)


@cache
def _kernel(device: int, threads: int) -> Any:
    """The kernel for the current device, whose number is `device`."""
    return cuda.compiled(f"#define THREADS {threads}\n{source()}", "winnow_onchip")


def missing(device: torch.device) -> str:
    """Why there is no kernel for a device, in a line; empty where there is."""
    return "" if device.type == "cpu" else _missing(torch.cuda.current_device() if device.index is None else device.index)


@cache
def _missing(device: int) -> str:
    try:
        with torch.cuda.device(device):
            _kernel(device, THREADS)
    except Exception as error:  # whatever keeps a compiler from working
        return one_line(error)
    return ""
