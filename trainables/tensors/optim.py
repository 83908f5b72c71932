"""Adam over the rows of a network, with a learning rate and moments for each member; in place, and one pass in C where that runs.
Schedules of the learning rate."""

from __future__ import annotations

import ctypes
from collections.abc import Callable

import torch
from torch import Tensor

from trainables.native import cuda
from trainables.tensors import calls, native_ops

BETAS, EPSILON = (0.9, 0.999), 1e-8  # torch.optim.Adam's defaults, which all reference codes use


AHEAD = 64  # updates that a schedule is computed for at once


class Schedule:
    """A factor of the learning rate for each update, float64 []; fulfils calls.Draws, so that recorded updates read their own."""

    def __init__(self, update: ctypes.c_int64, factor: Callable[[int], float]) -> None:
        self.update, self.factor = update, factor
        self.numbers = (ctypes.c_double * AHEAD)()
        self.block = calls.Block(ctypes.addressof(self.numbers), -AHEAD)

    def hold(self) -> int:
        at = self.update.value
        if not 0 <= at - self.block.first < AHEAD:
            self.numbers[:], self.block.first = [self.factor(at + i) for i in range(AHEAD)], at
        return self.block.first + AHEAD - at

    def now(self) -> Tensor:
        return torch.tensor(self.numbers[self.update.value - self.block.first], dtype=torch.float64)


class Adam:
    """Kingma & Ba 2015, torch.optim.Adam's arithmetic, on `parameters` [K, V] with a learning rate [K, 1].

    If updates are `recorded` (trainables/training/updates.py), or the project's C does not run, a GPU kernel computes it, or torch's fused
    kernel member by member."""

    def __init__(self, parameters: Tensor, learning_rate: Tensor, recorded: bool = False) -> None:
        self.parameters = parameters
        self.learning_rate = learning_rate
        self.first = torch.zeros_like(parameters)
        self.second = torch.zeros_like(parameters)
        self._made = ctypes.c_int64()
        self._update = None
        if native_ops.serves(parameters) and not recorded:
            self._update = native_ops.adam(parameters, self.first, self.second, learning_rate, BETAS, EPSILON, self._made)
        self._on_gpu = cuda.serves(parameters)
        self._counts = torch.zeros((), device=parameters.device)
        rates = learning_rate.flatten().tolist()
        self._groups = [
            (learning_rate[rates.index(rate), 0], [k for k, other in enumerate(rates) if other == rate]) for rate in dict.fromkeys(rates)
        ]

    @property
    def count(self) -> int:
        """Updates made."""
        return self._made.value if self._update else int(self._counts)

    @count.setter
    def count(self, value: int) -> None:
        self._made.value = value
        self._counts.fill_(value)

    def minimize(self, gradient: Tensor, factor: float | Tensor = 1.0) -> None:
        """One update along `gradient` [K, V]; `factor` scales the learning rate (a schedule)."""
        if self._update:
            self._update(gradient, factor)
            return
        self._counts += 1
        if self._on_gpu:
            rates = (self.learning_rate * factor).to(torch.float32)
            cuda.adam(self.parameters, gradient, self.first, self.second, rates, self._counts, BETAS, EPSILON)
            return
        for rate, members in self._groups:
            values, gradients, first, second = ([rows[k] for k in members] for rows in (self.parameters, gradient, self.first, self.second))
            rate_now = (rate * factor).squeeze().to(rate.dtype)  # CUDA's kernel reads a float, whatever the type
            # One kernel for all, where operations of torch would pass over memory nine times.
            torch._fused_adam_(
                values, gradients, first, second, [], [self._counts] * len(members), lr=rate_now, beta1=BETAS[0], beta2=BETAS[1],
                weight_decay=0, eps=EPSILON, amsgrad=False, maximize=False,
            )  # fmt: skip


class Polyak:
    """Polyak averaging of rows [K, V]: target <- (1 - tau) target + tau online, with `tau` [K, 1]."""

    def __init__(self, target: Tensor, online: Tensor, tau: Tensor) -> None:
        self.target, self.online, self.tau = target, online, tau
        self.update = native_ops.track(target, online, tau) if native_ops.serves(target) else self._update

    def _update(self) -> None:
        self.target.lerp_(self.online, self.tau)
