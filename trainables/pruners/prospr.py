"""ProsPr (Alizadeh et al. 2022, "Prospect Pruning"): keep the connections that matter most to the loss after the first steps of training.

The gradient of the mask is backpropagated through these steps: plain gradient descent on weights and biases, one calibration batch per
step. Then come the calibration batches that score. Steps and learning rate are the defaults of mil-ad/prospr.

That rate is for cross-entropy. A TD loss, whose scale is that of the rewards, is often so steep that it would grow without bound: there a
step is shorter, so long that the loss is lowest along the gradient (docs/decisions/040-prospr-steps.md).
"""

import torch
from torch import Tensor

from trainables.pruners import Scored

TITLE = "ProsPr"
STEPS = 3
LEARNING_RATE = 0.1  # at most


def rates(parameters: list[Tensor], gradient: list[Tensor], members: int) -> Tensor:
    """The step for each member: g'g / |g'Hg|, where a quadratic is lowest along its gradient, and at most the learning rate, [members]."""
    along = dot(gradient, [g.detach() for g in gradient], members)  # g'g, of which the derivative is Hg
    product = torch.autograd.grad(along.sum(), parameters, retain_graph=True, materialize_grads=True)
    curvature = dot(gradient, list(product), members).detach()
    lowest = along.detach() / curvature.abs()
    return lowest.nan_to_num(nan=LEARNING_RATE).clamp(max=LEARNING_RATE)  # 0/0: no gradient, so no step of any length


def dot(left: list[Tensor], right: list[Tensor], members: int) -> Tensor:
    """Inner product over all tensors, whose first axis is the members' where there are several, for each of them."""
    return torch.stack([(a * b).reshape(members, -1).sum(1) for a, b in zip(left, right, strict=True)]).sum(0)


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
            step = rates(parameters, list(gradient), loss.numel())
            parameters = [p - step.view(-1, *[1] * (p.dim() - 1)) * g for p, g in zip(parameters, gradient, strict=True)]
            network.place(parameters)
        else:
            parts = torch.autograd.grad(loss.sum(), mask, retain_graph=True, materialize_grads=True)
            total = [a + b for a, b in zip(total, parts, strict=True)]
    return [layer.abs() for layer in total]
