"""The weights that training starts from, given the masks: as drawn, drawn again, or rescaled.

torch draws the weights of a layer of n inputs from U(-1/sqrt(n), 1/sqrt(n)). If a fraction d of them is kept, a unit's input has d times
the variance, in every layer; dividing the kept weights by sqrt(d) restores it. `layer` uses the density of the whole layer (per copy),
which suits a random mask; `unit` uses each unit's own density, so units that keep few weights are scaled up more. Biases are unchanged.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from trainables.agent import Agent
from trainables.tensors.mask import Mask
from trainables.trial import Stack


def starting_rows(agent: Agent, stack: Stack, masks: Mapping[str, Mask]) -> dict[str, Tensor]:
    """Canonical rows [K, D] of every network at update 0."""
    starting = {}
    for name, spec in agent.specs.items():
        rows = drawn_rows(agent, stack, name)
        views = spec.views(rows)
        for index, mask in enumerate(masks[name]):
            views[f"weight.{index}"].mul_(factors(mask, [trial.rescale for trial in stack.trials]))
        starting[name] = rows
    return starting


def drawn_rows(agent: Agent, stack: Stack, name: str) -> Tensor:
    """A network's rows as drawn: those of members whose control is "reinit", again."""
    rows = agent.initial(name)
    again = [k for k, trial in enumerate(stack.trials) if trial.control == "reinit"]
    if again:
        rows[again] = agent.initial(name, "reinit")[again]
    return rows


def factors(mask: Tensor, how: list[str]) -> Tensor:
    """density^-1/2 of a layer's mask [K, C, out, in], broadcastable to it; 1 if nothing is kept or member k's `how` is "none"."""
    factor = torch.ones_like(mask[..., :1])
    for member, kind in enumerate(how):
        if kind != "none":
            axes = (-2, -1) if kind == "layer" else (-1,)
            kept = mask[member].sum(axes, keepdim=True)  # whole numbers, so exact in whatever order they are summed
            share = mask[member].numel() / kept.numel() / kept
            factor[member] = torch.where(kept > 0, share, torch.ones_like(share)).sqrt()
    return factor
