"""Masks that change while training goes on: weights, optimizer state, targets and execution follow at the scheduled updates.

A pruner with a `mask_schedule` works in one of four ways: it removes more and more weights (GMP), it does so and trains the others again
from where they began (REWINDS: IMP), it replaces a share of each layer's weights (`growth`: SET, RigL), or it chooses among all weights
anew (RESCORES: Sparse-Reg).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import ModuleType

import torch
from torch import Tensor

from trainables import plugins
from trainables.agent import Agent
from trainables.pruning import mask_statistics
from trainables.pruning.mask_statistics import Quantiles
from trainables.pruning.prune import alike
from trainables.pruning.ranking import choose, threshold, threshold_in_layers
from trainables.pruning.rounds import Masks, Saliencies
from trainables.pruning.scored import Batches, Scored, scored
from trainables.pruning.sparsities import sparsities_of
from trainables.tensors.mask import Mask, ones, to_row
from trainables.trial import Stack
from trainables.trial.pruner_traits import traits_of

Rows = dict[str, Tensor]


def changes_of(stack: Stack) -> dict[int, dict[int, float]]:
    """Update -> member -> the share (0 to 1) that its pruner's mask_schedule gives for that update.

    A change is made before its update, so a trial that resumes from a checkpoint makes exactly the changes still to come.
    """
    changes: dict[int, dict[int, float]] = {}
    for member, trial in enumerate(stack.trials):
        if traits_of(trial.pruner).during_training:
            schedule = plugins.load("pruners", trial.pruner).mask_schedule(trial.updates, **trial.pruning_values())
            for update, share in schedule.items():
                changes.setdefault(update, {})[member] = share
    return changes


@dataclass(frozen=True)
class Change:
    """A change of masks ahead of `update`, of members that are alike: their stack, masks, canonical rows, and shares by index."""

    agent: Agent
    stack: Stack
    masks: Masks
    rows: Rows
    shares: list[float]
    update: int
    batches: Batches

    @property
    def pruner(self) -> ModuleType:
        return plugins.load("pruners", self.stack.lead.pruner)

    def scorer(self, rows: Rows, masks: Masks) -> Agent:
        """The members with these rows and masks in the reference execution, which gives gradients of masked weights, too."""
        scorer = Agent(self.agent.algorithm, self.stack, *self.agent.sizes, self.agent.device, recorded=False)
        scorer.build("dense", {name: rows[f"online/{name}"] for name in self.agent.specs}, masks)
        scorer.load_rows(rows, self.agent.counts())
        scorer.at(self.update)
        return scorer

    def scored(self, scorer: Agent, name: str) -> Scored:
        """A network of the scorer, whose minibatches and noise are those of this change."""
        return scored(scorer, name, self.masks[name], self.stack, self.batches, phase=f"change {self.update}/")

    def weights(self, name: str) -> list[Tensor]:
        """The weights of a network, 0 where masked, [K, C, out, in] per layer."""
        views = self.agent.specs[name].views(self.rows[f"online/{name}"].detach())
        return [views[f"weight.{index}"] for index in range(len(self.agent.specs[name].layers))]


Changed = tuple[Masks, Rows, Saliencies]  # the new masks, the rows to continue with, and the scores that chose the masks


def change(
    agent: Agent,
    stack: Stack,
    masks: Masks,
    shares: Mapping[int, float],
    execution: str,
    update: int,
    batches: Batches,
    quantiles: Quantiles | None = None,
) -> Masks:
    """The masks after a change, with the agent rebuilt on them: kept parameters, moments and targets stay, the others are gone.

    `batches` draws the minibatches of scores that need some. If `quantiles` is given, it is filled with those of the scores. Disconnected
    networks are no error here, because hours of training would be lost; reports warn of them. A member that has diverged is changed, too,
    in whatever way.
    """
    rows, counts = agent.rows(), agent.counts()
    new = {name: [layer.clone() for layer in mask] for name, mask in masks.items()}
    for members in alike(stack, shares):
        of_group = {name: [layer[members] for layer in mask] for name, mask in masks.items()}
        group = Stack(tuple(stack.trials[member] for member in members))
        part = {name: row[members] for name, row in rows.items()}
        own = Change(agent, group, of_group, part, [shares[member] for member in members], update, batches)
        made, part, scores = kind_of(group.lead.pruner)(own)
        for name, row in part.items():
            rows[name][members] = row
        for name, mask in made.items():
            for whole, layer in zip(new[name], mask, strict=True):
                whole[members] = layer
            if quantiles is not None:
                for index, member in enumerate(members):
                    quantiles[member, name] = [mask_statistics.quantiles(layer[index]) for layer in scores[name]]
    agent.build(execution, {name: rows[f"online/{name}"] for name in agent.specs}, new)
    if traits_of(stack.trials[min(shares)].pruner).rewinds:
        counts = dict.fromkeys(counts, 0)
    agent.load_rows(rows, counts)
    return new


def kind_of(pruner: str) -> Callable[[Change], Changed]:
    """How a pruner changes masks."""
    traits = traits_of(pruner)
    return replace if traits.grows else rescore if traits.rescores else rewind if traits.rewinds else remove


def remove(change: Change) -> Changed:
    """Keep the weights that score highest, fewer than before; what is removed stays removed."""
    return _fewer(change, lambda sparsity, share: 1 - share * sparsity)


def rewind(change: Change) -> Changed:
    """Keep the weights that score highest, and begin again: weights, biases and targets as at first, moments and their counts at 0.

    With the same factor each time: after the share t of all changes a network keeps d^t of its weights, and d after the last."""
    new, _, scores = _fewer(change, lambda sparsity, share: (1 - sparsity) ** share)
    rows = dict(change.rows)
    for name in change.agent.specs:
        rows[f"online/{name}"] = rows[f"latent/{name}"]
        rows |= {kind: torch.zeros_like(rows[kind]) for kind in (f"adam.first/{name}", f"adam.second/{name}")}
        rows |= {f"target/{name}": rows[f"latent/{name}"]} if f"target/{name}" in rows else {}
    return new, rows, scores


def _fewer(change: Change, density_at: Callable[[float, float], float]) -> Changed:
    """Masks that keep `density_at(sparsity, share)` of each network, of those that they kept."""
    new: Masks = {}
    scores: Saliencies = {}
    removed = [sparsities_of(change.agent, trial) for trial in change.stack.trials]
    for name, spec in change.agent.specs.items():
        mask = change.masks[name]
        network = Scored(spec, change.weights(name), mask, lambda more=0: iter(()), lambda layer: torch.zeros(()))
        pairs = zip(change.pruner.saliency(network), mask, strict=True)
        scores[name] = [_finite(layer).masked_fill(kept == 0, -torch.inf) for layer, kept in pairs]
        budgets = []
        for member, (sparsities, share) in enumerate(zip(removed, change.shares, strict=True)):
            alive = [int(layer[member].sum()) for layer in mask]
            budgets.append(within(change.pruner.budgets(spec, density_at(sparsities[name], share)), alive))
        new[name] = threshold_in_layers(scores[name], budgets)
    return new, change.rows, scores


def replace(change: Change) -> Changed:
    """Drop a share of each layer's kept weights, those of smallest magnitude, and let as many grow, those of the highest `growth`.

    A grown weight starts at 0 with moments of 0. One that is dropped and grown in the same change has never been away (as in
    google-research/rigl)."""
    scorer = change.scorer(change.rows, change.masks)
    new: Masks = {}
    scores: Saliencies = {}
    for name, mask in change.masks.items():
        scores[name] = [_finite(layer.detach()) for layer in change.pruner.growth(change.scored(scorer, name))]
        layers = zip(change.weights(name), mask, scores[name], strict=True)
        new[name] = [drop_and_grow(weight, kept, growth, change.shares) for weight, kept, growth in layers]
    return new, change.rows, scores


def drop_and_grow(weight: Tensor, mask: Tensor, growth: Tensor, shares: Sequence[float]) -> Tensor:
    """The new mask of a layer [K, C, out, in]; in each copy, `shares[k]` of member k's kept weights are dropped, rounded down."""
    copies = []
    for w, m, g in zip(weight.split(1, 1), mask.split(1, 1), growth.split(1, 1), strict=True):
        alive = [int(member.sum()) for member in m]
        dropped = [int(share * count) for share, count in zip(shares, alive, strict=True)]
        magnitude = _finite(w.detach()).abs().masked_fill(m == 0, -torch.inf)
        (kept,) = threshold([magnitude], [count - gone for count, gone in zip(alive, dropped, strict=True)])
        (grown,) = threshold([g.masked_fill(kept == 1, -torch.inf)], dropped)
        copies.append(kept + grown)
    return torch.cat(copies, dim=1)


def rescore(change: Change) -> Changed:
    """Score the whole network as before training, with the values that masked weights had when they were masked, and choose anew.

    A weight that returns has that value again, and moments of 0. (In the authors' code a masked weight moves on for some updates, by
    Adam's momentum.)"""
    specs, rows = change.agent.specs, dict(change.rows)
    for name, spec in specs.items():
        kept, latent = to_row(spec, change.masks[name]) == 1, rows[f"latent/{name}"]
        rows[f"online/{name}"] = rows[f"latent/{name}"] = torch.where(kept, rows[f"online/{name}"], latent)
        if f"target/{name}" in rows:
            rows[f"target/{name}"] = torch.where(kept, rows[f"target/{name}"], rows[f"latent/{name}"])
    scorer = change.scorer(rows, {name: ones(spec, len(change.stack), change.agent.device) for name, spec in specs.items()})
    scores = {name: [_finite(layer.detach()) for layer in change.pruner.saliency(change.scored(scorer, name))] for name in specs}
    removed = [sparsities_of(change.agent, trial) for trial in change.stack.trials]
    densities = {name: [1 - sparsities[name] for sparsities in removed] for name in specs}
    return choose(specs, scores, densities, change.stack.lead.scope), rows, scores


def _finite(scores: Tensor) -> Tensor:
    """Scores without the NaN of a member that has diverged, which must not end its stack-mates."""
    return scores.nan_to_num(nan=0.0)


def within(budgets: list[int], alive: list[int]) -> list[int]:
    """Budgets of the same sum, none above what its layer still has: rounding may raise one by a weight from one change to the next."""
    fitting = [min(budget, left) for budget, left in zip(budgets, alive, strict=True)]
    for index, left in enumerate(alive):
        fitting[index] += min(left - fitting[index], sum(budgets) - sum(fitting))
    return fitting


def moved(now: Mapping[str, Mask], before: Mapping[str, Mask], first: Mapping[str, Mask]) -> list[dict[str, float]]:
    """How far masks have moved, per member: `mask/replaced/<network>`, the share of the kept weights that `before` did not keep, and
    `mask/first_overlap/<network>`, the share that the first mask kept."""
    members = range(len(next(iter(now.values()))[0]))
    return [
        {f"mask/replaced/{name}": 1 - _shared(mask, before[name], k) for name, mask in now.items()}
        | {f"mask/first_overlap/{name}": _shared(mask, first[name], k) for name, mask in now.items()}
        for k in members
    ]


def _shared(now: Mask, other: Mask, member: int) -> float:
    """The share of a member's kept weights that another mask keeps, too; 1 where none is kept."""
    both = sum(float((a[member] * b[member]).sum()) for a, b in zip(now, other, strict=True))
    kept = sum(float(layer[member].sum()) for layer in now)
    return both / kept if kept else 1.0
