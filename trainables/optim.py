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
        self._scratch = torch.empty_like(parameters)
        self._native = native.serves(parameters)
        if self._native:
            self._update = native.adam(parameters, self.first, self.second, learning_rate, BETAS, EPSILON)

    def minimize(self, gradient: Tensor, factor: float = 1.0) -> None:
        """One update along `gradient` [K, V]; `factor` scales the learning rate (a schedule)."""
        self.count += 1
        if self._native:
            self._update(gradient, factor, self.count)
            return
        correction = [1 - beta**self.count for beta in BETAS]
        self.first.lerp_(gradient, 1 - BETAS[0])
        self.second.mul_(BETAS[1]).addcmul_(gradient, gradient, value=1 - BETAS[1])
        torch.sqrt(self.second, out=self._scratch)
        self._scratch.div_(math.sqrt(correction[1])).add_(EPSILON)
        torch.div(self.first, self._scratch, out=self._scratch)
        self.parameters.sub_(self._scratch.mul_(self.learning_rate * (factor / correction[0])))


class Polyak:
    """Polyak averaging of rows [K, V]: target <- (1 - tau) target + tau online, with `tau` [K, 1]."""

    def __init__(self, target: Tensor, online: Tensor, tau: Tensor) -> None:
        self.target, self.online, self.tau = target, online, tau
        self.update = native.track(target, online, tau) if native.serves(target) else self._update

    def _update(self) -> None:
        self.target.lerp_(self.online, self.tau)
