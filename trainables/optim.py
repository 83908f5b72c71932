"""Adam over the rows of a network: every member its own learning rate and moments. In place; one pass in C where that can run."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from trainables.execution import native

BETAS, EPSILON = (0.9, 0.999), 1e-8  # torch.optim.Adam's defaults, which all reference codes use


class Adam:
    """Kingma & Ba 2015, torch.optim.Adam's arithmetic, on `parameters` [K, V] with a learning rate [K, 1]."""

    def __init__(self, parameters: Tensor, learning_rate: Tensor) -> None:
        self.parameters = parameters
        self.learning_rate = learning_rate
        self.first = torch.zeros_like(parameters)
        self.second = torch.zeros_like(parameters)
        self.count = 0
        self._native = native.serves(parameters)
        self._scratch = torch.empty_like(parameters)

    def minimize(self, gradient: Tensor, factor: float = 1.0) -> None:
        """One update along `gradient` [K, V]; `factor` scales the learning rate (a schedule)."""
        self.count += 1
        if self._native:
            rate = self.learning_rate * factor if factor != 1 else self.learning_rate
            native.adam((self.parameters, gradient, self.first, self.second), rate, self.count, BETAS, EPSILON)
            return
        correction = [1 - beta**self.count for beta in BETAS]
        self.first.lerp_(gradient, 1 - BETAS[0])
        self.second.mul_(BETAS[1]).addcmul_(gradient, gradient, value=1 - BETAS[1])
        torch.sqrt(self.second, out=self._scratch)
        self._scratch.div_(math.sqrt(correction[1])).add_(EPSILON)
        torch.div(self.first, self._scratch, out=self._scratch)
        self.parameters.sub_(self._scratch.mul_(self.learning_rate * (factor / correction[0])))


def track(target: Tensor, online: Tensor, tau: Tensor) -> None:
    """Polyak averaging of rows [K, V]: target <- (1 - tau) target + tau online, with `tau` [K, 1]."""
    if native.serves(target):
        native.track(target, online, tau)
    else:
        target.lerp_(online, tau)
