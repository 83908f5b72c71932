"""The reference: every weight is multiplied, pruned ones are zeros. Plain torch autograd, differentiable any number of times."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from trainables.execution._linear import linear, times
from trainables.native.build import NORM_EPSILON
from trainables.tensors import tape
from trainables.tensors.functions import tanh
from trainables.tensors.mlp import MLP
from trainables.tensors.native_ops import serves

# A member's arithmetic must not depend on its stack-mates, to the last bit. That of the project's C does not. BLAS, where there is no C,
# rounds by where a matrix starts in memory: with this many rows (batches are filled up with zeros), and hidden widths that are multiples
# of 4, every member's matrices start at a cache line.
BATCH_ALIGNMENT = 32


class FewRows(threading.local):
    """`with few_rows:` networks that the project's C computes do so from a tape, for results that are not differentiated."""

    entered = False

    def __enter__(self) -> None:
        self.entered = True

    def __exit__(self, *error: object) -> None:
        self.entered = False


few_rows = FewRows()


class Network:
    """Fulfils execution.Network with V = D: the canonical rows themselves."""

    def __init__(self, spec: MLP, flat: Tensor, mask: Tensor) -> None:
        self.spec = spec
        self.parameters = torch.empty_like(flat, memory_format=torch.contiguous_format)
        self.hold(flat, mask)
        self.gradient = torch.zeros_like(self.parameters)
        self.collected = list(spec.views(self.gradient).values())
        views = {name: view.detach().requires_grad_() for name, view in spec.views(self.parameters).items()}
        self.leaves = list(views.values())
        self.extra = {name: views[name] for name in spec.extra}
        self.weights, self.biases, self.norms = parts(spec, views)
        self.small = Small()

    def hold(self, flat: Tensor, mask: Tensor) -> None:
        """Take other parameters and another mask, in the same memory."""
        self.mask = mask
        self.masked = not mask.is_cpu or bool((mask[:, : self.spec.used] == 0).any())  # a GPU would have to be waited for
        with torch.no_grad():
            self.parameters.copy_(flat.masked_fill(mask == 0, 0))

    def __call__(self, *inputs: Tensor, copy: int | None = None) -> Tensor:
        if few_rows.entered and serves(inputs[0]) and not tape.recording():
            return self.small(self.frozen, inputs, copy)
        return forward(self.spec, self.weights, self.biases, self.norms, inputs, copy)

    def frozen(self, *inputs: Tensor, copy: int | None = None) -> Tensor:
        norms = {i: (gain.detach(), shift.detach()) for i, (gain, shift) in self.norms.items()}
        return forward(self.spec, [w.detach() for w in self.weights], [b.detach() for b in self.biases], norms, inputs, copy)

    def input_gradient(self, *inputs: Tensor, by: int) -> tuple[Tensor, Tensor]:
        return value_and_gradient(self.spec, self.weights, self.biases, inputs, by)

    def collect(self, gradients: Sequence[Tensor]) -> Tensor:
        for to, gradient in zip(self.collected, gradients, strict=True):
            to.copy_(gradient)
        return self.gradient.mul_(self.mask) if self.masked else self.gradient

    def pack(self, flat: Tensor) -> Tensor:
        return flat.masked_fill(self.mask == 0, 0)

    def unpack(self, packed: Tensor) -> Tensor:
        return packed.masked_fill(self.mask == 0, 0)


class Small:
    """Computes some few rows again and again, as evaluation does at each time step. Of ten rows, torch's overhead takes longer than the
    products, so they are recorded once."""

    def __init__(self) -> None:
        self.recorded: dict[Any, tuple[tuple[Tensor, ...], tape.Tape, Tensor]] = {}  # by shapes and copy: inputs, calls, output

    def __call__(self, compute: Callable[..., Tensor], inputs: tuple[Tensor, ...], copy: int | None) -> Tensor:
        key = (*(x.shape for x in inputs), copy)
        if key not in self.recorded:
            memory = tuple(torch.empty(x.shape) for x in inputs)
            with torch.no_grad(), tape.Tape() as calls:
                out = compute(*memory, copy=copy)
            self.recorded[key] = memory, calls, out
        memory, calls, out = self.recorded[key]
        for to, x in zip(memory, inputs, strict=True):
            to.copy_(x.detach())
        calls.compute()
        return out.clone()


def parts(spec: MLP, views: Mapping[str, Tensor]) -> tuple[list[Tensor], list[Tensor], dict[int, tuple[Tensor, Tensor]]]:
    """Weights and biases by layer, and gain and shift of the layers that have them, among a network's named parameters."""
    depth = range(len(spec.layers))
    norms = {i: (views[f"gain.{i}"], views[f"shift.{i}"]) for i in spec.normalized}
    return [views[f"weight.{i}"] for i in depth], [views[f"bias.{i}"] for i in depth], norms


def activations(spec: MLP, rows: Tensor, x: Tensor) -> tuple[Tensor, list[Tensor]]:
    """The output [K, C, B, out] of networks in canonical rows [K, D], 0 where they are pruned, and the activations [K, C, B, H] of each
    hidden layer, before a normalization that follows the ReLU."""
    hidden: list[Tensor] = []
    out = forward(spec, *parts(spec, spec.views(rows)), (x,), None, hidden)
    shape, batch = (-1, spec.copies), x.shape[1]
    return out if spec.copies > 1 else out.unsqueeze(1), [layer[:, :batch].unflatten(0, shape) for layer in hidden]


def forward(
    spec: MLP,
    weights: list[Tensor],
    biases: list[Tensor],
    norms: Mapping[int, tuple[Tensor, Tensor]],
    inputs: tuple[Tensor, ...],
    copy: int | None,
    hidden: list[Tensor] | None = None,
) -> Tensor:
    """The network's output [K, B, out], or [K, C, B, out] where `spec.copies` > 1 and no copy is chosen.

    `weights[l]` is [K, C, out, in], `biases[l]` [K, C, out], and so are gain and shift in `norms[l]`, where a layer is normalized.
    K and C are one batch axis of the matrix products. `hidden` takes up the activations [K C, B, H] (B filled up) of each hidden layer,
    before a normalization that follows the ReLU."""
    x = torch.cat(inputs, dim=-1) if len(inputs) > 1 else inputs[0]
    batch, ours = x.shape[1], serves(x)
    missing = 0 if ours else -batch % BATCH_ALIGNMENT
    if missing:
        x = torch.nn.functional.pad(x, (0, 0, 0, missing))
    if copy is not None:
        chosen = slice(copy, copy + 1)
        weights, biases = [w[:, chosen] for w in weights], [b[:, chosen] for b in biases]
        norms = {i: (gain[:, chosen], shift[:, chosen]) for i, (gain, shift) in norms.items()}
    members, copies = weights[0].shape[:2]
    if copies > 1:
        x = x.unsqueeze(1).expand(-1, copies, -1, -1).flatten(0, 1)  # [K C, B, in]
    stream: Tensor | None = None  # of a residual network
    before = spec.norm == "before"
    for index, (weight, bias) in enumerate(zip(weights, biases, strict=True)):
        if index - 1 in norms and not before:  # gain and shift go into the weights behind them: there are fewer of those than activations
            gain, shift = (v.unsqueeze(-2) for v in norms[index - 1])
            bias = bias + (weight * shift).sum(-1)
            weight = weight * (1 + gain)
        w, b = weight.flatten(0, 1), bias.flatten(0, 1).unsqueeze(1)
        vector = not ours and copies == w.shape[1] == 1  # BLAS rounds one otherwise than several, so it is given two columns
        x = torch.baddbmm(b, x, w.expand(-1, 2, -1).transpose(1, 2))[..., :1] if vector else linear(b, x, w)
        if index < len(weights) - 1:
            if before:
                gain, shift = (v.flatten(0, 1).unsqueeze(1) for v in norms[index])
                x = torch.addcmul(shift, normalized(x), 1 + gain)
            if spec.residual and index in norms:
                x = stream = x if stream is None else stream + x
            else:
                x = torch.relu(x)
            if hidden is not None:
                hidden.append(x)
            if index in norms and not before:
                x = normalized(x)
    if spec.output == "tanh":
        x = tanh(x)
    if missing:
        x = x[:, :batch]
    return x.unflatten(0, (members, copies)) if copies > 1 else x


def normalized(x: Tensor) -> Tensor:
    """(x - mean) / deviation over the last axis."""
    return torch.nn.functional.layer_norm(x, x.shape[-1:], eps=NORM_EPSILON)


def value_and_gradient(
    spec: MLP, weights: list[Tensor], biases: list[Tensor], inputs: tuple[Tensor, ...], by: int
) -> tuple[Tensor, Tensor]:
    """The output and its gradient by `inputs[by]`, for a network of one linear output without normalization.

    Written out instead of left to autograd: a ReLU's gate is constant, so the gradient is a chain of the same products as backward's, and
    differentiating it by the weights is ordinary."""
    if spec.norm or spec.output != "linear" or spec.sizes[-1] != 1:
        raise ValueError(f"{spec} is not a network of one linear output without normalization")
    hidden: list[Tensor] = []
    value = forward(spec, weights, biases, {}, inputs, None, hidden)
    start = sum(x.shape[-1] for x in inputs[:by])
    first = weights[0][..., start : start + inputs[by].shape[-1]]
    gradient = weights[-1].flatten(0, 1)  # [K C, 1, H]
    for weight, unit in zip([*weights[-2:0:-1], first], reversed(hidden), strict=True):
        gradient = times(gradient * (unit > 0), weight.flatten(0, 1))  # [K C, B, in]
    gradient = gradient[:, : value.shape[-2]].unflatten(0, (-1, spec.copies))
    return value, gradient if spec.copies > 1 else gradient.squeeze(1)
