"""How a masked network is computed. A contract test checks that every execution equals `dense`, the reference.

One file = one execution, a module with `class Network` that fulfils the protocol below, and optionally `cannot(spec)`: why it cannot
compute a network, empty where it can; `DEVICES`, if it does not run on all; and `OTHERWISE`, who computes what it
raises CannotComputeError for.
Algorithms, the optimizer and target tracking use the protocol only; `build` chooses.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterable, Sequence
from typing import Protocol

from torch import Tensor

from trainables import plugins
from trainables.errors import UserError, unknown
from trainables.native import build as kernels
from trainables.tensors import native_ops
from trainables.tensors.mask import Mask
from trainables.tensors.mlp import MLP
from trainables.trial import BREAK_EVEN

CHOICES = ("auto", *plugins.names("execution"))


class Network(Protocol):
    """An MLP of K members with fixed masks, on one device.

    parameters [K, V]   what the optimizer and target tracking change in place; V and the order are the execution's business
    leaves              the tensors to differentiate by, sharing the memory of `parameters`
    extra               the free parameter vectors by name, each [K, size], also among the leaves
    """

    spec: MLP
    parameters: Tensor
    leaves: Sequence[Tensor]
    extra: dict[str, Tensor]

    def __call__(self, *inputs: Tensor, copy: int | None = None) -> Tensor:
        """Inputs [K, B, n] are concatenated along n; result [K, B, out], or [K, C, B, out] for a network of several copies
        unless `copy` selects one. Differentiable in the inputs and the leaves."""
        ...

    def frozen(self, *inputs: Tensor, copy: int | None = None) -> Tensor:
        """The same values, differentiable in the inputs only."""
        ...

    def input_gradient(self, *inputs: Tensor, by: int) -> tuple[Tensor, Tensor]:
        """The output q [K, C, B, 1] and dq/d inputs[by] [K, C, B, n], for each copy by itself (no C where there is one copy): both
        differentiable in the leaves, and q in the inputs. For one linear output without normalization, else ValueError."""
        ...

    def collect(self, gradients: Sequence[Tensor]) -> Tensor:
        """The gradients of `leaves`, in their order, as one [K, V] (a buffer used again by the next call): 0 where a mask is 0."""
        ...

    def pack(self, flat: Tensor) -> Tensor:
        """Canonical rows [K, D] -> this execution's [K, V]."""
        ...

    def unpack(self, packed: Tensor) -> Tensor:
        """This execution's [K, V] -> canonical rows [K, D], 0 wherever a mask is 0."""
        ...


def build(execution: str, spec: MLP, flat: Tensor, mask: Tensor) -> Network:
    """A network from canonical rows `flat` [K, D] and `mask` [K, D] in {0, 1} (1 also on biases and extras).

    `auto` takes the execution measured to be fastest for the device and the density (benchmarks/README.md)."""
    if execution not in CHOICES:
        raise unknown("execution", execution, CHOICES)
    name = fastest(spec, mask) if execution == "auto" else execution
    if reason := cannot(name, spec, mask.device.type):
        raise UserError(f"execution {name!r} cannot compute {reason}; take 'auto' or 'dense'")
    network: Network = importlib.import_module(f"trainables.execution.{name}").Network(spec, flat, mask)
    return network


def together(networks: Iterable[Network]) -> None:
    """Let networks that are computed in turn, by one thread, use the same memory for activations, where their execution has some."""
    arenas = [network for network in networks if hasattr(network, "arena")]
    for network in arenas[1:]:
        network.arena = arenas[0].arena


def cannot(execution: str, spec: MLP, device: str = "cpu") -> str:
    """Why an execution cannot compute a network on a kind of device, in a few words; empty where it can."""
    module = importlib.import_module(f"trainables.execution.{execution}")
    if device not in getattr(module, "DEVICES", (device,)):
        return f"on the device {device!r}"
    return str(module.cannot(spec)) if hasattr(module, "cannot") else ""


def otherwise(execution: str) -> str:
    """The execution that computes what is too large for this one."""
    return str(getattr(importlib.import_module(f"trainables.execution.{execution}"), "OTHERWISE", "dense"))


def missed(masks: Iterable[Mask], device: str) -> str:
    """Why `auto` cannot compute pruned networks sparsely, as a sentence; empty if it can, or if no network is pruned."""
    pruned = any(sum(float(layer.sum()) for layer in mask) <= BREAK_EVEN * sum(layer.numel() for layer in mask) for mask in masks)
    reason = kernels.reason() if pruned and device == "cpu" else ""
    return f"pruned weights cost as much as kept ones: {reason}" if reason else ""


def fastest(spec: MLP, mask: Tensor) -> str:
    """On a CPU `sparse` below the density where it breaks even with dense matrix products, if its kernels can run here; elsewhere
    `fused` for a network without layer normalization, which it cannot compute; otherwise `dense`."""
    if not mask.is_cpu:
        return "dense" if cannot("fused", spec) else "fused"
    kept = sum(float(view.sum()) for name, view in spec.views(mask).items() if name.startswith("weight."))
    density = kept / (len(mask) * sum(spec.weights_per_layer))
    return "sparse" if density <= BREAK_EVEN and native_ops.serves(mask) else "dense"
