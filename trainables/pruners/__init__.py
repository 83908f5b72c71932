"""Masks before training. One file = one pruner, a module with

    saliency(network) -> [Tensor [K, C, out, in] per layer]    a score per weight, high = keep; see `Scored`
    budgets(spec, density) -> [int per layer]                  optional: weights kept per layer; without it the ranking is global
    schedule(density) -> [density per round]                   optional: several rounds, each scored on the masked network

Ranking is global within each network (twin critic heads pooled), separately for actor, critic and value, which is the protocol
of the authors' later code (SaminYeasar/sparse_reg); biases and extras are never pruned, output layers are.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from types import ModuleType
from typing import cast

import torch
from torch import Tensor

from trainables import registry
from trainables.agent import Agent, Batch
from trainables.execution.dense import Network as Reference
from trainables.masks import Mask, check_connected, kept, threshold, threshold_in_layers
from trainables.nn import MLP
from trainables.streams import Streams
from trainables.trial import Stack


@dataclass(frozen=True)
class Scored:
    """What a pruner sees of one network of K members, every weight at its initial value times the mask so far."""

    spec: MLP
    weights: list[Tensor]  # leaves, [K, C, out, in] per layer
    mask: Mask
    losses: Callable[[], Iterator[Tensor]]  # the loss [K] that scores this network, on each calibration batch
    random: Callable[[int], Tensor]  # layer -> uniform numbers [K, C, out, in] of the member's own stream

    def gradient(self, create_graph: bool = False) -> list[Tensor]:
        """The signed gradient of the loss by each weight, summed over the calibration batches (absolute values come after)."""
        total = [torch.zeros_like(weight) for weight in self.weights]
        for loss in self.losses():
            parts = torch.autograd.grad(loss.sum(), self.weights, create_graph=create_graph, materialize_grads=True)
            total = [a + b for a, b in zip(total, parts, strict=True)]
        return total


def prune(agent: Agent, stack: Stack, batches: Callable[[Streams, int], Batch]) -> dict[str, Mask]:
    """Masks of every network of the stack, [K, C, out, in] per layer, with exactly round(density P) weights kept.

    `batches(streams, size)` draws a minibatch. The agent is left dense and untrained. Raises UserError when a mask disconnects a
    network, naming the layer.
    """
    initial = {name: agent.initial(name) for name in agent.specs}
    masks: dict[str, Mask] = {}
    for name in sorted({trial.pruner for trial in stack.trials}):
        members = [k for k, trial in enumerate(stack.trials) if trial.pruner == name]
        # The whole stack is scored in one pass and the pruner's own members are taken: members share nothing, so this changes none.
        for network, mask in _prune(registry.load("pruners", name), agent, stack, initial, batches).items():
            whole = masks.setdefault(network, [torch.ones_like(layer) for layer in mask])
            for layer, own in zip(whole, mask, strict=True):
                layer[members] = own[members]
    for network, mask in masks.items():
        check_connected(network, mask, [trial.name for trial in stack.trials])
    return masks


def _prune(
    pruner: ModuleType, agent: Agent, stack: Stack, initial: dict[str, Tensor], batches: Callable[[Streams, int], Batch]
) -> dict[str, Mask]:
    """The masks that one pruner gives to every member of the stack."""
    schedules = [pruner.schedule(trial.density) if hasattr(pruner, "schedule") else [trial.density] for trial in stack.trials]
    agent.build("dense", initial, None)
    masks = {name: [torch.ones_like(w) for w in dense_weights(agent, name)] for name in agent.specs}
    for densities in zip(*schedules, strict=True):
        scored = {name: pruner.saliency(_scored(agent, name, masks[name], stack, batches)) for name in agent.specs}
        for name, spec in agent.specs.items():
            saliency = [s.detach().masked_fill(m == 0, -torch.inf) for s, m in zip(scored[name], masks[name], strict=True)]
            if hasattr(pruner, "budgets"):
                masks[name] = threshold_in_layers(saliency, [pruner.budgets(spec, density) for density in densities])
            else:
                masks[name] = threshold(saliency, [kept(density, sum(spec.weights_per_layer)) for density in densities])
        if len(schedules[0]) > 1:
            agent.build("dense", initial, masks)
    agent.build("dense", initial, None)
    return masks


def dense_weights(agent: Agent, name: str) -> list[Tensor]:
    """The weight leaves of a network in the reference execution."""
    return cast(Reference, agent.networks[name]).weights


def _scored(agent: Agent, name: str, mask: Mask, stack: Stack, batches: Callable[[Streams, int], Batch]) -> Scored:
    lead, seeds = stack.lead, agent.streams.seeds

    def losses() -> Iterator[Tensor]:
        own, agent.streams = agent.streams, Streams(seeds, agent.device, phase="calibration/")
        try:
            for index in range(lead.calibration_batches):
                agent.streams.update = index
                yield agent.algorithm.LOSSES[name](agent, batches(agent.streams, lead.calibration_size))
        finally:
            agent.streams = own

    def random(layer: int) -> Tensor:
        shape = mask[layer].shape[1:]
        return Streams(seeds, agent.device, phase="mask/").uniform(f"{name}.{layer}", *shape)

    return Scored(agent.specs[name], dense_weights(agent, name), mask, losses, random)
