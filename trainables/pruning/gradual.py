"""Masks that change while training goes on: at given updates, data, optimizer state and targets follow, and so does the execution."""

from __future__ import annotations

from collections.abc import Mapping

import torch

from trainables import plugins
from trainables.agent import Agent
from trainables.pruning import mask_statistics
from trainables.pruning.prune import Quantiles, Scored
from trainables.pruning.ranking import threshold_in_layers
from trainables.tensors.mask import Mask
from trainables.trial import Stack


def changes_of(stack: Stack) -> dict[int, dict[int, float]]:
    """Update -> member -> share (0 to 1) of the weights it will have removed that are gone from then on.

    A change is made before its update, so a trial that goes on from a checkpoint makes exactly those still to come.
    """
    found: dict[int, dict[int, float]] = {}
    for member, trial in enumerate(stack.trials):
        if "during" in plugins.defines("pruners", trial.pruner):
            for update, share in plugins.load("pruners", trial.pruner).during(trial.updates).items():
                found.setdefault(update, {})[member] = share
    return found


def change(
    agent: Agent,
    stack: Stack,
    masks: Mapping[str, Mask],
    shares: Mapping[int, float],
    execution: str,
    quantiles: Quantiles | None = None,
) -> dict[str, Mask]:
    """The masks after a change, with the agent built again on them: kept parameters, moments and targets stay, the rest is gone.

    What was removed stays removed; `quantiles`, where it is given, are filled with those of the scores that chose among the rest.
    Connectivity is not asked for: hours of training would be thrown away; reports warn instead.
    """
    state = agent.rows()
    counts = {name: optimizer.count for name, optimizer in agent.optimizers.items()}
    new = {}
    for name, spec in agent.specs.items():
        views = spec.views(state[f"online/{name}"].detach())
        weights = [views[f"weight.{index}"] for index in range(len(spec.layers))]
        new[name] = [layer.clone() for layer in masks[name]]
        for member, share in shares.items():
            trial = stack.trials[member]
            pruner = plugins.load("pruners", trial.pruner)
            own = [layer[member : member + 1] for layer in masks[name]]
            network = Scored(
                spec, [weight[member : member + 1] for weight in weights], own, lambda more=0: iter(()), lambda layer: torch.zeros(())
            )
            saliency = [s.masked_fill(mask == 0, -torch.inf) for s, mask in zip(pruner.saliency(network), own, strict=True)]
            if quantiles is not None:
                quantiles[member, name] = [mask_statistics.quantiles(layer) for layer in saliency]
            alive = [int(mask.sum()) for mask in own]
            budgets = within(pruner.budgets(spec, 1 - share * trial.sparsity_in(name)), alive)
            for layer, part in zip(new[name], threshold_in_layers(saliency, [budgets]), strict=True):
                layer[member] = part[0]
    agent.build(execution, {name: state[f"online/{name}"] for name in agent.specs}, new)
    agent.load_rows(state, counts)
    return new


def within(budgets: list[int], alive: list[int]) -> list[int]:
    """Budgets of the same sum, none above what its layer still has: rounding may raise one by a weight from one change to the next."""
    found = [min(budget, most) for budget, most in zip(budgets, alive, strict=True)]
    for index, most in enumerate(alive):
        found[index] += min(most - found[index], sum(budgets) - sum(found))
    return found
