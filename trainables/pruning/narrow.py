"""Narrower hidden layers that have as many weights as pruning leaves.

Widths are multiples of 4, or the layer's own, because only then do stacked members compute bit for bit what they compute alone; so the
count is approximate.
"""

import itertools
from dataclasses import replace

from trainables.nn import MLP
from trainables.pruning.ranking import kept

STEP = 4


def shrink(spec: MLP, density: float) -> MLP:
    """`spec` with hidden widths scaled by one factor, then changed by a few units to come closest to round(density P) weights."""
    wanted = kept(density, sum(spec.weights_per_layer))
    if density == 1 or len(spec.sizes) == 2:
        return spec
    if spec.residual:
        own = spec.sizes[1]
        narrower = (spec.of_width(width, spec.blocks) for width in range(min(STEP, own), own + 1, STEP))
        return min(narrower, key=lambda made: abs(sum(made.weights_per_layer) - wanted))
    low, high = 0.0, 1.0
    for _ in range(40):
        middle = (low + high) / 2
        low, high = (middle, high) if _weights(spec, [middle * width for width in spec.sizes[1:-1]]) < wanted else (low, middle)
    near = [round(low * width / STEP) * STEP for width in spec.sizes[1:-1]]
    moves = itertools.product((-STEP, 0, STEP), repeat=len(near))
    candidates = [[min(own, max(STEP, width + by)) for own, width, by in zip(spec.sizes[1:-1], near, move, strict=True)] for move in moves]
    best = min(candidates, key=lambda widths: (abs(_weights(spec, widths) - wanted), widths))
    return replace(spec, sizes=(spec.sizes[0], *best, spec.sizes[-1]))


def _weights(spec: MLP, hidden: list[float] | list[int]) -> float:
    return spec.copies * sum(a * b for a, b in itertools.pairwise((spec.sizes[0], *hidden, spec.sizes[-1])))
