"""A network as a pruner sees it (`Scored`), with one member."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from trainables.errors import UserError
from trainables.library.flow import Linear, outputs, split
from trainables.library.weights import Slot
from trainables.pruning.scored import Scored, chain
from trainables.tensors.mask import Mask
from trainables.tensors.streams import Streams

Loss = Callable[[Any], Tensor]  # batch -> a scalar that is differentiable in the network's weights

GIVE = "give inputs={{{0!r}: tensors with which its modules are called}}"


@dataclass(frozen=True)
class Shapes:
    """What a pruner may know of a network's layers: (inputs, outputs) of each; a convolution's kernel counts as inputs."""

    network: str
    layers: tuple[tuple[int, int], ...]
    inputs: int = 0  # where they are known
    copies: int = 1

    @property
    def weights_per_layer(self) -> tuple[int, ...]:
        """The number of weights of each layer."""
        return tuple(n_in * n_out for n_in, n_out in self.layers)

    @property
    def sizes(self) -> tuple[int, ...]:
        """Units: the network's inputs, then each layer's outputs; raises UserError where the inputs are not known."""
        if not self.inputs:
            raise UserError(f"how {self.network!r} is called is not known: {GIVE.format(self.network)}")
        return (self.inputs, *(n_out for _, n_out in self.layers))


@dataclass(frozen=True)
class Part:
    """What a pruner scores at once: the weights of a network or, without a loss, those of one of its modules, whose outputs it needs."""

    network: str
    slots: Sequence[Slot]
    first: int = 0  # the position of its first weight among those of its network
    module: nn.Module | None = None
    name: str = ""  # of its random numbers
    examples: Sequence[Tensor] = ()  # inputs of the module, where they were given

    @property
    def inputs(self) -> Sequence[Tensor]:
        """Examples of inputs; those of linear layers in a Sequential need not be given."""
        if self.examples or not isinstance(self.module, nn.Sequential) or not isinstance(next(iter(self.module), None), nn.Linear):
            return self.examples
        return [self.slots[0].parameter.new_zeros(1, self.slots[0].parameter.shape[1])]

    def laid_out(self, tensors: Sequence[Tensor]) -> Mask:
        """Tensors in the shapes of the weights, or, without a loss, as the core has them, [1, 1, out, in]."""
        if self.module is None:
            return list(tensors)
        return [tensor.reshape(1, 1, tensor.shape[0], -1) for tensor in tensors]

    def in_shape(self, tensors: Sequence[Tensor]) -> list[Tensor]:
        """Tensors that were laid out, in the shapes of the weights."""
        return [tensor.reshape(slot.parameter.shape) for tensor, slot in zip(tensors, self.slots, strict=True)]

    def check_chain(self, why: str) -> None:
        """Raise UserError unless the layers are linear ones in a row; `why` ends the message."""
        size = None
        for slot in self.slots:
            shape = tuple(slot.parameter.shape)
            if not isinstance(slot.layer, nn.Linear) or len(slot.owners) > 1 or size not in (None, shape[1]):
                kind = type(slot.layer).__name__
                raise UserError(f"the layers of {self.network!r} are not linear ones in a row, because of a {kind} of shape {shape}; {why}")
            size = shape[0]


def numbers(part: Part, seed: int) -> Callable[[int], Tensor]:
    """Layer -> uniform numbers in the shape of its weight."""

    def random(layer: int) -> Tensor:
        # Python's own hash differs between processes.
        digest = hashlib.sha256(f"{seed}/{part.network}/{part.first + layer}".encode()).digest()
        made = torch.Generator().manual_seed(int.from_bytes(digest[:8], "big"))
        parameter = part.slots[layer].parameter
        return part.laid_out([torch.rand(parameter.shape, generator=made).to(parameter.device)])[0]

    return random


def by_loss(part: Part, mask: Mask, initial: Mapping[int, Tensor], loss: Loss, batches: Sequence[Any], seed: int) -> Scored:
    """With the weights in their own shapes, which are leaves of the loss."""

    def losses(more: int = 0) -> Iterator[Tensor]:
        for index in range(len(batches) + more):
            value = loss(batches[index % len(batches)])
            if not isinstance(value, Tensor) or not value.requires_grad:
                kind = "a tensor without a gradient" if isinstance(value, Tensor) else f"a {type(value).__name__}"
                raise UserError(f"the loss of {part.network!r} cannot be differentiated: it is {kind}")
            yield value.sum()

    def place(parameters: list[Tensor]) -> None:
        for slot, weight in zip(part.slots, parameters, strict=True):
            slot.put(None if weight is slot.parameter else weight)

    spec: Any = shapes(part)
    weights: list[Tensor] = [slot.parameter for slot in part.slots]
    return Scored(spec, weights, mask, losses, numbers(part, seed), [initial[id(slot)] for slot in part.slots], [], place)


def without_loss(part: Part, mask: Mask, initial: Mapping[int, Tensor], seed: int, turn: int) -> Scored:
    """With the weights as the core has them, and what the module computes from `examples` with others."""
    module = part.module
    assert module is not None
    placed: list[Tensor] = []

    def place(parameters: list[Tensor]) -> None:
        placed[:] = parameters

    def compute(inputs: Sequence[Tensor], weights: Sequence[Tensor], other: Callable[[Tensor], Tensor]) -> Tensor:
        """Without biases, with `weights` in place of the slots' and `other` values of all other parameters."""
        own = {id(slot.parameter): weight for slot, weight in zip(part.slots, part.in_shape(weights), strict=True)}

        def value(name: str, parameter: Tensor) -> Tensor:
            if id(parameter) in own:
                return own[id(parameter)]
            return (
                torch.zeros_like(parameter) if name.rpartition(".")[2].startswith("bias") or "_bias" in name else other(parameter.detach())
            )

        return outputs(module, inputs, value)

    def of_inputs(inputs: Tensor) -> Tensor:
        return compute(split(inputs[0], part.inputs), placed, lambda parameter: parameter)

    def linear(weights: list[Tensor]) -> Tensor:
        if not part.examples:
            part.check_chain(GIVE.format(part.network))
            return chain(weights)
        with Linear():
            return compute([torch.ones_like(example[:1]) for example in part.examples], weights, torch.abs)[None, None, 0]

    device = part.slots[0].parameter.device
    streams = Streams([seed], device, phase=f"mask/{part.name}/")
    streams.update = turn
    spec: Any = shapes(part)
    weights = part.laid_out([slot.parameter.detach() for slot in part.slots])
    before = part.laid_out([initial[id(slot)] for slot in part.slots])
    return Scored(spec, weights, mask, lambda more=0: iter(()), numbers(part, seed), before, [], place, streams, of_inputs, linear)


def shapes(part: Part) -> Shapes:
    """The layers of a part; a network's inputs are known where examples are."""
    layers = tuple((slot.parameter[0].numel(), slot.parameter.shape[0]) for slot in part.slots)
    return Shapes(part.network, layers, sum(example[0].numel() for example in part.inputs))
