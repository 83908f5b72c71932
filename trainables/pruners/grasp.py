"""GraSP (Wang, Zhang & Grosse 2020): keep the weights whose removal would reduce the gradient flow most, by one Hessian-vector product.

The paper's temperature 200 divides softmax logits; regression, TD and likelihood losses have none, so it is 1 here.
"""

import torch
from torch import Tensor

from trainables.pruners import Scored

TITLE = "GraSP"


def saliency(network: Scored) -> list[Tensor]:
    """w (H g), signed: removing w changes g'g by about -2 w (H g), so the highest -w (H g) go first."""
    gradient = network.gradient(create_graph=True)
    flow = sum(((g * g.detach()).sum() for g in gradient), torch.zeros(()))
    product = torch.autograd.grad(flow, network.weights, materialize_grads=True)
    return [weight * hg for weight, hg in zip(network.weights, product, strict=True)]
