"""NTK-SAP (Wang, Li & Sun 2023, arXiv 2304.02840): keep the connections that the spectrum of the neural tangent kernel depends on most.

What moving all weights a little does to the outputs for random inputs estimates the kernel's trace. Weights are drawn anew in each round,
with He et al.'s normal distribution and no biases, so the mask depends neither on the initial weights nor on data. The numbers are those
of YiteWang/NTK-SAP: main.py's defaults, and the rounds of scripts/run.sh.
"""

import math

import torch
from torch import Tensor

from trainables.pruners import Scored

TITLE = "NTK-SAP"
WITHOUT_LOSS = True
ROUNDS = 20
EPSILON = 0.01  # times standard normals, which move the weights; biases stay
INPUTS = 100  # standard normal, in each round: ten per class there, for ten classes


def schedule(density: float) -> list[float]:
    """Density after each round: d^(t / T)."""
    return [density ** ((t + 1) / ROUNDS) for t in range(ROUNDS)]


def saliency(network: Scored) -> list[Tensor]:
    """|dJ/dmask| / J with J = sum_x ||f(x; w mask) - f(x; (w + epsilon) mask)||^2, for new weights w [K, C, out, in], in float64.

    J is of one copy: copies are separate networks, and the one with the largest J would take the weights of all others, as in SynFlow."""
    mask = [layer.double().requires_grad_() for layer in network.mask]
    biases = [torch.zeros_like(bias).double() for bias in network.biases]
    normal = network.streams.normal
    inputs = normal("inputs", INPUTS, network.spec.sizes[0]).double()
    weights = [math.sqrt(2 / kept.shape[-1]) * normal(f"weights.{i}", *kept.shape[1:]).double() for i, kept in enumerate(mask)]
    moved = [weight + EPSILON * normal(f"moves.{i}", *weight.shape[1:]).double() for i, weight in enumerate(weights)]
    outputs = []
    for chosen in (weights, moved):
        network.place([*(weight * kept for weight, kept in zip(chosen, mask, strict=True)), *biases])
        outputs.append(network.outputs(inputs).reshape(len(inputs), network.spec.copies, -1))
    change = (outputs[0] - outputs[1]).square().sum(-1)  # [K, C]
    gradients = torch.autograd.grad(change.sum(), mask)
    scale = change.detach().masked_fill(change == 0, 1)[..., None, None]  # 0 of a copy whose outputs are constants
    return [gradient.abs() / scale for gradient in gradients]
