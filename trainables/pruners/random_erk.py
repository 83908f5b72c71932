"""ERK (Evci et al. 2020, "Rigging the Lottery"): random weights within Erdos-Renyi-kernel layer budgets; small layers stay denser."""

from torch import Tensor

from trainables.nn import MLP
from trainables.pruners import Scored
from trainables.pruning.ranking import apportion, kept

TITLE = "Random (ERK)"
WITHOUT_LOSS = True


def saliency(network: Scored) -> list[Tensor]:
    """Uniform noise from the member's own stream."""
    return [network.random(layer) for layer in range(len(network.weights))]


def budgets(spec: MLP, density: float) -> list[int]:
    """Weights kept per layer: density_l = eps (n_in + n_out) / (n_in n_out), layers above 1 made dense, exactly round(density P) in all."""
    sizes = [n_in * n_out for n_in, n_out in spec.layers]
    raw = [(n_in + n_out) / (n_in * n_out) for n_in, n_out in spec.layers]
    full: set[int] = set()
    while True:
        sparse = [i for i in range(len(sizes)) if i not in full]
        if not sparse:
            break
        epsilon = (density * sum(sizes) - sum(sizes[i] for i in full)) / sum(raw[i] * sizes[i] for i in sparse)
        over = {i for i in sparse if epsilon * raw[i] > 1}
        if not over:
            break
        full |= over
    wanted = [sizes[i] if i in full else epsilon * raw[i] * sizes[i] for i in range(len(sizes))]
    return apportion([spec.copies * w for w in wanted], kept(density, sum(spec.weights_per_layer)))
