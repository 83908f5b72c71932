"""Operations of torch as calls of `native/replay.c`, which a tape makes one after the other without Python.

Only what has the same bits in C: operations that torch computes by one of IEEE's per element, sums of neighbouring elements, whose
order of additions replay.c knows, and what is the project's own (functions.py, product.py). Other sums stay calls of torch.
"""

from __future__ import annotations

import ctypes
import functools
import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from trainables.tensors import product
from trainables.tensors.calls import Call, address, together

FUNCTIONS = ("exp", "log", "tanh", "sigmoid", "softplus")  # of native/functions.h
CODES = {
    name: code
    for code, name in enumerate(
        ("copy", "neg", "abs", "square", "reciprocal", "relu", *FUNCTIONS, "add", "sub", "mul", "div", "minimum", "maximum", "clamp",
         "gate", "where", "ge", "gt", "le", "lt", "eq", "logical_and")
    )
}  # fmt: skip
COMPARISONS = {"ge", "gt", "le", "lt", "eq"}
LONGEST = 16  # slices that a minimum or maximum over a dimension is taken of
Operand = Tensor | float


class Elementwise(ctypes.Structure):
    """As in replay.c."""

    _fields_ = (
        ("operation", ctypes.c_int64),
        ("size", ctypes.c_int64 * 3),
        ("step", ctypes.c_int64 * 3 * 4),
        ("data", ctypes.c_void_p * 4),
        ("number", ctypes.c_float * 3),
    )


class Sum(ctypes.Structure):
    """As in replay.c."""

    _fields_ = (
        *((name, ctypes.c_int64) for name in ("outputs", "count", "stride")),
        ("to", ctypes.c_void_p),
        ("from_", ctypes.c_void_p),
        ("divisor", ctypes.c_float),
    )


def in_c(name: str, args: Sequence[Any], kwargs: dict[str, Any], results: Sequence[Tensor]) -> list[Call] | None:
    """The calls for torch's operation `name` ("aten::mul.Tensor"); None where it is not one of those that have the same bits in C."""
    if name in (product.NAME, product.SUM):
        return [product.call(name, args, results[0])]
    operation, overload = parts(name)
    if operation in ("sum", "mean") and overload != "" and "out" not in kwargs:
        return _summed(operation, results[0], *args, **kwargs)
    made = lines(name, args, kwargs, results)
    try:
        return None if made is None else [elementwise(*each) for each in made]
    except _ElsewhereError:
        return None


def parts(name: str) -> tuple[str, str]:
    """Operation and overload of a name ("aten::mul.Tensor")."""
    operation, _, overload = name.removeprefix("aten::").partition(".")
    return operation, overload


class _ElsewhereError(Exception):
    """Not an operation on plain elements."""


Line = tuple[str, Tensor, tuple[Operand, ...]]  # an operation's name, its result, its operands


def lines(name: str, args: Sequence[Any], kwargs: dict[str, Any], results: Sequence[Tensor]) -> list[Line] | None:
    """What torch's operation `name` does to single elements; None where it does something else."""
    operation, overload = parts(name)
    make = _MAKERS.get((operation, overload)) or _MAKERS.get((operation, "*"))
    if make is None or "out" in kwargs or len(results) != 1 or not _plain(results[0]):
        return None
    try:
        return make(results[0], *args, **kwargs)
    except _ElsewhereError:
        return None


def _one(operation: str) -> Callable[..., list[Line]]:
    return lambda out, x, other=None, **rest: [(operation, out, (x,) if other is None else (x, _unscaled(other, rest)))]


def _unscaled(other: Operand, rest: dict[str, Any]) -> Operand:
    _only(rest.pop("alpha", 1) == 1 and not rest)
    return other


def _only(condition: object) -> None:
    if not condition:
        raise _ElsewhereError


def _power(out: Tensor, x: Tensor, exponent: float) -> list[Line]:
    _only(exponent in (1, 2))
    return [("square" if exponent == 2 else "copy", out, (x,))]


def _reversed(out: Tensor, x: Tensor, other: Operand, alpha: float = 1) -> list[Line]:
    _only(alpha == 1)
    return [("sub", out, (other, x))]


def _clamp(out: Tensor, x: Tensor, low: Operand | None = None, high: Operand | None = None) -> list[Line]:
    return [("clamp", out, (x, -math.inf if low is None else low, math.inf if high is None else high))]


def _gate(out: Tensor, gradient: Tensor, y: Tensor, threshold: float) -> list[Line]:
    return [("gate", out, (gradient, y, threshold))]


def _where(out: Tensor, condition: Tensor, x: Operand, y: Operand) -> list[Line]:
    return [("where", out, (condition, x, y))]


def _masked_fill(out: Tensor, x: Tensor, mask: Tensor, value: Operand) -> list[Line]:
    return [("where", out, (mask, value, x))]


def _extreme(operation: str) -> Callable[..., list[Line]]:
    def over(out: Tensor, x: Tensor, dims: Any = (), keepdim: bool = False) -> list[Line]:
        first, *others = _slices(out, x, dims, LONGEST)
        return [("copy", out, (first,)), *((operation, out, (out, each)) for each in others)]

    return over


def _slices(out: Tensor, x: Tensor, dims: Any, most: int) -> list[Tensor]:
    """The parts of x that are reduced to `out`, each in its shape; at most `most`."""
    over = dims_of(x, dims)
    _only(math.prod(x.shape[d] for d in over) <= most)
    rest = [d for d in range(x.dim()) if d not in over]
    moved = x.permute(*rest, *over)
    parts = [moved]
    for d in reversed(range(len(rest), x.dim())):
        parts = [part.select(d, i) for part in parts for i in range(part.shape[d])]
    return [part.view(out.shape) for part in parts]


def _summed(operation: str, out: Tensor, x: Tensor, dims: Any = (), keepdim: bool = False, dtype: Any = None) -> list[Call] | None:
    """The sums or means over the last dimensions of neighbouring elements, or over dimensions of at most two elements."""
    over = dims_of(x, dims)
    count = math.prod(x.shape[d] for d in over)
    if not (_plain(out) and _plain(x) and x.dtype == out.dtype == torch.float32 and dtype is None):
        return None
    if count <= 2 and operation == "sum":  # of more, the order of torch's additions is its own
        slices = _slices(out, x, dims, 2)
        return [elementwise("copy", out, (slices[0],)) if count == 1 else elementwise("add", out, (slices[0], slices[1]))]
    if over != list(range(x.dim() - len(over), x.dim())) or not x.is_contiguous() or not sums_are_torchs():
        return None
    made = Sum(out.numel(), count, count, out.data_ptr(), x.data_ptr(), count if operation == "mean" else 1)
    return [Call(address("winnow_sum"), made, (out, x))]


@functools.cache
def sums_are_torchs() -> bool:
    """Whether this torch adds in the order that replay.c knows; if not, it goes on adding itself."""
    generator = torch.Generator().manual_seed(0)
    for count in (3, 7, 13, 256, 600, 1536, 5000, 70_001):
        x, out = torch.randn(3, count, generator=generator), torch.empty(3)
        made = Sum(3, count, count, out.data_ptr(), x.data_ptr(), count)
        together([Call(address("winnow_sum"), made)])()
        if not torch.equal(out, x.mean(1)):
            return False
    return True


def dims_of(x: Tensor, dims: Any) -> list[int]:
    return sorted(d % x.dim() for d in ([dims] if isinstance(dims, int) else dims or range(x.dim())))


def _cat(out: Tensor, tensors: Sequence[Tensor], dim: int = 0) -> list[Line]:
    lines: list[Line] = []
    start = 0
    for each in tensors:
        _only(each.dim() == out.dim())
        lines.append(("copy", out.narrow(dim, start, each.shape[dim]), (each,)))
        start += each.shape[dim]
    return lines


def _repeat(out: Tensor, x: Tensor, repeats: Sequence[int]) -> list[Line]:
    new = len(repeats) - x.dim()
    sizes = [*[1] * new, *x.shape]
    both = [size for pair in zip(repeats, sizes, strict=True) for size in pair]  # each dimension: how often, then the dimension
    once = [size for each in sizes for size in (1, each)]
    return [("copy", out.view(both), (x.reshape(once).expand(both),))]


def _slice_backward(out: Tensor, gradient: Tensor, sizes: Any, dim: int, start: int, end: int, step: int) -> list[Line]:
    return [("copy", out, (0.0,)), ("copy", out[(slice(None),) * (dim % out.dim()) + (slice(start, end, step),)], (gradient,))]


def _select_backward(out: Tensor, gradient: Tensor, sizes: Any, dim: int, index: int) -> list[Line]:
    return [("copy", out, (0.0,)), ("copy", out.select(dim, index), (gradient,))]


def _filled(out: Tensor, *args: Any, **kwargs: Any) -> list[Line]:
    return [("copy", out, (args[-1],))]


def _copied(out: Tensor, x: Tensor, source: Tensor, non_blocking: bool = False) -> list[Line]:
    return [("copy", out, (source,))]


def _as_float(out: Tensor, x: Tensor, **kwargs: Any) -> list[Line]:
    _only(out.dtype == torch.float32 and x.dtype == torch.bool)
    return [("where", out, (x, 1.0, 0.0))]


_MAKERS: dict[tuple[str, str], Callable[..., list[Line]]] = {
    **{(name, ""): _one(name) for name in ("neg", "abs", "reciprocal", "square", "relu", "minimum", "maximum", "logical_and")},
    **{(f"winnow::{name}", ""): _one(name) for name in FUNCTIONS},
    **{(name, "*"): _one(name) for name in ("add", "sub", "mul", "div", *COMPARISONS)},
    **{(f"{name}_", "*"): _one(name) for name in ("add", "sub", "mul", "div", "logical_and")},
    ("pow", "Tensor_Scalar"): _power,
    ("rsub", "*"): _reversed,
    ("clamp", "*"): _clamp,
    ("clamp_", "*"): _clamp,
    ("threshold_backward", ""): _gate,
    ("where", "self"): _where,
    ("masked_fill", "Scalar"): _masked_fill,
    ("masked_fill_", "Scalar"): _masked_fill,
    ("amin", ""): _extreme("minimum"),
    ("amax", ""): _extreme("maximum"),
    ("cat", ""): _cat,
    ("repeat", ""): _repeat,
    ("slice_backward", ""): _slice_backward,
    ("select_backward", ""): _select_backward,
    ("scalar_tensor", ""): _filled,
    ("full_like", ""): _filled,
    ("new_full", ""): _filled,
    ("copy_", ""): _copied,
    ("_to_copy", ""): _as_float,
}


def _plain(tensor: Tensor) -> bool:
    return tensor.is_cpu and tensor.dtype in (torch.float32, torch.bool) and tensor.numel() > 0


def elementwise(operation: str, out: Tensor, operands: tuple[Operand, ...]) -> Call:
    """One operation, its operands expanded to the result's shape and as few dimensions as possible."""
    logical = operation == "logical_and"
    wanted = [torch.bool if logical or operation in COMPARISONS else torch.float32, *[torch.bool if logical else torch.float32] * 3]
    if operation == "where":
        wanted[1] = torch.bool
    made = Elementwise(operation=CODES[operation])
    tensors = [out]
    for k, operand in enumerate(operands):
        if isinstance(operand, Tensor):
            _only(_plain(operand))
            tensors.append(operand.expand(out.shape))
        else:
            made.number[k] = float(operand)
            tensors.append(torch.empty(()).expand(out.shape))
    _only(all(tensor.dtype == dtype for tensor, dtype in zip(tensors, wanted, strict=False)))
    sizes, steps = coalesced(out.shape, [tensor.stride() for tensor in tensors])
    _only(len(sizes) <= 3)
    for d, size in enumerate([1] * (3 - len(sizes)) + sizes):
        made.size[d] = size
    for k, by in enumerate(steps):
        for d, step in enumerate([0] * (3 - len(by)) + by):
            made.step[k][d] = step
        number = k > 0 and not isinstance(operands[k - 1], Tensor)
        made.data[k] = ctypes.addressof(made) + Elementwise.number.offset + 4 * (k - 1) if number else tensors[k].data_ptr()
    return Call(address("winnow_elementwise"), made, tensors)


def coalesced(shape: Sequence[int], strides: Sequence[Sequence[int]]) -> tuple[list[int], list[list[int]]]:
    """The shape without what can be walked as part of another dimension, and the strides in it."""
    sizes: list[int] = []
    steps: list[list[int]] = [[] for _ in strides]
    for d, size in enumerate(shape):
        if size == 1:
            continue
        if sizes and all(by[-1] == stride[d] * size for by, stride in zip(steps, strides, strict=True)):
            sizes[-1] *= size
            for by, stride in zip(steps, strides, strict=True):
                by[-1] = stride[d]
        else:
            sizes.append(size)
            for by, stride in zip(steps, strides, strict=True):
                by.append(stride[d])
    return sizes, steps
