"""SynFlow (Tanaka et al. 2020): keep the weights that carry the most synaptic flow; needs 100 rounds but no data.

At 95 %, one round would empty a layer: every layer carries the same total flow, so the widest would lose everything at once.
"""

import torch
from torch import Tensor

from trainables.pruners import Scored

TITLE = "SynFlow"
ROUNDS = 100
WITHOUT_LOSS = True


def schedule(density: float) -> list[float]:
    """Density after each round: d^(t / T)."""
    return [density ** ((t + 1) / ROUNDS) for t in range(ROUNDS)]


def saliency(network: Scored) -> list[Tensor]:
    """|w| dR/d|w| / R, where R sums a copy's outputs for an input of ones, in the linear network of absolute weights without biases.

    Each copy is a separate network. Ranked by absolute flow, the copy with the largest flow would take the weights of all others, round
    after round; ranked by the share of its copy's flow, each keeps about as many."""
    weights = [weight.detach().abs().double().requires_grad_() for weight in network.weights]  # double: a product over layers
    signal = network.linear(weights)
    gradients = torch.autograd.grad(signal.sum(), weights)
    flow = signal.detach().sum(-1)[..., None, None]
    flow = flow.masked_fill(flow == 0, 1)  # a copy with no path left scores 0
    return [weight.detach() * gradient / flow for weight, gradient in zip(weights, gradients, strict=True)]
