from __future__ import annotations

import pytest
import torch

from tests.trainables.execution.test_compact import SPEC, material
from trainables.execution import dense, fused
from trainables.tensors.mlp import MLP


def gradient(network: fused.Network | dense.Network, x: torch.Tensor, copy: int | None = None) -> tuple[torch.Tensor, torch.Tensor]:
    y = network(x, copy=copy)
    loss = y.square().sum() + network.extra["log_std"].exp().sum()
    return y.detach(), network.unpack(network.collect(torch.autograd.grad(loss, network.leaves))).clone()


@pytest.mark.parametrize("copy", [None, 1])
@pytest.mark.parametrize("live", [[(10, 20), (40, 90), (60, 20)], [(64, 128)], [(9, 0), (20, 30)]], ids=["pruned", "whole", "cut off"])
def test_the_gradient_is_exactly_that_of_the_masked_network(live: list[tuple[int, int]], copy: int | None) -> None:
    rows, mask = material(live, 0.2 if len(live) > 1 else 1.0)
    if not live[0][1]:  # no unit of the second layer reaches an output of the first member
        SPEC.views(mask)["weight.2"][0] = 0
    x = torch.randn(len(live), 7, 11, dtype=torch.float64)
    found, wanted = (gradient(module.Network(SPEC, rows.clone(), mask), x, copy) for module in (fused, dense))
    torch.testing.assert_close(found[0], wanted[0], rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(found[1], wanted[1], rtol=1e-12, atol=1e-11)
    assert wanted[1].abs().max() > 1


def test_all_members_are_as_wide_as_the_widest_in_steps_of_eight() -> None:
    rows, mask = material([(10, 20), (12, 41), (17, 30)])
    network = fused.Network(SPEC, rows, mask)
    assert network.sizes == (16, 24, 48, 3)
    assert fused.multiples(MLP((3, 100, 20, 0, 1)), [99, 17, 0]) == (100, 20, 0)
    assert fused.multiples(MLP((3, 100, 1)), [0]) == (8,)


def test_copies_lie_as_far_from_each_other_as_members_do() -> None:
    """So that both are one axis of a product, without a copy."""
    rows, mask = material([(10, 20), (12, 41)])
    network = fused.Network(SPEC, rows, mask)
    for weight, bias in network.layers(network.parameters):
        assert weight.shape[0] == 2 * SPEC.copies
        assert weight.stride(0) == bias.stride(0) == network.width
        assert weight.untyped_storage().data_ptr() == network.parameters.untyped_storage().data_ptr()


def test_masks_are_multiplied_only_where_something_is_removed() -> None:
    rows, mask = material([(64, 128)], density=1.0)
    assert not fused.Network(SPEC, rows, torch.ones_like(mask)).masked
    assert fused.Network(SPEC, *material([(10, 20)])).masked


def test_parameters_that_were_changed_before_backward_are_refused() -> None:
    rows, mask = material([(10, 20)])
    network = fused.Network(SPEC, rows, mask)
    y = network(torch.randn(1, 7, 11, dtype=torch.float64))
    network.parameters.mul_(0.5)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        y.sum().backward()


def test_it_can_be_differentiated_once() -> None:
    rows, mask = material([(10, 20)])
    network = fused.Network(SPEC, rows, mask)
    (found,) = torch.autograd.grad(network(torch.randn(1, 7, 11, dtype=torch.float64)).square().sum(), [network.core], create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        found.square().sum().backward()


def test_what_is_kept_of_dead_units_stays_in_the_checkpoint() -> None:
    rows, mask = material([(10, 20), (60, 100)])
    network = fused.Network(SPEC, rows, mask)
    assert torch.equal(network.unpack(network.parameters), rows * mask)
