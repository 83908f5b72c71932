"""SynFlow (Tanaka et al. 2020): keep the weights that carry most of the synaptic flow; needs no data but 100 rounds.

One round would empty a layer at 95 %: the flow a layer passes on is the same for all, so the widest loses everything at once.
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
    """|w| dR/d|w| / R with R = sum of a copy's outputs for an input of ones, of the linear network of absolute weights, biases left out.

    Each copy is a network of its own. Ranked by their flows as they are, the one with the most would take the weights of all others,
    round after round; in shares of its own flow each keeps about as many."""
    weights = [weight.detach().abs().double().requires_grad_() for weight in network.weights]  # double: a product over layers
    signal = torch.ones_like(weights[0][..., 0, :])
    for weight in weights:
        signal = (weight @ signal.unsqueeze(-1)).squeeze(-1)
    gradients = torch.autograd.grad(signal.sum(), weights)
    flow = signal.detach().sum(-1)[..., None, None]
    return [weight.detach() * gradient / flow for weight, gradient in zip(weights, gradients, strict=True)]
