"""The rounds of pruning: score every network, choose its mask, and, for some pruners, do so again on the masked networks."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

import torch
from torch import Tensor

from trainables import plugins
from trainables.plugins import contract
from trainables.pruning.scored import Scored
from trainables.tensors.mask import Mask
from trainables.trial.pruner_traits import traits_of

Masks = dict[str, Mask]
Saliencies = dict[str, list[Tensor]]
Look = Callable[[Masks, int], Iterable[tuple[str, Scored]]]  # (masks so far, round) -> every network as the pruner sees it
Choose = Callable[[Saliencies, dict[str, list[float]], bool], Masks]  # (scores, density by network and member, last round?) -> new masks


def in_rounds(pruner: str, masks: Masks, densities: Mapping[str, Sequence[float]], look: Look, choose: Choose) -> tuple[Masks, Saliencies]:
    """The masks after the pruner's last round, and the scores that chose them; `masks` are those before its first.

    `densities[name][k]` is what member k keeps of a network. A weight that is masked scores -inf unless the pruner regrows weights.
    """
    method, traits = plugins.load("pruners", pruner), traits_of(pruner)
    schedules = {name: [schedule_of(pruner, density) for density in each] for name, each in densities.items()}
    rounds = max(len(schedule) for each in schedules.values() for schedule in each)
    saliency: Saliencies = {}
    for turn in range(rounds):
        for name, network in look(masks, turn):
            scores = [layer.detach() for layer in contract.scores(pruner, method.saliency(network), [w.shape for w in network.weights])]
            network.restore()
            if not traits.regrows:
                scores = [layer.masked_fill(mask == 0, -torch.inf) for layer, mask in zip(scores, masks[name], strict=True)]
            saliency[name] = scores
        now = {name: [schedule[turn] for schedule in each] for name, each in schedules.items()}
        masks = choose(saliency, now, turn == rounds - 1)
    return masks, saliency


def schedule_of(pruner: str, density: float) -> list[float]:
    """Density after each round; most pruners have one round."""
    return list(plugins.load("pruners", pruner).schedule(density)) if traits_of(pruner).in_rounds else [density]
