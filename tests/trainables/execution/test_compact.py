from __future__ import annotations

import pytest
import torch
from torch import Tensor

from trainables.execution import compact, dense
from trainables.tensors.mask import to_row
from trainables.tensors.mlp import MLP

SPEC = MLP((11, 64, 128, 3), copies=2, extra={"log_std": 3})


def material(live: list[tuple[int, int]], density: float = 0.2) -> tuple[Tensor, Tensor]:
    """Rows and mask rows (float64) of members that have so many live units in each hidden layer, scattered over it."""
    made = torch.Generator().manual_seed(0)
    mask = [(torch.rand(len(live), SPEC.copies, o, i, generator=made) < density).double() for i, o in SPEC.layers]
    for k, counts in enumerate(live):
        for layer, count in zip((2, 1), reversed(counts), strict=True):
            for copy in range(SPEC.copies):
                alive = torch.zeros(SPEC.sizes[layer], dtype=torch.bool)
                alive[torch.randperm(len(alive), generator=made)[:count]] = True
                mask[layer][k, copy][:, ~alive] = 0
                above = 0 if layer == 2 else int(mask[2][k, copy].sum(0).argmax())  # some unit that is itself alive
                mask[layer][k, copy, above, alive] = 1
    rows = torch.randn(len(live), SPEC.row, generator=made, dtype=torch.float64)
    rows[:, SPEC.used :] = 0
    return rows, to_row(SPEC, mask).double()


def test_the_gradient_is_exactly_that_of_the_masked_network() -> None:
    rows, mask = material([(10, 20), (40, 90), (60, 20), (60, 22)])
    x = torch.randn(4, 7, 11, dtype=torch.float64)
    found = []
    for module in (compact, dense):
        network = module.Network(SPEC, rows.clone(), mask)
        y = network(x)
        loss = y.square().sum() + network.extra["log_std"].exp().sum()
        gradients = torch.autograd.grad(loss, network.leaves)
        found.append((y.detach(), network.unpack(network.collect(gradients)).clone()))
    torch.testing.assert_close(found[0][0], found[1][0], rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(found[0][1], found[1][1], rtol=1e-12, atol=1e-11)
    assert found[1][1].abs().max() > 1


def test_a_network_is_as_small_as_its_live_units_allow() -> None:
    rows, mask = material([(10, 20)])
    network = compact.Network(SPEC, rows, mask)
    (part,) = network.parts
    assert part.small.sizes == (11, 16, 24, 3)
    kept = int(mask[:, : SPEC.used].sum())
    assert network.parameters.shape[1] <= part.small.row + kept + 64 < SPEC.row
    assert network(torch.randn(1, 5, 11, dtype=torch.float64)).shape == (1, 2, 5, 3)


def test_members_of_one_size_class_go_together_and_others_do_not_widen_them() -> None:
    rows, mask = material([(10, 20), (12, 22), (60, 100), (11, 20)])
    network = compact.Network(SPEC, rows, mask)
    assert [part.small.sizes[1:3] for part in network.parts] == [(16, 24), (64, 128), (16, 24)]
    assert [(part.members.start, part.members.stop) for part in network.parts] == [(0, 2), (2, 3), (3, 4)]


@pytest.mark.parametrize("live", [(0, 16), (16, 16), (17, 24), (25, 32), (200, 256)])
def test_size_classes(live: tuple[int, int]) -> None:
    count, width = live
    assert compact.size_class(MLP((3, 256, 1)), [count]) == (width,)


def test_no_class_is_wider_than_the_layer() -> None:
    assert compact.size_class(MLP((3, 100, 20, 1)), [99, 17]) == (100, 20)


def test_what_is_kept_of_dead_units_stays_in_the_checkpoint() -> None:
    rows, mask = material([(10, 20), (60, 100)])
    network = compact.Network(SPEC, rows, mask)
    assert torch.equal(network.unpack(network.parameters), rows * mask)
    dead = network.place[:, network.parts[0].first + network.parts[0].small.row :]
    assert (dead[0] < SPEC.row).any()
