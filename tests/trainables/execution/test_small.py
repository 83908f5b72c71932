"""A few rows through a dense network on a CPU, as evaluation needs them, are computed from a tape."""

from __future__ import annotations

import gc
import weakref

import pytest
import torch

from trainables.execution import dense
from trainables.execution.dense import few_rows
from trainables.tensors.mlp import MLP, Norm
from trainables.tensors.tape import Tape

SPECS = {
    "actor": MLP((17, 64, 48, 6), output="tanh"),
    "critic": MLP((17, 64, 48, 1), copies=2),
    "deviation": MLP((17, 20, 12), extra={"log_std": 6}),
}
MEMBERS = 3


def network(spec: MLP, members: int = MEMBERS) -> dense.Network:
    flat = torch.randn(members, spec.row, generator=torch.Generator().manual_seed(1)) * 0.2
    return dense.Network(spec, flat, torch.ones_like(flat))


def inputs(batch: int, *sizes: int) -> list[torch.Tensor]:
    return [torch.randn(MEMBERS, batch, size, generator=torch.Generator().manual_seed(size)) for size in sizes]


@pytest.fixture(params=SPECS)
def spec(request: pytest.FixtureRequest) -> MLP:
    return SPECS[request.param]


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The numbers of rows that were computed so."""
    seen: list[int] = []
    plain = dense.Small.__call__
    monkeypatch.setattr(
        dense.Small, "__call__", lambda self, compute, x, copy: (seen.append(x[0].shape[1]), plain(self, compute, x, copy))[1]
    )
    return seen


@pytest.mark.parametrize("batch", [1, 10, 33])
@pytest.mark.parametrize("copy", [None, 0, -1])
def test_it_is_the_network(spec: MLP, batch: int, copy: int | None, small: list[int]) -> None:
    made = network(spec)
    copy = spec.copies - 1 if copy == -1 else copy
    for x in (inputs(batch, 17), inputs(batch, 11, 6)):
        with torch.no_grad(), few_rows:
            found = made(*x, copy=copy)
        wanted = made(*x, copy=copy)
        assert found.shape == wanted.shape
        assert torch.equal(found, wanted)
        assert wanted.requires_grad
    assert small == [batch] * 2


def test_a_member_is_the_same_alone_to_the_last_bit_wherever_its_rows_lie(spec: MLP) -> None:
    made = network(spec)
    (x,) = inputs(10, 17)
    with torch.no_grad(), few_rows:
        together = made(x)
        for k in range(MEMBERS):
            alone = dense.Network(spec, made.parameters[k : k + 1].clone(), torch.ones(1, spec.row))
            for shift in range(4):
                moved = torch.empty(x[k].numel() + shift)[shift:].view(1, 10, 17).copy_(x[k])
                assert torch.equal(alone(moved)[0], together[k])


def test_it_sees_what_training_has_changed_and_results_are_the_callers(spec: MLP) -> None:
    made = network(spec)
    (x,) = inputs(10, 17)
    with torch.no_grad(), few_rows:
        first = made(x)
        kept = first.clone()
        made.parameters.mul_(0.5)
        second = made(x)
    assert torch.equal(first, kept)
    assert torch.equal(second, made(x))
    assert (second != first).any()


def test_a_network_that_is_dropped_is_freed_at_once(spec: MLP) -> None:
    made = network(spec)
    with torch.no_grad(), few_rows:
        made(*inputs(10, 17))
    left = weakref.ref(made)
    gc.disable()
    try:
        del made
        assert left() is None
    finally:
        gc.enable()


def test_inside_a_recording_a_network_is_recorded_with_it(spec: MLP, small: list[int]) -> None:
    made, (x,) = network(spec), inputs(10, 17)
    with torch.no_grad(), Tape() as tape, few_rows:
        found = made(x) * 2
    x.mul_(3)
    tape.repeat()
    assert torch.equal(found, made(x) * 2)
    assert not small


def test_many_inputs_in_turn_are_each_computed_anew(spec: MLP) -> None:
    made = network(spec)
    with torch.no_grad(), few_rows:
        found = [made(*inputs(batch, *sizes)) for batch in (10, 3, 10) for sizes in ((17,), (11, 6), (17,))]
    again = [made(*inputs(batch, *sizes)) for batch in (10, 3, 10) for sizes in ((17,), (11, 6), (17,))]
    assert all(map(torch.equal, found, again))


@pytest.mark.parametrize("norm", ["after", "before"])
def test_it_is_a_normalized_network(norm: Norm, small: list[int]) -> None:
    made, (x,) = network(MLP((17, 16, 1), norm=norm)), inputs(10, 17)
    with torch.no_grad(), few_rows:
        assert torch.equal(made(x), made.frozen(x))
    assert small == [10]


def test_elsewhere_a_network_is_torchs(small: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    made, (x,) = network(SPECS["actor"]), inputs(10, 17)
    found = made(x)
    assert not small
    monkeypatch.setattr(dense, "serves", lambda tensor: False)
    with torch.no_grad(), few_rows:
        torch.testing.assert_close(made(x), found, rtol=1e-5, atol=1e-6)
    assert not small
