"""GPU kernels for what an update computes besides matrix products: kernels.cu, compiled by CUDA's run-time compiler, part of torch.

Where they cannot be compiled, torch's own operations do the same in more passes over memory.
"""

from __future__ import annotations

import warnings
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

NAMES = ("winnow_rectify", "winnow_gate", "winnow_adam")
THREADS = 256
AT_ONCE = 4  # numbers


def serves(*tensors: Tensor) -> bool:
    """Whether the kernels can work on all of `tensors`, whose last axis they take four numbers at a time."""
    return all(tensor.is_cuda and fits(tensor) for tensor in tensors) and _available(tensors[0].device.index)


def fits(tensor: Tensor) -> bool:
    return tensor.dtype == torch.float32 and tensor.shape[-1] % AT_ONCE == 0 and tensor.data_ptr() % (4 * AT_ONCE) == 0


def rectify(x: Tensor, bias: Tensor) -> Tensor:
    """max(x + bias, 0) in place of a contiguous x [N, B, H], for biases [N, H] in rows."""
    size = x.shape[1] * x.shape[2]
    _launch("winnow_rectify", x, (_blocks(size), len(x)), (THREADS, 1), [x, bias, size, x.shape[2], bias.stride(0)])
    return x


def gate(gradient: Tensor, y: Tensor, sums: Tensor | None) -> Tensor:
    """0 in place of a contiguous gradient [N, B, H] where y is not positive; its sums over B into the rows `sums` [N, H], if given."""
    return _gate(gradient, y, sums, None, None)


def gate_outer(outer: Tensor, weight: Tensor, y: Tensor, sums: Tensor | None) -> Tensor:
    """The same for the gradient outer [N, B, 1] x weight [N, 1, H], which is made on the way; the rows of `sums` and `weight` are alike."""
    return _gate(torch.empty_like(y), y, sums, outer.contiguous(), weight)


def _gate(gradient: Tensor, y: Tensor, sums: Tensor | None, outer: Tensor | None, weight: Tensor | None) -> Tensor:
    members, rows, columns = y.shape
    given = sums if weight is None else weight
    nothing = _nothing(y.device.index)
    arguments = [gradient, y, nothing if sums is None else sums, rows, columns, 0 if given is None else given.stride(0)]
    arguments += [nothing if outer is None else outer, nothing if weight is None else weight]
    _launch("winnow_gate", y, (-(-columns // (16 * AT_ONCE)), members), (16, 16), arguments)
    return gradient


def adam(
    parameters: Tensor,
    gradient: Tensor,
    first: Tensor,
    second: Tensor,
    rates: Tensor,
    count: Tensor,
    betas: tuple[float, float],
    eps: float,
) -> None:
    """Adam's update number `count` of the rows [K, V], in place, with learning rates [K]."""
    width = parameters.shape[1]
    rows = [parameters, gradient, first, second, rates, count]
    _launch("winnow_adam", parameters, (_blocks(width), len(parameters)), (THREADS, 1), [*rows, width, *betas, eps])


def _blocks(size: int) -> int:
    return -(-size // (AT_ONCE * THREADS))


def _launch(name: str, on: Tensor, grid: tuple[int, int], block: tuple[int, int], arguments: list[Any]) -> None:
    with torch.cuda.device(on.device):
        _kernel(name, on.device.index)((*grid, 1), (*block, 1), arguments)


@cache
def _kernel(name: str, device: int) -> Any:
    """A kernel for the current device, whose number is `device`."""
    return compiled(Path(__file__).with_name("kernels.cu").read_text(), name)


def compiled(source: str, name: str) -> Any:
    """A kernel for the current device, from a source that includes nothing. Raises whatever keeps a compiler from working."""
    from torch.utils import cpp_extension

    # torch asks where CUDA's headers are, which only a toolkit has, and raises where there is none: the folder need not have them.
    home = cpp_extension.CUDA_HOME
    cpp_extension.CUDA_HOME = home or str(Path(torch.__file__).parent)
    try:
        return torch.cuda._compile_kernel(source, name)
    finally:
        cpp_extension.CUDA_HOME = home


@cache
def _nothing(device: int) -> Tensor:
    """An empty tensor, which a kernel gets as a null pointer."""
    return torch.empty(0, device=f"cuda:{device}")


@cache
def _available(device: int) -> bool:
    try:
        with torch.cuda.device(device):
            for name in NAMES:
                _kernel(name, device)
    except Exception as error:  # whatever keeps a compiler from working
        warnings.warn(f"slower updates on this GPU: its kernels cannot be compiled ({str(error).splitlines()[0]})", stacklevel=2)
        return False
    return True
