"""The inner steps of ProsPr: short where a loss is steep, the authors' rate where it is not."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.stacks import World, small_trial
from trainables.pruners import prospr
from trainables.pruning.scored import scored


def test_a_step_ends_where_the_loss_is_lowest_along_it_or_at_the_authors_rate() -> None:
    """Three members with a quadratic each: shallow, steep, and saddle-shaped, where the steepest curvature counts."""
    curvatures = torch.tensor([[[0.5, 2.0]], [[30.0, 400.0]], [[-30.0, -400.0]]], dtype=torch.float64)  # [K, 1, 2]
    point = torch.tensor([[[1.0, -2.0]], [[1.0, -2.0]], [[1.0, -2.0]]], dtype=torch.float64, requires_grad=True)
    loss = (curvatures * point.square()).sum((1, 2)) / 2
    gradient = torch.autograd.grad(loss.sum(), [point], create_graph=True)
    step = prospr.rates([point], list(gradient), 3)
    assert step[0] == prospr.LEARNING_RATE
    assert step[1] == step[2] < prospr.LEARNING_RATE
    moved = point.detach() - step.view(-1, 1, 1) * gradient[0].detach()
    after = curvatures * moved
    assert float((after[1] * gradient[0][1]).detach().sum()) == pytest.approx(0.0, abs=1e-6), "the next gradient is orthogonal to this one"


def test_without_a_gradient_a_step_has_a_length() -> None:
    point = torch.zeros(1, 1, 2, requires_grad=True)
    gradient = torch.autograd.grad(point.square().sum(), [point], create_graph=True)
    assert prospr.rates([point], list(gradient), 1).tolist() == [pytest.approx(prospr.LEARNING_RATE)]


@pytest.mark.parametrize("algorithm", ["td3_bc", "rebrac", "sac_n"])
def test_a_critics_loss_falls_over_the_steps_whatever_the_scale_of_rewards(algorithm: str) -> None:
    world = World([small_trial(algorithm, "prospr", 0.5, reward_scale=100.0)])
    world.agent.build("dense")
    spec = world.agent.specs["critic"]
    mask = [torch.ones(1, spec.copies, outputs, inputs) for inputs, outputs in spec.layers]
    seen: list[float] = []
    found = scored(world.agent, "critic", mask, world.stack, world.data.draw)

    def losses(more: int = 0, **given: Any) -> Iterator[Tensor]:
        for loss in found.losses(more, **given):
            seen.append(float(loss.detach()))
            yield loss

    assert all(layer.isfinite().all() for layer in prospr.saliency(replace(found, losses=losses)))
    assert len(seen) == prospr.STEPS + 1
    assert seen[-1] < seen[0], seen
