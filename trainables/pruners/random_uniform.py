"""Random weights, the same density in every layer: the simplest control."""

from torch import Tensor

from trainables.masks import apportion, kept
from trainables.nn import MLP
from trainables.pruners import Scored


def saliency(network: Scored) -> list[Tensor]:
    """Uniform noise from the member's own stream."""
    return [network.random(layer) for layer in range(len(network.weights))]


def budgets(spec: MLP, density: float) -> list[int]:
    """Weights kept per layer: the same share of each, exactly round(density P) in all."""
    return apportion([density * n for n in spec.weights_per_layer], kept(density, sum(spec.weights_per_layer)))
