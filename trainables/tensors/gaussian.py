"""Gaussian policies: densities, and samples squashed by tanh into [-1, 1]. Shapes [..., A]; log densities drop the last axis."""

from __future__ import annotations

import math

from torch import Tensor

from trainables.tensors.functions import exp, repeated, softplus, tanh

LOG_SQRT_2_PI = 0.5 * math.log(2 * math.pi)


def log_prob(value: Tensor, mean: Tensor, log_std: Tensor) -> Tensor:
    """log N(value; mean, exp(log_std)^2), summed over the A independent dimensions. One `log_std` for a whole batch is [K, 1, A]."""
    if log_std.dim() == value.dim() == 3 and log_std.shape[1] == 1:
        log_std = repeated(log_std, value.shape[1])
    return (-0.5 * ((value - mean) / exp(log_std)).square() - log_std - LOG_SQRT_2_PI).sum(-1)


def squashed(mean: Tensor, log_std: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
    """a = tanh(mean + std noise) from standard normals, and log pi(a); differentiable in mean and log_std.

    log(1 - tanh(z)^2) = 2 (log 2 - z - softplus(-2 z)), which stays finite where tanh has rounded to 1 (SAC, Haarnoja et al. 2018,
    appendix C, in the form of tensorflow_probability)."""
    before = mean + exp(log_std) * noise
    volume = 2 * (math.log(2) - before - softplus(-2 * before))
    density = -0.5 * noise.square() - log_std - LOG_SQRT_2_PI - volume
    return tanh(before), density.sum(-1)
