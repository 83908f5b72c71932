"""Masks that change while training goes on: weights, optimizer state, targets and execution follow at the scheduled updates."""

from __future__ import annotations

from collections.abc import Mapping

import torch

from trainables import plugins
from trainables.agent import Agent
from trainables.pruning import mask_statistics
from trainables.pruning.mask_statistics import Quantiles
from trainables.pruning.ranking import threshold_in_layers
from trainables.pruning.scored import Scored
from trainables.tensors.mask import Mask
from trainables.trial import Stack
from trainables.trial.pruner_traits import traits_of


def changes_of(stack: Stack) -> dict[int, dict[int, float]]:
    """Update -> member -> share (0 to 1) of all weights to be removed that are gone from this update on.

    A change is made before its update, so a trial that resumes from a checkpoint makes exactly the changes still to come.
    """
    changes: dict[int, dict[int, float]] = {}
    for member, trial in enumerate(stack.trials):
        if traits_of(trial.pruner).during_training:
            for update, share in plugins.load("pruners", trial.pruner).mask_schedule(trial.updates).items():
                changes.setdefault(update, {})[member] = share
    return changes


def change(
    agent: Agent,
    stack: Stack,
    masks: Mapping[str, Mask],
    shares: Mapping[int, float],
    execution: str,
    quantiles: Quantiles | None = None,
) -> dict[str, Mask]:
    """The masks after a change, with the agent rebuilt on them: kept parameters, moments and targets stay, the others are gone.

    A removed weight stays removed. If `quantiles` is given, it is filled with those of the scores that the others were ranked by.
    Disconnected networks are no error here, because hours of training would be lost; reports warn of them.
    """
    state, counts = agent.rows(), agent.counts()
    new = {}
    for name, spec in agent.specs.items():
        views = spec.views(state[f"online/{name}"].detach())
        weights = [views[f"weight.{index}"] for index in range(len(spec.layers))]
        new[name] = [layer.clone() for layer in masks[name]]
        for member, share in shares.items():
            trial = stack.trials[member]
            pruner = plugins.load("pruners", trial.pruner)
            mask = [layer[member : member + 1] for layer in masks[name]]
            network = Scored(
                spec, [weight[member : member + 1] for weight in weights], mask, lambda more=0: iter(()), lambda layer: torch.zeros(())
            )
            saliency = [s.masked_fill(layer == 0, -torch.inf) for s, layer in zip(pruner.saliency(network), mask, strict=True)]
            if quantiles is not None:
                quantiles[member, name] = [mask_statistics.quantiles(layer) for layer in saliency]
            alive = [int(layer.sum()) for layer in mask]
            budgets = within(pruner.budgets(spec, 1 - share * trial.sparsity_in(name)), alive)
            for layer, part in zip(new[name], threshold_in_layers(saliency, [budgets]), strict=True):
                layer[member] = part[0]
    agent.build(execution, {name: state[f"online/{name}"] for name in agent.specs}, new)
    agent.load_rows(state, counts)
    return new


def within(budgets: list[int], alive: list[int]) -> list[int]:
    """Budgets of the same sum, none above what its layer still has: rounding may raise one by a weight from one change to the next."""
    fitting = [min(budget, left) for budget, left in zip(budgets, alive, strict=True)]
    for index, left in enumerate(alive):
        fitting[index] += min(left - fitting[index], sum(budgets) - sum(fitting))
    return fitting
