"""`prune_at_init` and the masks that it returns."""

from __future__ import annotations

import hashlib
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from trainables import plugins
from trainables.errors import UserError, unknown
from trainables.library.masks import Masks
from trainables.library.weights import LAYERS, Modules, Slot, named, weights
from trainables.pruning.ranking import kept, threshold, threshold_in_layers
from trainables.pruning.rounds import Saliencies, in_rounds
from trainables.pruning.scored import Scored
from trainables.tensors.mask import Mask
from trainables.trial.pruner_traits import traits_of

Loss = Callable[[Any], Tensor]  # batch -> a scalar that is differentiable in the network's weights

UNSUITED = ("dense", "synflow", "phew", "ntk_sap")  # prunes nothing; need a plain chain of layers
PRUNERS = tuple(name for name in plugins.names("pruners") if name not in UNSUITED and traits_of(name).at_initialization)


def prune_at_init(
    modules: Modules | Mapping[str, Modules],
    loss: Loss | Mapping[str, Loss],
    batches: Sequence[Any],
    density: float | Mapping[str, float],
    pruner: str = "snip",
    *,
    targets: Mapping[str, Modules] | None = None,
    seed: int = 0,
    allow_disconnected: bool = False,
) -> Masks:
    """Prune networks by `pruner` (a file of trainables/pruners) and keep them pruned.

    `modules` is one network, or several by name; a network may be a sequence of modules that are ranked together (twin critics). `loss` is
    called with each of `batches` and scores its network alone; the signed gradients of several batches are summed. `density` in (0, 1] is
    what each network keeps: round(density P) weights, ranked over all its layers. `targets` are copies of networks, by the same names,
    that get the same masks. `seed` is for pruners that draw random numbers; each network draws its own. (ProsPr's inner steps move only
    weights here, no biases.) Raises UserError for anything that cannot be pruned like this and, unless `allow_disconnected`, for a mask
    that leaves a layer without weights; nothing is changed then. Pruned are the weights of linear, convolutional, recurrent and attention
    layers, tied ones once. A warning names all others of two or more axes, e.g. an Embedding's or frozen ones.
    """
    given = named(modules)
    found = {name: weights(own) for name, own in given.items()}
    networks = {name: slots for name, (slots, _) in found.items()}
    left_out = {name: ", ".join(f"{path} ({kind})" for path, kind in left.items()) for name, (_, left) in found.items()}
    losses = dict(loss) if isinstance(loss, Mapping) else dict.fromkeys(networks, loss)
    densities = dict(density) if isinstance(density, Mapping) else dict.fromkeys(networks, density)
    copies = {name: weights(own, frozen=True)[0] for name, own in (targets or {}).items()}
    _check(networks, left_out, losses, densities, copies, batches, pruner)
    held = [slot for slots in networks.values() for slot in slots.values()]
    initial = {id(slot): slot.parameter.detach().clone() for slot in held}
    budgets = plugins.load("pruners", pruner).budgets if traits_of(pruner).has_budgets else None

    def look(masks: dict[str, Mask], turn: int) -> Iterator[tuple[str, Scored]]:
        for name, slots in networks.items():
            yield name, _scored(list(slots.values()), masks[name], initial, losses[name], batches, f"{seed}/{name}")

    def cut(saliency: Saliencies, now: dict[str, list[float]], last: bool) -> dict[str, Mask]:
        masks = {name: _cut(layers, now[name][0], budgets) for name, layers in saliency.items()}
        for name, slots in networks.items():
            _write(slots.values(), masks[name], initial)
        return masks

    start = {name: [torch.ones_like(slot.parameter) for slot in slots.values()] for name, slots in networks.items()}
    try:
        with _differentiable():
            masks, _ = in_rounds(pruner, start, {name: [densities[name]] for name in networks}, look, cut)
        if not allow_disconnected:
            for name, slots in networks.items():
                _check_layers(name, pruner, dict(zip(slots, masks[name], strict=True)))
    except BaseException:
        _write(held, [torch.ones_like(slot.parameter) for slot in held], initial)
        raise
    for name, left in left_out.items():
        if left:
            warnings.warn(f"weights of {name!r} that {pruner} leaves out, and that stay whole: {left}", stacklevel=2)
    return Masks({name: dict(zip(slots, masks[name], strict=True)) for name, slots in networks.items()}).attach(given, targets, zero=True)


def _check(
    networks: Mapping[str, Mapping[str, Slot]],
    left_out: Mapping[str, str],
    losses: Mapping[str, Loss],
    densities: Mapping[str, float],
    copies: Mapping[str, Mapping[str, Slot]],
    batches: Sequence[Any],
    pruner: str,
) -> None:
    if pruner not in PRUNERS:
        raise unknown("pruner for a library's user", pruner, PRUNERS)
    if not len(batches):
        raise UserError("batches is empty; SNIP's authors use one of 100 or more samples")
    for kind, given in (("loss", losses), ("density", densities), ("target", copies)):
        for name in given:
            if name not in networks:
                raise unknown(f"network (named by a {kind})", name, networks)
        for name in networks:
            if name not in given and kind != "target":
                raise UserError(f"network {name!r} has no {kind}; there are: {', '.join(given) or 'none'}")
    for name, slots in networks.items():
        if not slots:
            kinds = ", ".join(kind.__name__ for kind in LAYERS)
            raise UserError(
                f"network {name!r} has no prunable weights, only {left_out[name] or 'none of two or more axes'}; prunable are those of "
                f"{kinds}, MultiheadAttention and recurrent layers, unless frozen or parametrized"
            )
        if not 0 < densities[name] <= 1:
            raise UserError(f"density {densities[name]!r} of {name!r} is outside (0, 1]: it is the fraction of weights kept, e.g. 0.05")
        shapes = [tuple(slot.parameter.shape) for slot in slots.values()]
        other = [tuple(slot.parameter.shape) for layer, slot in copies.get(name, slots).items() if layer in slots]
        if other != shapes:
            raise UserError(f"the target of {name!r} has weights of shapes {other}, the network of {shapes}")


def _check_layers(network: str, pruner: str, masks: Mapping[str, Tensor]) -> None:
    """Raise UserError, naming network and layer, if a layer keeps nothing; how a torch module joins its layers cannot be known."""
    for layer, mask in masks.items():
        if not mask.any():
            raise UserError(
                f"{pruner} leaves no weight in layer {layer!r} of {network!r}, which keeps {[int(m.sum()) for m in masks.values()]} of "
                f"{[m.numel() for m in masks.values()]}; raise the density, choose another pruner or pass allow_disconnected=True"
            )


def _scored(slots: list[Slot], mask: Mask, initial: Mapping[int, Tensor], loss: Loss, batches: Sequence[Any], stream: str) -> Scored:
    """The network as a pruner sees it, with weights in their own shapes and one member. `stream` names its random numbers."""

    def losses(more: int = 0) -> Iterator[Tensor]:
        for index in range(len(batches) + more):
            yield loss(batches[index % len(batches)])

    def random(layer: int) -> Tensor:
        digest = hashlib.sha256(f"{stream}/{layer}".encode()).digest()  # Python's own hash differs between processes
        made = torch.Generator().manual_seed(int.from_bytes(digest[:8], "big"))
        return torch.rand(slots[layer].parameter.shape, generator=made).to(slots[layer].parameter.device)

    def place(parameters: list[Tensor]) -> None:
        for slot, weight in zip(slots, parameters, strict=True):
            slot.put(None if weight is slot.parameter else weight)

    spec: Any = None  # budgets are computed from shapes instead, see _cut
    weights: list[Tensor] = [slot.parameter for slot in slots]
    return Scored(spec, weights, mask, losses, random, [initial[id(slot)] for slot in slots], [], place)


@contextmanager
def _differentiable() -> Iterator[None]:
    """Compute so that gradients can be differentiated, as GraSP and ProsPr do: neither what torch.compile made nor fused attention can."""
    uncompiled = torch.compiler.set_stance("force_eager") if "torch._dynamo" in sys.modules else nullcontext()
    with uncompiled, sdpa_kernel(SDPBackend.MATH):
        yield


@dataclass(frozen=True)
class _Shapes:
    """What layer budgets need to know of a network: (inputs, outputs) per layer; a convolution's kernel counts as inputs."""

    layers: tuple[tuple[int, int], ...]
    copies: int = 1

    @property
    def weights_per_layer(self) -> tuple[int, ...]:
        return tuple(n_in * n_out for n_in, n_out in self.layers)


def _cut(saliency: list[Tensor], density: float, budgets: Callable[[Any, float], list[int]] | None) -> Mask:
    if budgets:
        shapes = _Shapes(tuple((layer[0].numel(), layer.shape[0]) for layer in saliency))
        return [mask[0, 0] for mask in threshold_in_layers([layer[None, None] for layer in saliency], [budgets(shapes, density)])]
    total = sum(layer.numel() for layer in saliency)
    return [mask[0] for mask in threshold([layer[None] for layer in saliency], [kept(density, total)])]


def _write(slots: Any, masks: Mask, initial: Mapping[int, Tensor]) -> None:
    """Put every parameter back into its layer, at its initial value times the mask."""
    with torch.no_grad():
        for slot, mask in zip(slots, masks, strict=True):
            slot.put(None)
            slot.parameter.copy_(initial[id(slot)] * mask)
