"""Products and dense layers with their gradients: by the project's C on a CPU, by torch elsewhere."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from trainables.tensors.functions import summed
from trainables.tensors.native_ops import serves
from trainables.tensors.product import product


class _Times(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, a: Tensor, b: Tensor) -> Tensor:
        ctx.save_for_backward(a, b)
        return product(a, b)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        a, b = ctx.saved_tensors
        by_a, by_b = ctx.needs_input_grad
        return times(gradient, b.transpose(1, 2)) if by_a else None, times(a.transpose(1, 2), gradient) if by_b else None


def times(a: Tensor, b: Tensor) -> Tensor:
    """a b for a [N, m, k] and b [N, k, n], differentiable any number of times."""
    result: Tensor = _times(a, b) if serves(a) else torch.bmm(a, b)
    return result


_times: Any = _Times.apply


class _Linear(torch.autograd.Function):
    """b + x w^T for b [N, 1, out], x [N, B, in], w [N, out, in], differentiable any number of times. Torch's own gives the gradient of w
    transposed, to be copied later."""

    @staticmethod
    def forward(ctx: Any, b: Tensor, x: Tensor, w: Tensor) -> Tensor:
        ctx.save_for_backward(x, w)
        w = w.transpose(1, 2)
        return product(x, w, b) if serves(x) else torch.baddbmm(b, x, w)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        x, w = ctx.saved_tensors
        by_b, by_x, by_w = ctx.needs_input_grad
        bias, weight = summed(gradient) if by_b else None, times(gradient.transpose(1, 2), x) if by_w else None
        return bias, times(gradient, w) if by_x else None, weight  # that of x last: the gate of the layer below goes together with it


linear: Any = _Linear.apply
