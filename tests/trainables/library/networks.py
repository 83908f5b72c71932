"""A small convolutional network, its data and its loss."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn


def network(seed: int = 0) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Conv1d(2, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(32, 16), nn.ReLU(), nn.Linear(16, 3))


def batches(count: int = 1) -> list[tuple[Tensor, Tensor]]:
    made = torch.Generator().manual_seed(7)
    return [(torch.randn(32, 2, 10, generator=made), torch.randn(32, 3, generator=made)) for _ in range(count)]


def loss_of(module: nn.Module) -> Callable[[tuple[Tensor, Tensor]], Tensor]:
    return lambda batch: nn.functional.mse_loss(module(batch[0]), batch[1])


def weights(module: nn.Module) -> Tensor:
    return torch.cat([layer.weight.detach().flatten() for layer in module.modules() if hasattr(layer, "weight")])


def train(module: nn.Module, optimizer: torch.optim.Optimizer, updates: int = 3) -> None:
    for batch in batches(updates):
        optimizer.zero_grad()
        loss_of(module)(batch).backward()
        optimizer.step()
