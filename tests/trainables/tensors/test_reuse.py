"""Memory of recorded results is used again, and never that of a result that somebody still needs."""

from __future__ import annotations

import weakref
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from trainables.tensors.reuse import address
from trainables.tensors.tape import Tape


def assert_repeats(work: Callable[[], Tensor], x: Tensor) -> None:
    """What `work` makes of x is made of other numbers, too, by a tape."""
    tape = Tape()
    with tape, torch.no_grad():
        result = work()
    x.normal_()
    tape.repeat()
    assert torch.equal(result, work())


def test_a_chain_of_operations_needs_two_places_and_one_in_place() -> None:
    x, w = torch.randn(2, 8, 8)
    for step, most in ((lambda y: y @ w, 2), (torch.tanh, 1), (lambda y: torch.tanh(y @ w), 2)):
        tape = Tape()
        with tape, torch.no_grad():
            y = x
            for _ in range(20):
                y = step(y)
            del y
        places = {address(tensor) for call in tape.calls for tensor in call.tensors()} - {address(x), address(w)}
        assert len(places) == most


def test_what_is_held_stays_where_it_is() -> None:
    x = torch.randn(8, 8)
    tape = Tape()
    with tape, torch.no_grad():
        early = x @ x
        y = early
        for _ in range(5):
            y = torch.tanh(y @ x)
        row = (y @ x)[2]  # a view of memory that nobody else holds
        late = y + 1
        del y
    x.normal_()
    tape.repeat()
    again = x @ x
    assert torch.equal(early, again)
    for _ in range(5):
        again = torch.tanh(again @ x)
    assert torch.equal(late, again + 1)
    assert torch.equal(row, (again @ x)[2])


@pytest.mark.parametrize("other", ["transposed", "shifted", "both"])
def test_an_operand_that_lies_otherwise_is_not_written_over(other: str) -> None:
    x = torch.randn(8, 8)

    def work() -> Tensor:
        y = x * 2
        if other == "both":
            return y + y.t()
        return (y.t() if other == "transposed" else y.roll(1, 0)[:, :]) + x

    assert_repeats(work, x)


def test_an_operand_that_is_needed_later_is_not_written_over() -> None:
    x = torch.randn(8, 8)

    def work() -> Tensor:
        y = x * 2
        z = torch.tanh(y)
        return (y - z) @ z

    assert_repeats(work, x)


def test_the_memory_that_results_had_while_they_were_recorded_is_given_back() -> None:
    x = torch.randn(64, 64)
    tape, seen = Tape(), []
    with tape, torch.no_grad():
        y = x
        for _ in range(20):
            y = torch.tanh(y @ x)
            seen.append(weakref.ref(y.untyped_storage()))
        del y
    assert [each() for each in seen] == [None] * 20
