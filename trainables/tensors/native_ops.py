"""The C library's operations on torch tensors other than networks, and whether they can run; trainables/native/build.py compiles it."""

from __future__ import annotations

import ctypes
import functools
import os
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from trainables.native.build import AdamStruct, available, library
from trainables.tensors import tape


def serves(tensor: Tensor) -> bool:
    """Whether the kernels can work on `tensor`: float32, on a CPU, where they run; a failed compilation is not tried again."""
    return tensor.is_cpu and tensor.dtype == torch.float32 and _available(os.environ.get("WINNOW_SIMD"), os.environ.get("CC"))


@functools.cache
def _available(*settings: str | None) -> bool:
    """`available` under these settings of the environment."""
    return available()


def integers(keys: Tensor, first: int, updates: int, count: int, below: int) -> Tensor:
    """int64 [updates, K, count] in [0, below), `below` < 2^32: the draws of `keys` [K, 2] for the updates `first`, `first + 1`, ...

    The same numbers as trainables.tensors.streams.words and to_integers."""
    if not 0 < below < 2**32:
        raise ValueError(f"below {below} is not within (0, 2^32)")
    drawn = torch.empty(updates, len(keys), count, dtype=torch.int64)
    library().winnow_draw(len(keys), keys.contiguous().data_ptr(), first, updates, count, below, drawn.data_ptr(), None)
    return drawn


def uniform(keys: Tensor, first: int, updates: int, count: int) -> Tensor:
    """float32 [updates, K, count] in (0, 1), the same numbers as trainables.tensors.streams.words and to_uniform."""
    drawn = torch.empty(updates, len(keys), count)
    library().winnow_draw(len(keys), keys.contiguous().data_ptr(), first, updates, count, 0, None, drawn.data_ptr())
    return drawn


def normal(keys: Tensor, first: int, updates: int, count: int) -> Tensor:
    """float32 [updates, K, count] standard normals, `count` even: those that trainables.tensors.streams.to_normal makes, but for torch's
    rounding."""
    drawn = uniform(keys, first, updates, count)
    library().winnow_normal(drawn.numel() // 2, drawn.data_ptr())
    return drawn


def gather(rows: Tensor, shift: Tensor, scale: Tensor) -> Callable[[Tensor], Tensor]:
    """The function index -> shift + scale x rows[index], float32 [*index.shape, W], for a table `rows` [N, W].

    Indices are int64 in [0, N), not checked. Like the functions of `adam` and `track` it checks and looks up what stays the same
    once: that takes longer than the work itself on a small pruned network."""
    width = rows.shape[1]
    table, affine = _pointers(rows), _pointers(shift, scale)
    if shift.numel() != width:
        raise ValueError(f"{width} shifts expected, got {shift.numel()}")
    call = library().winnow_gather

    def gathered(index: Tensor) -> Tensor:
        if index.dtype != torch.int64 or not index.is_contiguous():
            raise ValueError(f"contiguous int64 indices expected, got {index.dtype}")
        out = torch.empty(*index.shape, width)
        tape.do(call, (index.numel(), index.data_ptr(), width, *table, *affine, out.data_ptr()), (index, out))
        return out

    return keeping(gathered, rows, shift, scale)


def adam(
    parameters: Tensor,
    first: Tensor,
    second: Tensor,
    rate: Tensor,
    betas: tuple[float, float],
    epsilon: float,
    made: ctypes.c_int64,
) -> Callable[[Tensor, float | Tensor], None]:
    """The function (gradient, factor) that makes one Adam update of `parameters` [K, V] in place and adds 1 to `made`.

    All rows are float32 [K, V]; `rate`, the learning rate per member [K] or [K, 1], is multiplied by the factor. `made` is the number of
    updates so far. torch.optim.Adam's formulas in one pass; a member's numbers do not depend on K."""
    members, size = parameters.shape
    value, *moments = _pointers(parameters, first, second)
    rates = _per_member(rate, members)
    call, increment = library().winnow_adam, torch.autograd.graph.increment_version

    def update(gradient: Tensor, factor: float | Tensor) -> None:
        if gradient.shape != (members, size) or gradient.dtype != torch.float32 or not gradient.is_contiguous():
            raise ValueError(f"a float32 gradient {[members, size]} expected, got {gradient.dtype} {list(gradient.shape)}")
        if isinstance(factor, Tensor):
            if factor.numel() != 1:
                raise ValueError(f"one factor for all members expected, got {list(factor.shape)}")
            factor = factor.to("cpu", torch.float64)
            times = ctypes.cast(factor.data_ptr(), ctypes.POINTER(ctypes.c_double))
        else:
            times = ctypes.pointer(ctypes.c_double(factor))
        step = AdamStruct(members, size, ctypes.pointer(made), value, gradient.data_ptr(), *moments, rates, times, *betas, epsilon)
        tape.do(call, (step,), (gradient, factor))
        increment(parameters)

    return keeping(update, parameters, first, second, rate)


def track(target: Tensor, online: Tensor, tau: Tensor) -> Callable[[], None]:
    """The function that makes one step of Polyak averaging of rows [K, V] in place: target += tau (online - target), with `tau`
    per member [K] or [K, 1]."""
    members, size = target.shape
    arguments = (members, size, *_pointers(target, online), _per_member(tau, members))
    call, increment = library().winnow_track, torch.autograd.graph.increment_version

    def tracked() -> None:
        tape.do(call, arguments)
        increment(target)

    return keeping(tracked, target, online, tau)


def keeping(function: Any, *tensors: Tensor) -> Any:
    """`function`, which works on the memory of `tensors` and so keeps them alive."""
    function.tensors = tensors
    return function


def _pointers(*rows: Tensor) -> list[int]:
    shape = rows[0].shape
    if any(t.dtype != torch.float32 or not t.is_cpu or not t.is_contiguous() or t.shape != shape for t in rows):
        raise ValueError(f"float32 CPU rows of one shape are wanted; got {[(t.dtype, t.device.type, tuple(t.shape)) for t in rows]}")
    return [t.data_ptr() for t in rows]


def _per_member(values: Tensor, members: int) -> int:
    if values.dtype != torch.float32 or not values.is_contiguous() or values.numel() != members:
        raise ValueError(f"one float32 number for each of {members} members is wanted; got {values.dtype} {tuple(values.shape)}")
    return values.data_ptr()
