"""PHEW, paths with higher edge weights (Patil & Dovrolis 2021, arXiv 2010.11354): keep the paths of random walks that prefer large weights.

Walks start at the inputs and at the outputs in turn, unit by unit, and go from each unit along one of its weights, with a probability
proportional to |w|. They need no data. The last path may be kept in part, so that the number of weights is exact.

The paper walks until as many weights as wanted are found. Here all are ranked, so that one ranking serves every sparsity: those that WALKS
walks find by when they were found, the others (a quarter of a network of two hidden layers of 256) by how often they can expect a visit.
"""

import numpy as np
import torch
from torch import Tensor

from trainables.pruners import Scored

TITLE = "PHEW"
WITHOUT_LOSS = True
CHAIN = True
WALKS = 2  # for each weight of a network: half from the inputs, half from the outputs


def saliency(network: Scored) -> list[Tensor]:
    """Minus the rank of each weight in its copy; copies are separate networks that are walked in turn."""
    weights = [weight.detach().abs().double().cpu().numpy() for weight in network.weights]
    scores = [np.empty_like(layer) for layer in weights]
    copies = network.spec.copies
    for copy in range(copies):
        layers = [layer[:, copy] for layer in weights]
        walks = WALKS * sum(layer[0].size for layer in layers) // 2
        drawn = [network.streams.uniform(f"{side}.{copy}", len(layers), walks).cpu().numpy() for side in ("inputs", "outputs")]
        for member in range(len(layers[0])):
            ranks = ranked([layer[member] for layer in layers], [numbers[member] for numbers in drawn])
            for score, rank in zip(scores, ranks, strict=True):
                score[member, copy] = -(rank * copies + copy)
    return [torch.from_numpy(score).to(weight.device) for score, weight in zip(scores, network.weights, strict=True)]


def ranked(weights: list[np.ndarray], drawn: list[np.ndarray]) -> list[np.ndarray]:
    """Ranks from 0 of a network's absolute weights [out, in] per layer, by walks with the numbers [hops, walks] drawn for each side."""
    down = walk([layer.T for layer in weights], drawn[0], side=0)
    up = walk(weights[::-1], drawn[1], side=1)[::-1]
    found = np.concatenate([np.minimum(a[0].T, b[0]).ravel() for a, b in zip(down, up, strict=True)])
    visits = np.concatenate([(a[1].T + b[1]).ravel() for a, b in zip(down, up, strict=True)])
    ranks = np.empty(len(found), np.int64)
    ranks[np.lexsort((-visits, found))] = np.arange(len(found))
    parts = np.split(ranks, np.cumsum([layer.size for layer in weights])[:-1])
    return [part.reshape(layer.shape) for part, layer in zip(parts, weights, strict=True)]


def walk(layers: list[np.ndarray], drawn: np.ndarray, side: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """For each layer [from, to] along the walks, when they first use a weight, and its share of the visits that can be expected.

    Walk n of a side (0 or 1) starts at unit n modulo the units that there are, and its hop h is hop (2 n + side) hops + h of all."""
    hops, walks = drawn.shape
    turns = np.arange(walks)
    at = turns % len(layers[0])
    reach = np.full(len(layers[0]), 1 / len(layers[0]))
    used = []
    for hop, layer in enumerate(layers):
        # A unit whose weights are all 0 goes on along any of them, as in the authors' code.
        layer = np.where(layer.any(1, keepdims=True), layer, 1)
        below = np.cumsum(layer, axis=1)
        below /= below[:, -1:]
        # All rows are searched as one sorted array: row r holds numbers in (r, r + 1], which its last weight ends.
        chosen = np.searchsorted((below + np.arange(len(layer))[:, None]).ravel(), at + drawn[hop], side="right")
        first = np.full(layer.size, 2 * hops * walks)
        first[chosen[::-1]] = (2 * turns[::-1] + side) * hops + hop  # of several walks along a weight, the first is written last
        share = layer / layer.sum(1, keepdims=True) * reach[:, None]
        used.append((first.reshape(layer.shape), share))
        at, reach = chosen % layer.shape[1], share.sum(0)
    return used
