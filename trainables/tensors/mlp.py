"""The networks: what an MLP of K members looks like, and its canonical flat layout.

Shapes, one legend for the whole project: K members, C copies of a network (twin critics), B batch, O observation, A action,
H hidden units, P prunable weights, D all parameters of a member (padded), V what an execution stores of them.

A member's parameters lie in one row of a flat tensor [K, D], layer after layer, weights before biases, `extra` last:

    | weight.0 [C, H, O] | bias.0 [C, H] | weight.1 [C, H, H] | bias.1 [C, H] | ... | extra | zeros up to a multiple of 16 |

With layer normalization each hidden layer's bias is followed by `gain.i` and `shift.i` [C, H].

The optimizer, target tracking, initialization and checkpoints work on such rows as a whole. An execution may store them otherwise
(kept weights only) but packs and unpacks the canonical row.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Literal, get_args

from torch import Tensor

from trainables.errors import UserError

EXPANSION = 4  # inner units of a residual block for each unit of the stream; SimBa
ROW_ALIGNMENT = 16  # floats; rows start at the same offset in a SIMD register, so a member's arithmetic does not depend on its index


Norm = Literal["", "before", "after"]
NORMS = get_args(Norm)


@dataclass(frozen=True)
class MLP:
    """A ReLU network `sizes[0] -> ... -> sizes[-1]` `copies` times: separate networks on the same input.

    `output` is "linear" or "tanh". `extra` names free parameter vectors that no mask touches (a log standard deviation); they
    start at 0.

    With `norm`, each hidden layer's numbers x [H] become (x - mean) / deviation x (1 + gain) + shift, "after" the ReLU (as in
    ReBRAC's code) or "before" it (as in XQL's). Mean and deviation are over all H units, whatever the mask: a unit that lost its
    weights still counts with its constant, the bias or max(bias, 0), and one that feeds no weight still reaches the output by way of
    the mean. So it is the network that a mask on a dense one gives, and mask statistics, which count paths along weights, count those
    units as dead all the same.

    With `residual`, as in SimBa (Lee et al. 2024, arXiv 2410.09754; SonyResearch/simba), `sizes` are O, H, 4 H, H, ..., 4 H, H, out:

        stream = weight.0 input + bias.0                                    a linear embedding
        stream += weight.2 relu(weight.1 z(stream) + bias.1) + bias.2       a block, and so on; z: normalized, x (1 + gain) + shift
        output = weight.last z(stream) + bias.last                          no ReLU outside of blocks
    """

    sizes: tuple[int, ...]
    copies: int = 1
    output: str = "linear"
    extra: Mapping[str, int] = field(default_factory=dict)
    norm: Norm = ""
    residual: bool = False

    def __post_init__(self) -> None:
        if self.norm not in NORMS:
            raise UserError(f"norm {self.norm!r} of a network is not one of: {', '.join(map(repr, NORMS))}")

    def built_as(self, network: str) -> MLP:
        """This network as a trial's `network` asks for it: `mlp` changes nothing, `layer_norm` has layer normalization (after the ReLU,
        where the algorithm has none of its own), and `simba` has a stream as wide as the hidden layers, and a residual block in place of
        each of them but the first.

        Raises UserError where hidden layers cannot become blocks."""
        if network == "mlp":
            return self
        if network == "layer_norm":
            return replace(self, norm=self.norm or "after")
        width, *more = self.sizes[1:-1]
        if not more or set(more) != {width}:
            raise UserError(
                f"network {network!r} needs two or more hidden layers of one width; an algorithm's network has {self.sizes[1:-1]}"
            )
        return self.of_width(width, len(more))

    def of_width(self, width: int, blocks: int) -> MLP:
        """The residual network of these inputs and outputs whose stream has `width` units."""
        hidden = (width, *(EXPANSION * width, width) * blocks)
        return replace(self, sizes=(self.sizes[0], *hidden, self.sizes[-1]), norm="after", residual=True)

    @property
    def blocks(self) -> int:
        """Residual blocks."""
        return (len(self.sizes) - 3) // 2 if self.residual else 0

    @cached_property
    def normalized(self) -> tuple[int, ...]:
        """The layers whose outputs are normalized before the next layer sees them: all hidden ones, or those that write to the stream."""
        return tuple(range(0, len(self.sizes) - 2, 2 if self.residual else 1)) if self.norm else ()

    @cached_property
    def layers(self) -> tuple[tuple[int, int], ...]:
        """(inputs, outputs) per layer."""
        return tuple(zip(self.sizes[:-1], self.sizes[1:], strict=True))

    @property
    def weights_per_layer(self) -> tuple[int, ...]:
        """Prunable weights per layer, all copies together."""
        return tuple(self.copies * n_in * n_out for n_in, n_out in self.layers)

    @cached_property
    def segments(self) -> Mapping[str, tuple[int, tuple[int, ...]]]:
        """Name -> (offset in the row, shape): `weight.0`, `bias.0`, ... layer by layer, then the extras."""
        segments: dict[str, tuple[int, tuple[int, ...]]] = {}
        offset = 0
        for index, (n_in, n_out) in enumerate(self.layers):
            shapes: dict[str, tuple[int, ...]] = {"weight": (self.copies, n_out, n_in), "bias": (self.copies, n_out)}
            if index in self.normalized:
                shapes |= {"gain": (self.copies, n_out), "shift": (self.copies, n_out)}
            for name, shape in shapes.items():
                segments[f"{name}.{index}"] = (offset, shape)
                offset += math.prod(shape)
        for name, size in self.extra.items():
            segments[name] = (offset, (size,))
            offset += size
        return segments

    @cached_property
    def used(self) -> int:
        """Length of a row without the padding."""
        offset, shape = list(self.segments.values())[-1]
        return offset + math.prod(shape)

    @property
    def row(self) -> int:
        """D: length of a row, padded."""
        return -(-self.used // ROW_ALIGNMENT) * ROW_ALIGNMENT

    def views(self, flat: Tensor) -> dict[str, Tensor]:
        """The named parameters [K, *shape] inside a canonical flat tensor [K, D], sharing its memory."""
        return {name: flat[:, offset : offset + math.prod(shape)].unflatten(1, shape) for name, (offset, shape) in self.segments.items()}

    def initial_bound(self, flat: Tensor) -> None:
        """Fill a canonical row-set with torch.nn.Linear's default bound 1/sqrt(inputs) per weight and bias; all else 0."""
        flat.zero_()
        views = self.views(flat)
        for index, (n_in, _) in enumerate(self.layers):
            for name in (f"weight.{index}", f"bias.{index}"):
                views[name].fill_(1 / math.sqrt(n_in))
