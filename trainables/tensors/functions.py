"""exp, log, tanh and the like, and sums over rows: of float32 on a CPU by the project's C, as operations that a tape notes and repeats;
elsewhere torch's own.

Torch leaves these to libraries that choose their code, and with it the last bits, by the processor and its maker. Those of
`native/functions.h` have the same bits on all. All are differentiable any number of times.
"""

from __future__ import annotations

import ctypes
import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from trainables.native.build import library
from trainables.tensors.native_ops import serves
from trainables.tensors.operations import elementwise

AT_ONCE = 32  # floats, with the widest registers there are
_library = torch.library.Library("winnow", "FRAGMENT")


def _function(name: str, torchs: Callable[[Tensor], Tensor], slope: Callable[[Tensor, Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    """The function `name`; `slope` is its derivative at x where its value is y."""

    def computed(x: Tensor) -> Tensor:
        y = torch.empty(x.shape)
        if y.numel():
            call = elementwise(name, y.flatten(), (x.flatten(),))
            library().winnow_elementwise(ctypes.byref(call.arguments))
        return y

    _library.define(f"{name}(Tensor x) -> Tensor")
    _library.impl(name, computed, "CPU")
    operation = getattr(torch.ops.winnow, name)

    class Differentiable(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: Tensor) -> Tensor:
            y: Tensor = operation(x)
            ctx.save_for_backward(x, y)
            return y

        @staticmethod
        def backward(ctx: Any, gradient: Tensor) -> Tensor:
            return gradient * slope(*ctx.saved_tensors)

    apply: Any = Differentiable.apply
    return lambda x: apply(x) if serves(x) else torchs(x)


def _softplus(x: Tensor) -> Tensor:
    """Torch's, of x [K, ...], for each member the same as alone.

    On a CPU torch computes many numbers at once, and those that are left at the end one by one, which rounds otherwise. So each member's
    are filled up."""
    missing = -(x.numel() // len(x)) % AT_ONCE
    if not (missing and x.is_cpu):
        return functional.softplus(x)
    filled = functional.softplus(torch.cat([x.flatten(1), torch.zeros(len(x), missing)], dim=1))
    return filled[:, :-missing].reshape(x.shape)


class _Summed(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.count = x.shape[1]
        result: Tensor = torch.ops.winnow.summed(x)
        return result

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return repeated(gradient, ctx.count)


class _Repeated(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, count: int) -> Tensor:
        return x.repeat(1, count, 1)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return summed(gradient), None


_sum: Any = _Summed.apply
_repeat: Any = _Repeated.apply


def summed(x: Tensor) -> Tensor:
    """The sum [N, 1, n] over the rows of x [N, m, n]."""
    result: Tensor = _sum(x) if serves(x) else x.sum(1, keepdim=True)
    return result


def repeated(x: Tensor, count: int) -> Tensor:
    """x [N, 1, n] for each of `count` rows, [N, count, n]; its gradient is their sum."""
    result: Tensor = _repeat(x, count) if serves(x) else x.expand(-1, count, -1)
    return result


exp = _function("exp", torch.exp, lambda x, y: y)
log = _function("log", torch.log, lambda x, y: x.reciprocal())
tanh = _function("tanh", torch.tanh, lambda x, y: 1 - y.square())
sigmoid = _function("sigmoid", torch.sigmoid, lambda x, y: y * (1 - y))
softplus = _function("softplus", _softplus, lambda x, y: sigmoid(x))


def logsumexp(x: Tensor, dim: int) -> Tensor:
    """log of the sum of exp(x) over a dimension, which the result lacks; also where exp(x) is beyond float32."""
    if not serves(x):
        return torch.logsumexp(x, dim)
    largest = x.detach().amax(dim, keepdim=True)
    largest = largest.masked_fill(largest.abs() == math.inf, 0)
    return log(exp(x - largest).sum(dim)) + largest.squeeze(dim)
