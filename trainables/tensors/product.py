"""Products of dense matrices on a CPU in the project's C, as an operation of torch's that a tape notes and repeats.

Torch leaves products to its BLAS, whose last bits depend on the processor, and which is slow where a network is narrow. Those of
`native/product.c` have the same bits on every processor that multiplies and adds at once. They are not differentiable by
themselves: see trainables/execution/_linear.py.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from trainables.native.build import library
from trainables.tensors.calls import Call, address

NAME, SUM = "winnow::product", "winnow::summed"
_ONE = torch.ones(1, 1, 1)


class Product(ctypes.Structure):
    """As in product.c."""

    _fields_ = (
        *((name, ctypes.c_int64) for name in ("matrices", "rows", "columns", "depth")),
        *((name, ctypes.c_void_p) for name in ("a", "b", "start", "c")),
        ("a_step", ctypes.c_int64 * 3),
        ("b_step", ctypes.c_int64 * 3),
        ("start_step", ctypes.c_int64),
        ("c_step", ctypes.c_int64),
        ("relu", ctypes.c_int64),
        ("gate", ctypes.c_void_p),
    )


def product(a: Tensor, b: Tensor, start: Tensor | None = None) -> Tensor:
    """start + a b for a [N, m, k], b [N, k, n] and start [N, 1, n], float32 on a CPU and of any strides but for neighbours in `start`."""
    result: Tensor = torch.ops.winnow.product(a, b, start)
    return result


def call(name: str, args: Sequence[Any], c: Tensor) -> Call:
    """The call that computes NAME or SUM of `args` again, into `c`."""
    a, b, start = _as_product(*args) if name == SUM else (*args, None)[:3]
    return Call(address("winnow_product"), _arguments(a, b, start, c), (a, b, start, c))


def _arguments(a: Tensor, b: Tensor, start: Tensor | None, c: Tensor) -> Product:
    (matrices, rows, depth), columns = a.shape, b.shape[2]
    if b.shape[:2] != (matrices, depth) or (start is not None and start.shape != (matrices, 1, columns)):
        raise ValueError(f"no product of {[*a.shape]} and {[*b.shape]}, starting with {None if start is None else [*start.shape]}")
    if start is not None and columns > 1 and start.stride(2) != 1:
        raise ValueError(f"the numbers that a product starts with are {start.stride(2)} apart, not neighbours")
    result = Product(matrices, rows, columns, depth, a.data_ptr(), b.data_ptr(), None if start is None else start.data_ptr(), c.data_ptr())
    result.a_step[:], result.b_step[:] = a.stride(), b.stride()
    result.start_step, result.c_step = 0 if start is None else start.stride(0), rows * columns
    return result


def _as_product(x: Tensor) -> tuple[Tensor, Tensor, None]:
    """The sum [N, 1, n] of x [N, m, n] as a product with ones; torch is slow at sums across memory."""
    return _ONE.expand(len(x), 1, x.shape[1]), x, None


def _product(a: Tensor, b: Tensor, start: Tensor | None = None) -> Tensor:
    c = torch.empty(a.shape[0], a.shape[1], b.shape[2])
    library().winnow_product(ctypes.byref(_arguments(a, b, start, c)))
    return c


_library = torch.library.Library("winnow", "DEF")
_library.define("product(Tensor a, Tensor b, Tensor? start=None) -> Tensor")
_library.impl("product", _product, "CPU")
_library.define("summed(Tensor x) -> Tensor")
_library.impl("summed", lambda x: _product(*_as_product(x)), "CPU")
