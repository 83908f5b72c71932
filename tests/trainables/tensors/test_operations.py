"""What a tape has C do gives torch's bits, whatever the numbers and however the operands lie in memory."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from trainables.tensors import operations
from trainables.tensors.calls import Call
from trainables.tensors.tape import Tape

ODD = [0.0, -0.0, 1.0, -1.0, 2.5, float("inf"), float("-inf"), float("nan"), 1e-40, 3e38]

ELEMENTWISE: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "neg": lambda x, y: -x,
    "abs": lambda x, y: x.abs(),
    "reciprocal": lambda x, y: x.reciprocal(),
    "square": lambda x, y: x.square(),
    "relu": lambda x, y: torch.relu(x),
    "through a relu": lambda x, y: torch.ops.aten.threshold_backward(*torch.broadcast_tensors(x, y), 0),
    "first power": lambda x, y: x.pow(1.0),
    "add": lambda x, y: x + y,
    "add a number": lambda x, y: x + 0.1,
    "sub": lambda x, y: x - y,
    "rsub": lambda x, y: 1 - x,
    "mul": lambda x, y: x * y,
    "mul a number": lambda x, y: x * 0.3,
    "div": lambda x, y: x / y,
    "div by a number": lambda x, y: x / 256,
    "minimum": torch.minimum,
    "maximum": torch.maximum,
    "clamp": lambda x, y: x.clamp(-1, 1),
    "clamp from below": lambda x, y: x.clamp(min=-1),
    "clamp by tensors": lambda x, y: x.clamp(-y.nan_to_num(1).abs(), y.nan_to_num(1).abs()),
    "where": lambda x, y: torch.where(x > y, x, y),
    "ge": lambda x, y: (x >= y).float(),
    "le a number": lambda x, y: (x <= 0.5).float(),
    "lt": lambda x, y: (x < y).float(),
    "eq": lambda x, y: (x == y).float(),
    "and": lambda x, y: torch.logical_and(x > 0, y > 0).float(),
    "masked_fill": lambda x, y: x.masked_fill(y > 0, 2.0),
    "cat": lambda x, y: torch.cat((*torch.broadcast_tensors(x, y), y.expand_as(x + y)), dim=-1),
    "repeat": lambda x, y: x.repeat(*[1] * (x.dim() - 2), 3, 1),
    "repeat in a new dimension": lambda x, y: x.repeat(4, *[1] * (x.dim() - 2), 2, 1),
    "back through a slice": lambda x, y: torch.ops.aten.slice_backward(x, [*x.shape[:-1], 2 * x.shape[-1] + 1], -1, 1, 2**63 - 1, 2),
    "back through a choice": lambda x, y: torch.ops.aten.select_backward(x, [*x.shape[:1], 5, *x.shape[1:]], -x.dim(), 3),
    "in place": lambda x, y: x.expand_as(x + y).clone().add_(y).mul_(2.0).clamp_(-1, 1),
}
OPERANDS: dict[str, Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]] = {
    "close together": lambda x, y: (x, y),
    "transposed": lambda x, y: (x.transpose(1, 2), y.transpose(1, 2)),
    "every second": lambda x, y: (x[..., ::2], y[..., 1::2]),
    "a column and a row": lambda x, y: (x[:, :1], y[..., :1].expand(-1, -1, x.shape[-1])),
    "four dimensions": lambda x, y: (x.unflatten(1, (2, 5)).transpose(1, 3), y.unflatten(1, (2, 5)).transpose(1, 3)),
}


@pytest.fixture(autouse=True)
def denormal_numbers() -> None:
    """They are numbers here, whatever trained in this process before; training sets it anew."""
    torch.set_flush_denormal(False)


def odd(seed: int) -> Tensor:
    """[3, 10, 12] with every pair of odd numbers among ordinary ones."""
    drawn = torch.randn(3, 10, 12, generator=torch.Generator().manual_seed(seed))
    drawn[0, :, :10] = torch.tensor(ODD) if seed else torch.tensor(ODD).unsqueeze(1)
    return drawn


def bits_of(tensor: Tensor) -> Tensor:
    """Its bits; one NaN is as good as another."""
    return torch.where(tensor.isnan(), torch.nan, tensor).view(torch.int32)


def recorded(work: Callable[[], Tensor]) -> tuple[Tape, Tensor]:
    tape = Tape()
    with tape, torch.no_grad():
        result = work()
    assert not tape.frozen
    return tape, result


def test_every_pair_of_odd_numbers_is_tried() -> None:
    x, y = odd(0)[0, :, :10], odd(1)[0, :, :10]
    assert len({(str(a), str(b)) for a, b in zip(x.flatten().tolist(), y.flatten().tolist(), strict=True)}) == len(ODD) ** 2


@pytest.mark.parametrize("operands", OPERANDS)
@pytest.mark.parametrize("operation", ELEMENTWISE)
def test_an_operation_has_torchs_bits(operation: str, operands: str) -> None:
    memory = torch.ones(3, 10, 12), torch.ones(3, 10, 12)
    x, y = OPERANDS[operands](*memory)
    tape, result = recorded(lambda: ELEMENTWISE[operation](x, y))
    for to, numbers in zip(memory, (odd(0), odd(1)), strict=True):
        to.copy_(numbers)
    tape.repeat()
    wanted = ELEMENTWISE[operation](x, y)
    if operation in ("minimum", "maximum", "clamp by tensors"):  # of 0 and -0 torch itself takes the one here and the other there
        result, wanted = result + 0.0, wanted + 0.0
    assert torch.equal(bits_of(result), bits_of(wanted))


@pytest.mark.parametrize("operation", sorted(ELEMENTWISE.keys() - {"clamp by tensors", "in place"}))
def test_an_operation_runs_in_c(operation: str) -> None:
    x, y = torch.randn(2, 1, 256, 6)
    tape, _ = recorded(lambda: ELEMENTWISE[operation](x, y))
    assert tape.made
    assert all(isinstance(call, Call) for call in tape.made)
    assert len(tape.steps) == 1


REDUCTIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "mean of the last": lambda x: x.mean(-1),
    "mean of two": lambda x: x.mean((1, 2)),
    "mean of all but the first, kept": lambda x: x.flatten(1).mean(1, keepdim=True),
    "sum of the last": lambda x: x.sum(-1),
    "sum of two numbers": lambda x: x[:, :2].sum(1),
    "minimum of two": lambda x: x[:, :2].amin(1),
    "maximum of ten, kept": lambda x: x[:, :10].amax(1, keepdim=True),
}


@pytest.mark.parametrize("size", [2, 6, 9, 100, 257, 3000])
@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_a_reduction_has_torchs_bits_and_runs_in_c(reduction: str, size: int) -> None:
    x = torch.ones(3, 12, size)
    tape, result = recorded(lambda: REDUCTIONS[reduction](x))
    x.copy_(torch.randn(3, 12, size) * 10.0 ** torch.randint(-3, 4, (3, 12, size)))
    tape.repeat()
    assert torch.equal(result, REDUCTIONS[reduction](x))
    assert all(isinstance(call, Call) for call in tape.made)


def test_what_has_other_bits_in_c_stays_torchs() -> None:
    x = torch.randn(3, 10, 12)
    left = {
        "a sum across memory": lambda: x.sum(0),
        "a third power": lambda: x.pow(3),
        "twice the other": lambda: x.add(x, alpha=2),
        "whole numbers": lambda: torch.arange(5) + 1,
        "double": lambda: x.double() * 2,
        "rounded": lambda: torch.div(x, 2, rounding_mode="floor"),
        "exp": lambda: x.exp(),
    }
    for name, work in left.items():
        tape, result = recorded(work)
        assert not any(isinstance(call, Call) for call in tape.made), name
        x.normal_()
        tape.repeat()
        assert torch.equal(result, work()), name


def test_another_order_of_sums_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    operations.sums_are_torchs.cache_clear()
    mean = torch.Tensor.mean
    try:
        monkeypatch.setattr(torch.Tensor, "mean", lambda x, dim: mean(x.double(), dim).float())
        assert not operations.sums_are_torchs()
    finally:
        monkeypatch.undo()
        operations.sums_are_torchs.cache_clear()
    assert operations.sums_are_torchs()
