"""Masks before training. One file = one pruner, a module with

    saliency(network) -> [Tensor [K, C, out, in] per layer]    a score per weight, high = keep; see `Scored`
    budgets(spec, density) -> [int per layer]                  optional: weights kept per layer; without it the scope says what is ranked
    schedule(density) -> [density per round]                   optional: several rounds, each scored on the masked network
    REGROWS = True                                             optional, with a schedule: a weight that was masked may return
    WITHOUT_LOSS = True                                        optional: the scores ask for no loss, so calibration changes nothing
    during(updates) -> {update: share removed}                 optional, with budgets: prunes while training goes on (gradual.py)
    shrink(spec, density) -> MLP                               optional, in place of all others: no mask but a smaller network

Ranking is within each network (twin critic copies pooled), separately for actor, critic and value, which is the protocol of the authors'
later code (SaminYeasar/sparse_reg); biases and extras are never pruned, output layers are. Which loss scores a network is said by the
algorithm's LOSSES and nothing else adds to its gradient; AUTHORS_LOSSES, where an algorithm has them, repeat what that code does.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from types import ModuleType
from typing import cast

import torch
from torch import Tensor

from trainables import plugins
from trainables.agent import Agent, Batch
from trainables.execution.dense import Network as Reference
from trainables.pruning import mask_statistics
from trainables.pruning.ranking import check_connected, choose, shuffled
from trainables.tensors.mask import Mask, ones
from trainables.tensors.mlp import MLP
from trainables.tensors.streams import Streams
from trainables.trial import Stack, Trial

Batches = Callable[[Streams, int], Batch]
Quantiles = dict[tuple[int, str], list[list[float]]]  # (member, network) -> per layer, mask_statistics.QUANTILES of the scores


@dataclass(frozen=True)
class Scored:
    """What a pruner sees of one network of K members, every weight at its initial value times the mask so far."""

    spec: MLP
    weights: list[Tensor]  # leaves, [K, C, out, in] per layer
    mask: Mask
    losses: Callable[..., Iterator[Tensor]]  # the loss [K] that scores this network on each calibration batch; `more` batches if asked
    random: Callable[[int], Tensor]  # layer -> uniform numbers [K, C, out, in] of the member's own stream
    initial: list[Tensor] = field(default_factory=list)  # the weights before any mask
    biases: list[Tensor] = field(default_factory=list)  # leaves, [K, C, out] per layer
    place: Callable[[list[Tensor]], None] = lambda parameters: None  # weights, then biases, that the next loss is computed with

    def gradient(self, create_graph: bool = False) -> list[Tensor]:
        """The signed gradient of the loss by each weight, summed over the calibration batches (absolute values come after)."""
        total = [torch.zeros_like(weight) for weight in self.weights]
        for loss in self.losses():
            parts = torch.autograd.grad(loss.sum(), self.weights, create_graph=create_graph, materialize_grads=True)
            total = [a + b for a, b in zip(total, parts, strict=True)]
        return total


def prune(agent: Agent, stack: Stack, batches: Batches, quantiles: Quantiles | None = None) -> dict[str, Mask]:
    """Masks of every network of the stack before training, [K, C, out, in] per layer, with as many weights kept as each trial asks.

    `batches(streams, size)` draws a minibatch. The agent itself is not touched; `quantiles` is filled where it is given. Raises
    UserError, naming trial and layer, when a mask disconnects a network and the trial does not allow that.
    """
    masks = {name: ones(spec, len(stack), agent.device) for name, spec in agent.specs.items()}
    groups: dict[tuple[object, ...], list[int]] = {}
    for member, trial in enumerate(stack.trials):
        if not {"during", "shrink"} & plugins.defines("pruners", trial.pruner):
            calibration = trial.calibration_batches, trial.calibration_size
            groups.setdefault((trial.pruner, trial.authors, trial.scope, trial.target, calibration), []).append(member)
    for members in groups.values():
        own = Stack(tuple(stack.trials[member] for member in members))
        chosen, saliency = _prune(agent, own, batches)
        for name, mask in chosen.items():
            if quantiles is not None:
                for place, member in enumerate(members):
                    quantiles[member, name] = [mask_statistics.quantiles(layer[place]) for layer in saliency[name]]
            for whole, part in zip(masks[name], mask, strict=True):
                whole[members] = part
    shuffling = [member for member, trial in enumerate(stack.trials) if trial.control == "shuffle"]
    for name, mask in masks.items():
        if shuffling:
            random = Streams([stack.trials[member].seed for member in shuffling], agent.device, phase="mask/")
            for index, layer in enumerate(mask):
                layer[shuffling] = shuffled(layer[shuffling], random.uniform(f"shuffle/{name}.{index}", *layer.shape[1:]))
        refusing = [member for member, trial in enumerate(stack.trials) if not trial.allow_disconnected]
        check_connected(name, [layer[refusing] for layer in mask], [stack.trials[member].name for member in refusing])
    return masks


def _prune(agent: Agent, stack: Stack, batches: Batches) -> tuple[dict[str, Mask], dict[str, list[Tensor]]]:
    """The masks of trials that agree in pruner, losses, calibration, scope and target, and the last round's saliencies."""
    pruner, names = plugins.load("pruners", stack.lead.pruner), list(agent.specs)
    densities = {name: [1 - trial.sparsity_in(name) for trial in stack.trials] for name in names}
    schedules = {name: [schedule_of(pruner, density) for density in own] for name, own in densities.items()}
    rounds = max(len(schedule) for own in schedules.values() for schedule in own)
    scored, place = sharing(stack, alone=rounds > 1)
    scorer = Agent(agent.algorithm, scored, *agent.sizes, agent.device)
    initial = {name: scorer.initial(name) for name in names}
    masks = {name: ones(scorer.specs[name], len(scored), agent.device) for name in names}
    saliency: dict[str, list[Tensor]] = {}
    for turn in range(rounds):
        if turn:
            scorer.build("dense", initial, masks)
        for name in names:
            network = look(scorer, name, masks[name], scored, batches, turn)
            found = [layer.detach() for layer in pruner.saliency(network)]
            network.place([*network.weights, *network.biases])
            if not hasattr(pruner, "REGROWS"):
                found = [layer.masked_fill(mask == 0, -torch.inf) for layer, mask in zip(found, masks[name], strict=True)]
            saliency[name] = [layer[place] for layer in found]
        now = {name: [schedule[turn] for schedule in own] for name, own in schedules.items()}
        target = stack.lead.target if turn == rounds - 1 else "nominal"
        masks = choose(scorer.specs, saliency, now, stack.lead.scope, target, getattr(pruner, "budgets", None))
    return masks, saliency


def schedule_of(pruner: ModuleType, density: float) -> list[float]:
    """Density after each round; one round for most pruners."""
    return list(pruner.schedule(density)) if hasattr(pruner, "schedule") else [density]


def sharing(stack: Stack, alone: bool) -> tuple[Stack, list[int]]:
    """The trials to score, and for each member of `stack` its place among them: those of one seed and one set of hyperparameters
    have one saliency whatever their sparsity, unless their pruner goes in rounds (`alone`)."""
    places: dict[str, int] = {}
    chosen: list[Trial] = []
    found = []
    for trial in stack.trials:
        key = trial.key if alone else f"{trial.seed} {sorted(trial.hyper.items())}"
        if key not in places:
            places[key] = len(chosen)
            chosen.append(trial)
        found.append(places[key])
    return Stack(tuple(chosen)), found


def look(agent: Agent, name: str, mask: Mask, stack: Stack, batches: Batches, turn: int) -> Scored:
    """A network of `agent`, which is in the reference execution, as a pruner sees it in round `turn`."""
    lead, seeds = stack.lead, agent.streams.seeds
    network = cast(Reference, agent.networks[name])
    own_losses: Mapping[str, Callable[[Agent, Batch], Tensor]] = agent.algorithm.LOSSES
    if lead.authors:
        own_losses = {**own_losses, **agent.algorithm.AUTHORS_LOSSES}

    def losses(more: int = 0) -> Iterator[Tensor]:
        own, agent.streams = agent.streams, Streams(seeds, agent.device, phase="calibration/")
        try:
            for index in range(lead.calibration_batches + more):
                agent.streams.update = turn * lead.calibration_batches + index
                yield own_losses[name](agent, batches(agent.streams, lead.calibration_size))
        finally:
            agent.streams = own

    def random(layer: int) -> Tensor:
        return Streams(seeds, agent.device, phase="mask/").uniform(f"{name}.{layer}", *mask[layer].shape[1:])

    def place(parameters: list[Tensor]) -> None:
        network.weights, network.biases = parameters[: len(mask)], parameters[len(mask) :]

    views = agent.specs[name].views(agent.initial(name))
    initial = [views[f"weight.{index}"] for index in range(len(mask))]
    return Scored(agent.specs[name], network.weights, mask, losses, random, initial, network.biases, place)
