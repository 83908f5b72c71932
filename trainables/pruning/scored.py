"""What a pruner sees of a network: `Scored`, the argument of every `saliency`."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import cast

import torch
from torch import Tensor

from trainables.agent import Agent, Batch
from trainables.execution.dense import Network as Reference
from trainables.tensors.mask import Mask, to_row
from trainables.tensors.mlp import MLP
from trainables.tensors.streams import Streams
from trainables.trial import Stack

Batches = Callable[[Streams, int], Batch]  # (streams, size) -> a minibatch


def chain(weights: Sequence[Tensor]) -> Tensor:
    """The outputs [..., units] of linear layers [..., out, in] in a row, without biases, for an input of ones."""
    signal = torch.ones_like(weights[0][..., 0, :])
    for weight in weights:
        signal = (weight @ signal.unsqueeze(-1)).squeeze(-1)
    return signal


def residual_chain(weights: Sequence[Tensor]) -> Tensor:
    """The same for a residual network, whose blocks add to a stream."""
    stream = chain(weights[:1])
    for inner, outer in zip(weights[1:-1:2], weights[2:-1:2], strict=True):
        stream = stream + (outer @ (inner @ stream.unsqueeze(-1))).squeeze(-1)
    return (weights[-1] @ stream.unsqueeze(-1)).squeeze(-1)


@dataclass(frozen=True)
class Scored:
    """What a pruner sees of one network of K members: each weight is its initial value times the mask so far."""

    spec: MLP
    weights: list[Tensor]  # leaves, [K, C, out, in] per layer
    mask: Mask
    losses: Callable[..., Iterator[Tensor]]  # the loss [K] that scores this network, on each calibration batch and on `more` after those
    random: Callable[[int], Tensor]  # layer -> uniform numbers [K, C, out, in] from the member's own stream
    initial: list[Tensor] = field(default_factory=list)  # the weights before any mask
    biases: list[Tensor] = field(default_factory=list)  # leaves, [K, C, out] per layer
    place: Callable[[list[Tensor]], None] = lambda parameters: None  # sets the weights, then biases, that the next loss is computed with
    streams: Streams = field(default_factory=lambda: Streams([]))  # the members' own, of this network and round
    outputs: Callable[[Tensor], Tensor] = lambda inputs: inputs  # [K, B, in] -> the network's, with the parameters that were placed
    linear: Callable[[list[Tensor]], Tensor] = chain  # weights -> outputs [..., units] for ones, if there were no activations and biases

    def gradient(self, create_graph: bool = False) -> list[Tensor]:
        """The signed gradient of the loss by each weight, summed over the calibration batches (absolute values come after)."""
        total = [torch.zeros_like(weight) for weight in self.weights]
        for loss in self.losses():
            parts = torch.autograd.grad(loss.sum(), self.weights, create_graph=create_graph, materialize_grads=True)
            total = [a + b for a, b in zip(total, parts, strict=True)]
        return total

    def restore(self) -> None:
        """Put the network's own weights and biases back, whatever `place` set."""
        self.place([*self.weights, *self.biases])


def mask_again(agent: Agent, rows: Mapping[str, Tensor], masks: Mapping[str, Mask]) -> None:
    """Networks and targets as `agent.build("dense", rows, masks)` makes them, in the memory of those that it made before."""
    for name, spec in agent.specs.items():
        for network in (agent.networks[name], *([getattr(agent.target, name)] if name in agent.trackers else [])):
            cast(Reference, network).hold(rows[name], to_row(spec, masks[name]))


def scored(
    agent: Agent, name: str, mask: Mask, stack: Stack, batches: Batches, turn: int = 0, phase: str = "", first: Tensor | None = None
) -> Scored:
    """A network of `agent`, which is in the reference execution, as a pruner sees it in round `turn`; `phase` sets its draws apart from
    those before training. `first`: its initial rows, where they were drawn before."""
    lead, seeds = stack.lead, agent.streams.seeds
    network = cast(Reference, agent.networks[name])
    loss_of: Mapping[str, Callable[[Agent, Batch], Tensor]] = agent.algorithm.LOSSES
    if lead.authors:
        loss_of = {**loss_of, **agent.algorithm.LEAKY_LOSSES}

    def losses(more: int = 0) -> Iterator[Tensor]:
        training, agent.streams = agent.streams, agent.draws_of(f"{phase}calibration/")
        try:
            for index in range(lead.calibration_batches + more):
                agent.streams.update = turn * lead.calibration_batches + index
                yield loss_of[name](agent, batches(agent.streams, lead.calibration_size))
        finally:
            agent.streams = training

    def random(layer: int) -> Tensor:
        return Streams(seeds, agent.device, phase=f"{phase}mask/").uniform(f"{name}.{layer}", *mask[layer].shape[1:])

    def place(parameters: list[Tensor]) -> None:
        network.weights, network.biases = parameters[: len(mask)], parameters[len(mask) :]

    views = agent.specs[name].views(agent.initial(name) if first is None else first)
    initial = [views[f"weight.{index}"] for index in range(len(mask))]
    streams = Streams(seeds, agent.device, phase=f"{phase}mask/{name}/")
    streams.update = turn
    spec = agent.specs[name]
    linear = residual_chain if spec.residual else chain
    return Scored(spec, network.weights, mask, losses, random, initial, network.biases, place, streams, network.__call__, linear)
