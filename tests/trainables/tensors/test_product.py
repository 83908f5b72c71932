"""Dense products in C: torch's numbers to rounding, whatever the sizes and strides; the same bits on every processor, in every place."""

from __future__ import annotations

import ctypes
import itertools
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor

from tests.arm import array, emulated, told
from trainables.execution._linear import linear
from trainables.native import build
from trainables.tensors import calls
from trainables.tensors.product import _arguments, product
from trainables.tensors.tape import Tape

SIZES = [1, 2, 7, 8, 9, 16, 17, 31, 33, 64]


def cases() -> Iterator[tuple[Tensor, Tensor, Tensor | None]]:
    """Factors in each layout, of sizes around those of blocks and of parts of the depth."""
    made = torch.Generator().manual_seed(0)

    def random(*shape: int, turned: bool) -> Tensor:
        one, two, three = shape
        return torch.randn(one, three, two, generator=made).transpose(1, 2) if turned else torch.randn(*shape, generator=made)

    shapes = [(m, k, n) for m, n in itertools.product(SIZES, SIZES) for k in (1, 5, 23)]
    shapes += [(m, k, n) for m, n in ((3, 40), (40, 3), (33, 65), (70, 1), (256, 256)) for k in (0, 255, 256, 257, 600)]
    for index, (m, k, n) in enumerate(shapes):
        turned_a, turned_b, starts = index & 1, index >> 1 & 1, index >> 2 & 1
        start = random(2, 1, n, turned=False) if starts else None
        yield random(2, m, k, turned=bool(turned_a)), random(2, k, n, turned=bool(turned_b)), start


def by(library: ctypes.CDLL, a: Tensor, b: Tensor, start: Tensor | None) -> Tensor:
    c = torch.full((a.shape[0], a.shape[1], b.shape[2]), torch.nan)
    library.winnow_product(ctypes.byref(_arguments(a, b, start, c)))
    return c


@pytest.mark.parametrize("level", build.SIMD)
def test_it_is_the_product_but_for_rounding(level: str) -> None:
    if not build.NEEDS[level] <= build._features():
        pytest.skip(f"this processor has no {level}")
    library = build._loaded(level)
    for a, b, start in cases():
        wanted = torch.bmm(a.double(), b.double()) + (0 if start is None else start.double())
        largest = (torch.bmm(a.double().abs(), b.double().abs()) + 1).amax()
        assert (by(library, a, b, start) - wanted).abs().max() <= 2e-6 * largest, (a.shape, b.shape, a.stride(), b.stride())


def test_instruction_sets_that_multiply_and_add_at_once_have_the_same_bits() -> None:
    levels = [level for level in ("avx2", "avx512") if build.NEEDS[level] <= build._features()]
    if len(levels) < 2:
        pytest.skip("this processor has one such instruction set")
    one, two = (build._loaded(level) for level in levels)
    for each in cases():
        assert torch.equal(by(one, *each), by(two, *each)), [tensor if tensor is None else tensor.shape for tensor in each]


def test_the_bits_depend_neither_on_the_place_nor_on_the_company() -> None:
    made = torch.Generator().manual_seed(0)
    a, b = torch.randn(3, 100, 70, generator=made), torch.randn(3, 70, 50, generator=made)
    whole = product(a, b)
    for shift in (1, 3, 7):
        moved = torch.empty(a.numel() + shift)[shift:].view_as(a).copy_(a)
        assert torch.equal(product(moved, b), whole)
    for k in range(3):
        assert torch.equal(product(a[k : k + 1], b[k : k + 1])[0], whole[k])
    assert torch.equal(product(a[:, 40:77], b), whole[:, 40:77])
    assert torch.equal(product(a, b[..., 16:49]), whole[..., 16:49])


def test_what_is_no_number_stays_where_it_is() -> None:
    a, b = torch.ones(1, 20, 9), torch.ones(1, 9, 20)
    a[0, 3, 2], a[0, 11, 5] = torch.nan, torch.inf
    c = product(a, b)
    assert torch.isnan(c[0, 3]).all()
    assert torch.isinf(c[0, 11]).all()
    assert (c[0, [row for row in range(20) if row not in (3, 11)]] == 9).all()


@pytest.mark.parametrize(
    ("b", "start", "told"),
    [
        ((1, 4, 2), None, r"no product of \[1, 3, 5\] and \[1, 4, 2\]"),
        ((2, 5, 2), None, r"no product of \[1, 3, 5\] and \[2, 5, 2\]"),
        ((1, 5, 2), (1, 3, 2), r"starting with \[1, 3, 2\]"),
    ],
)
def test_shapes_that_do_not_fit_are_shown(b: tuple[int, ...], start: tuple[int, ...] | None, told: str) -> None:
    with pytest.raises(ValueError, match=told):
        product(torch.ones(1, 3, 5), torch.ones(b), None if start is None else torch.ones(start))
    with pytest.raises(ValueError, match="2 apart"):
        product(torch.ones(1, 3, 5), torch.ones(1, 5, 2), torch.ones(1, 1, 4)[..., ::2])


def layers(x: Tensor, weights: list[Tensor], keep: list[Tensor]) -> list[Tensor]:
    """The gradients of a network of two rectified layers; what it holds before them is put into `keep`, if that holds anything."""
    leaves = [weight.detach().requires_grad_() for weight in weights]
    first = linear(leaves[1], x, leaves[0])
    hidden = torch.relu(first)
    if keep:
        keep.append(first.detach() * 2)
    out = linear(leaves[3], hidden, leaves[2]).square().sum()
    return list(torch.autograd.grad(out, leaves))


@pytest.mark.parametrize("kept", [False, True])
def test_a_tape_lets_a_product_rectify_and_gate_with_the_same_bits(kept: bool) -> None:
    made = torch.Generator().manual_seed(0)
    x = torch.randn(2, 40, 6, generator=made)
    weights = [torch.randn(shape, generator=made) for shape in ((2, 20, 6), (2, 1, 20), (2, 3, 20), (2, 1, 3))]
    keep = [x] if kept else []
    with Tape() as tape:
        found = layers(x, weights, keep)
    in_c = [call for call in tape.made if isinstance(call, calls.Call)]
    products = [call.arguments for call in in_c if call.function == calls.address("winnow_product")]
    assert [sum(bool(each.relu) for each in products), sum(bool(each.gate) for each in products)] == [0 if kept else 1, 1]
    x.copy_(torch.randn(x.shape, generator=made))
    tape.repeat()
    for again, anew in zip([*found, *keep[1:]], [*layers(x, weights, later := keep[:1]), *later[1:]], strict=True):
        assert torch.equal(again, anew)


@emulated
def test_an_arm_processor_has_the_same_bits(tmp_path: Path) -> None:
    made = torch.Generator().manual_seed(0)
    a, b, start = (
        torch.randn(1, 37, 45, generator=made).transpose(1, 2),
        torch.randn(1, 37, 51, generator=made),
        torch.randn(1, 1, 51, generator=made),
    )
    arrays = {"a": a.transpose(1, 2), "b": b, "start": start}
    program = [
        '#include <stdio.h>\n#include "product.c"',
        *(array("float", name, tensor.flatten().tolist()) for name, tensor in arrays.items()),
        "int main(void) {\n    static float c[45 * 51];",
        "    const Product p = {1, 45, 51, 37, a, b, start, c, {45 * 37, 1, 45}, {37 * 51, 51, 1}, 51, 45 * 51, 0, NULL};",
        '    winnow_product(&p);\n    for (int i = 0; i < 45 * 51; i++) printf("%a\\n", c[i]);\n    return 0;\n}',
    ]
    assert torch.equal(torch.tensor(told("\n".join(program), tmp_path)), product(a, b, start).flatten())
