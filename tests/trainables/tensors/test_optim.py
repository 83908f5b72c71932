from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch

from trainables.tensors.optim import Adam, Polyak

Make = Callable[[torch.Tensor, torch.Tensor], Adam]
RATES = (3e-4, 1e-2, 0.0)
UPDATES = 60


def gradients(seed: int = 0, size: int = 48) -> list[torch.Tensor]:
    """Of very different sizes, some exactly 0, as behind a mask."""
    made = torch.Generator().manual_seed(seed)
    scale = 10.0 ** torch.randint(-6, 4, (len(RATES), size), generator=made)
    scale[:, ::5] = 0
    return [torch.randn(len(RATES), size, generator=made) * scale for _ in range(UPDATES)]


@pytest.fixture(params=["native", "torch"])
def adam(request: pytest.FixtureRequest) -> Make:
    """Adam as it runs where there is a C compiler, and as it runs elsewhere."""

    def make(parameters: torch.Tensor, learning_rate: torch.Tensor) -> Adam:
        made = Adam(parameters, learning_rate, recorded=request.param == "torch")
        assert bool(made._update) == (request.param == "native")
        return made

    return make


@pytest.mark.parametrize("scheduled", [False, True])
def test_adam_is_torchs_adam_for_each_member_with_its_own_learning_rate(adam: Make, scheduled: bool) -> None:
    start = torch.randn(len(RATES), 48, generator=torch.Generator().manual_seed(1))
    ours = start.clone()
    optimizer = adam(ours, torch.tensor(RATES).unsqueeze(1))
    theirs = [row.clone().requires_grad_() for row in start]
    references = [torch.optim.Adam([row], lr=rate) for row, rate in zip(theirs, RATES, strict=True)]
    for update, gradient in enumerate(gradients()):
        factor = 0.5 * (1 + math.cos(math.pi * update / UPDATES)) if scheduled else 1.0
        optimizer.minimize(gradient, factor)
        for member, reference in enumerate(references):
            theirs[member].grad = gradient[member].clone()
            reference.param_groups[0]["lr"] = RATES[member] * factor
            reference.step()
    for member, row in enumerate(theirs):
        moved = (row - start[member]).abs().max() if RATES[member] else 1.0
        assert (ours[member] - row).abs().max() <= 2e-6 * moved
        assert torch.equal(ours[member, ::5], start[member, ::5])
    state = [reference.state[row] for reference, row in zip(references, theirs, strict=True)]
    torch.testing.assert_close(optimizer.first, torch.stack([s["exp_avg"] for s in state]), rtol=1e-5, atol=1e-9)
    torch.testing.assert_close(optimizer.second, torch.stack([s["exp_avg_sq"] for s in state]), rtol=1e-5, atol=1e-9)
    assert optimizer.count == UPDATES


@pytest.mark.parametrize("factor", [torch.tensor(0.25), torch.tensor([[0.25]]), torch.tensor(0.25, dtype=torch.float64)])
def test_a_factor_may_be_a_tensor(adam: Make, factor: torch.Tensor) -> None:
    rows, rates = torch.ones(2, len(RATES), 48), torch.tensor(RATES).unsqueeze(1)
    for row, by in zip(rows, (0.25, factor), strict=True):
        optimizer = adam(row, rates)
        for gradient in gradients():
            optimizer.minimize(gradient, by)
    assert torch.equal(*rows)


def test_a_members_updates_do_not_depend_on_its_stack_mates(adam: Make) -> None:
    start = torch.randn(len(RATES), 48, generator=torch.Generator().manual_seed(1))
    together = start.clone()
    optimizer = adam(together, torch.tensor(RATES).unsqueeze(1))
    for gradient in gradients():
        optimizer.minimize(gradient)
    for member, rate in enumerate(RATES):
        own = start[member : member + 1].clone()
        alone = adam(own, torch.tensor([[rate]]))
        for gradient in gradients():
            alone.minimize(gradient[member : member + 1])
        assert torch.equal(own[0], together[member])


def test_nan_stays_in_its_member(adam: Make) -> None:
    start = torch.randn(len(RATES), 48)
    disturbed, undisturbed = start.clone(), start.clone()
    rates = torch.tensor(RATES).unsqueeze(1)
    both = adam(disturbed, rates), adam(undisturbed, rates)
    for gradient in gradients():
        both[1].minimize(gradient)
        both[0].minimize(torch.where(torch.tensor([[False], [True], [False]]), torch.nan, gradient))
    assert torch.isnan(disturbed[1]).all()
    assert torch.equal(disturbed[[0, 2]], undisturbed[[0, 2]])


def test_track_is_polyak_averaging_with_each_members_tau() -> None:
    target, online = torch.randn(3, 40).double(), torch.randn(3, 40).double()
    tau = torch.tensor([[0.005], [0.5], [1.0]]).double()
    wanted = (1 - tau) * target + tau * online
    Polyak(target, online, tau).update()
    torch.testing.assert_close(target, wanted, rtol=1e-14, atol=1e-14)
    assert torch.equal(target[2], online[2])
