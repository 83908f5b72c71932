"""exp, log, tanh and the like in C: what they are in float64, the same bits on every processor, and differentiable twice."""

from __future__ import annotations

import ctypes
import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.distributions import Normal

from tests.arm import array, emulated, told
from trainables.native import build
from trainables.tensors import functions, gaussian, native_ops, streams
from trainables.tensors.operations import FUNCTIONS, elementwise

TORCHS: dict[str, Callable[[Tensor], Tensor]] = {
    "exp": torch.exp,
    "log": torch.log,
    "tanh": torch.tanh,
    "sigmoid": torch.sigmoid,
    "softplus": torch.nn.functional.softplus,
}
ODD = torch.tensor([0.0, -0.0, math.inf, -math.inf, math.nan, 3e38, -3e38, 89, 88.8, -104.5, 1e-30, 1.5e-38, 1, -1])


def own(name: str) -> Callable[[Tensor], Tensor]:
    function: Callable[[Tensor], Tensor] = getattr(functions, name)
    return function


def numbers(name: str, count: int = 200_003) -> Tensor:
    """Float32 of all sizes for which the function is neither 0 nor infinite."""
    made = torch.Generator().manual_seed(0)
    drawn = torch.rand(count, generator=made)
    if name == "log":
        return torch.cat([(175 * drawn - 87).double().exp().float(), 0.5 + drawn])
    return torch.cat([(2 * drawn - 1) * 80, torch.randn(count, generator=made), torch.randn(count, generator=made) * 0.01])


def with_library(library: ctypes.CDLL, name: str, x: Tensor) -> Tensor:
    y = torch.empty_like(x)
    call = elementwise(name, y, (x,))
    library.winnow_elementwise(ctypes.byref(call.arguments))
    return y


def test_every_function_of_the_c_code_is_tried() -> None:
    assert set(TORCHS) == set(FUNCTIONS)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_it_is_the_function_to_float32s_rounding(name: str) -> None:
    x = numbers(name)
    wanted = TORCHS[name](x.double())
    error = (own(name)(x) - wanted).abs() / wanted.abs()
    assert error.max() < {"tanh": 4e-7}.get(name, 2e-7), "of the number itself: float32's steps are 1.2e-7 apart"
    assert error.max() > 0


@pytest.mark.parametrize("name", FUNCTIONS)
def test_odd_numbers_become_what_torch_makes_of_them(name: str) -> None:
    torch.testing.assert_close(own(name)(ODD), TORCHS[name](ODD.double()).float(), rtol=1e-6, atol=2e-38, equal_nan=True)


def test_tanh_stays_within_one() -> None:
    assert functions.tanh(torch.linspace(-20, 20, 1_000_001)).abs().max() <= 1


@pytest.mark.parametrize("name", FUNCTIONS)
def test_first_and_second_derivatives_are_torchs(name: str) -> None:
    x = torch.linspace(0.1, 6, 50) if name == "log" else torch.linspace(-30, 30, 121)

    def derivatives(function: Callable[[Tensor], Tensor], at: Tensor) -> list[Tensor]:
        at = at.clone().requires_grad_()
        (first,) = torch.autograd.grad(function(at).sum(), at, create_graph=True)
        return [first, *torch.autograd.grad(first.sum(), at)]

    for found, wanted in zip(derivatives(own(name), x), derivatives(TORCHS[name], x.double()), strict=True):
        torch.testing.assert_close(found.double(), wanted, rtol=2e-6, atol=1e-6)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_number_has_the_same_bits_alone_and_among_others(name: str) -> None:
    x = numbers(name)[-61:]
    whole = own(name)(x)
    assert torch.equal(torch.cat([own(name)(one) for one in x.split(1)]), whole)
    assert torch.equal(own(name)(x[:60].view(3, 4, 5).transpose(0, 2)), whole[:60].view(3, 4, 5).transpose(0, 2))
    assert own(name)(x[:0].view(0, 3)).shape == (0, 3)


@pytest.mark.parametrize("level", [name for name, needs in build.NEEDS.items() if needs <= build._features()])
def test_it_has_the_same_bits_with_every_instruction_set(level: str) -> None:
    library = build._loaded(level)
    for name in FUNCTIONS:
        for x in (numbers(name, 20_001), ODD):
            assert torch.equal(with_library(library, name, x).view(torch.int32), own(name)(x).view(torch.int32)), name
    keys = torch.tensor([streams.key_of(0, "noise")])
    drawn = native_ops.uniform(keys, 0, 1, 10_002)
    library.winnow_normal(ctypes.c_int64(drawn.numel() // 2), ctypes.c_void_p(drawn.data_ptr()))
    assert torch.equal(drawn, native_ops.normal(keys, 0, 1, 10_002))


@emulated
def test_it_has_the_same_bits_on_arm(tmp_path: Path) -> None:
    lines, calls, wanted = ['#include "update.c"', "#include <stdio.h>"], [], []
    for name in FUNCTIONS:
        x = numbers(name, 300)
        wanted += own(name)(x).tolist()
        lines.append(array("float", f"for_{name}", x.tolist()))
        calls.append(f'for (int i = 0; i < {len(x)}; i++) printf("%a\\n", {name}_of(for_{name}[i]));')
    keys = torch.tensor([streams.key_of(0, "noise")])
    drawn = native_ops.uniform(keys, 0, 1, 500).flatten()
    wanted += native_ops.normal(keys, 0, 1, 500).flatten().tolist()
    lines.append(array("float", "drawn", drawn.tolist()))
    calls.append('winnow_normal(250, drawn); for (int i = 0; i < 500; i++) printf("%a\\n", drawn[i]);')
    assert told("\n".join([*lines, "int main(void) {", *calls, "return 0; }"]), tmp_path) == wanted


def test_logsumexp_is_torchs_and_finite_where_exp_is_not() -> None:
    x = torch.randn(2, 3, 31, 8, generator=torch.Generator().manual_seed(0)) * 100 + 500
    x.requires_grad_()
    wanted = torch.logsumexp(x.double(), 2)
    found = functions.logsumexp(x, 2)
    torch.testing.assert_close(found.double(), wanted, rtol=1e-6, atol=0)
    (gradient,) = torch.autograd.grad(found.sum(), x)
    torch.testing.assert_close(gradient, torch.autograd.grad(wanted.sum(), x)[0], rtol=2e-5, atol=1e-7)


def test_logsumexp_of_what_is_not_finite_is_torchs() -> None:
    x = torch.tensor([[math.inf, 1.0], [-math.inf, -math.inf], [-math.inf, 2.0], [math.nan, 1.0], [math.inf, math.nan]])
    torch.testing.assert_close(functions.logsumexp(x, 1), torch.logsumexp(x, 1), equal_nan=True)


@pytest.mark.parametrize("shape", [(2, 8, 3), (2, 1, 3), (2, 8, 1), (2, 1, 1), (1, 8, 3)])
def test_a_deviation_of_any_shape_that_fits_gives_torchs_density(shape: tuple[int, ...]) -> None:
    made = torch.Generator().manual_seed(0)
    value, mean = torch.randn(2, 2, 8, 3, generator=made)
    log_std = (torch.randn(shape, generator=made) / 3).requires_grad_()
    found, wanted = gaussian.log_prob(value, mean, log_std), Normal(mean, log_std.exp()).log_prob(value).sum(-1)
    torch.testing.assert_close(found, wanted)
    torch.testing.assert_close(*(torch.autograd.grad(density.sum(), log_std)[0] for density in (found, wanted)))
