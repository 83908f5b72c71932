"""ProsPr (Alizadeh et al. 2022, "Prospect Pruning"): keep the connections that matter most to the loss after the first steps of training.

The gradient of the mask is backpropagated through these steps: plain gradient descent on weights and biases, one calibration batch per
step. Then come the calibration batches that score. Steps and learning rate are the defaults of mil-ad/prospr.
"""

import torch
from torch import Tensor

from trainables.pruners import Scored

TITLE = "ProsPr"
STEPS = 3
LEARNING_RATE = 0.1


def saliency(network: Scored) -> list[Tensor]:
    """|dL(w_M) / dmask| at mask = 1, where w_M are the weights after M steps from w * mask; summed over batches with their signs."""
    mask = [torch.ones_like(weight, requires_grad=True) for weight in network.weights]
    weights = [weight.detach() * one for weight, one in zip(network.weights, mask, strict=True)]
    parameters = [*weights, *(bias.detach().clone().requires_grad_() for bias in network.biases)]
    total = [torch.zeros_like(one) for one in mask]
    network.place(parameters)
    for index, loss in enumerate(network.losses(more=STEPS)):
        if index < STEPS:
            gradient = torch.autograd.grad(loss.sum(), parameters, create_graph=True, materialize_grads=True)
            parameters = [p - LEARNING_RATE * g for p, g in zip(parameters, gradient, strict=True)]
            network.place(parameters)
        else:
            parts = torch.autograd.grad(loss.sum(), mask, retain_graph=True, materialize_grads=True)
            total = [a + b for a, b in zip(total, parts, strict=True)]
    return [layer.abs() for layer in total]
