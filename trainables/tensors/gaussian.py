"""Gaussian policies: densities, and samples squashed by tanh into [-1, 1]. Shapes [..., A]; log densities drop the last axis."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional

LOG_SQRT_2_PI = 0.5 * math.log(2 * math.pi)
AT_ONCE = 32  # floats, with the widest registers there are


def log_prob(value: Tensor, mean: Tensor, log_std: Tensor) -> Tensor:
    """log N(value; mean, exp(log_std)^2), summed over the A independent dimensions."""
    return (-0.5 * ((value - mean) / log_std.exp()).square() - log_std - LOG_SQRT_2_PI).sum(-1)


def squashed(mean: Tensor, log_std: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
    """a = tanh(mean + std noise) from standard normals, and log pi(a); differentiable in mean and log_std.

    log(1 - tanh(z)^2) = 2 (log 2 - z - softplus(-2 z)), which stays finite where tanh has rounded to 1 (SAC, Haarnoja et al. 2018,
    appendix C, in the form of tensorflow_probability)."""
    before = mean + log_std.exp() * noise
    volume = 2 * (math.log(2) - before - softplus(-2 * before))
    density = -0.5 * noise.square() - log_std - LOG_SQRT_2_PI - volume
    return torch.tanh(before), density.sum(-1)


def softplus(x: Tensor) -> Tensor:
    """log(1 + exp(x)) of x [K, ...], for each member the same as alone.

    On a CPU torch computes many numbers at once, and those that are left at the end one by one, which rounds otherwise. So each member's
    are filled up."""
    missing = -(x.numel() // len(x)) % AT_ONCE
    if not (missing and x.is_cpu):
        return functional.softplus(x)
    filled = functional.softplus(torch.cat([x.flatten(1), torch.zeros(len(x), missing)], dim=1))
    return filled[:, :-missing].reshape(x.shape)
