"""Dense: the control, which prunes nothing."""

import torch
from torch import Tensor

from trainables.pruners import Scored

TITLE = "Dense"
WITHOUT_LOSS = True


def saliency(network: Scored) -> list[Tensor]:
    """The same for all: every weight is kept, so the scores do not matter."""
    return [torch.ones_like(weight) for weight in network.weights]
