"""Pruning at initialization for any torch module and any training code; needs torch and numpy only.

    from trainables.library import prune_at_init

    masks = prune_at_init({"actor": actor, "critic": [q1, q2]}, {"actor": actor_loss, "critic": critic_loss}, batches, density=0.05)

and then train as ever. The masks hold by themselves: removed weights are exactly 0, and a hook makes their gradients exactly 0, so that any
torch optimizer that starts from fresh state (Adam, AdamW, SGD with momentum, with or without weight decay) leaves them there.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

import torch
from torch import Tensor, nn

from trainables import plugins
from trainables.errors import UserError, unknown
from trainables.pruning.prune import Scored, schedule_of
from trainables.pruning.ranking import kept, threshold, threshold_in_layers
from trainables.tensors.mask import Mask

Modules = nn.Module | Sequence[nn.Module]
Loss = Callable[[Any], Tensor]  # batch -> a scalar that is differentiable in the network's weights

LAYERS = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)  # their weights are prunable; biases and all else are not
UNFIT = ("dense", "synflow")  # nothing to do; needs a plain chain of layers
PRUNERS = tuple(n for n in plugins.names("pruners") if n not in UNFIT and not {"during", "shrink"} & plugins.defines("pruners", n))


@dataclass
class Masks:
    """What `prune_at_init` gives back: `of[network][layer]` is a mask of {0, 1} in the shape of the layer's weight."""

    of: dict[str, dict[str, Tensor]]
    _held: list[tuple[nn.Parameter, Tensor]] = field(default_factory=list, repr=False)
    _hooks: list[Any] = field(default_factory=list, repr=False)

    def density(self, network: str) -> float:
        """The share of a network's prunable weights that is kept."""
        masks = self.of[network].values()
        return float(sum(mask.sum() for mask in masks)) / sum(mask.numel() for mask in masks)

    def apply(self) -> None:
        """Set removed weights to 0 again: after anything but a gradient step wrote to them (loading other weights, say)."""
        with torch.no_grad():
            for parameter, mask in self._held:
                parameter.mul_(mask)

    def release(self) -> None:
        """Let the gradients through again; the weights stay as they are."""
        while self._hooks:
            self._hooks.pop().remove()


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

    `modules` is one network or several by name; a network may be a sequence of modules that are ranked together (twin critics). `loss` is
    called with each of `batches` and scores its network alone; several batches sum their signed gradients. `density` in (0, 1] is what
    each network keeps, round(density P) weights, ranked over all its layers. `targets` are copies of networks, by the same names, that
    get the same masks. `seed` is for pruners that draw, each network numbers of its own. (ProsPr's inner steps move weights only here.)
    Raises UserError for what cannot be pruned so and, unless `allow_disconnected`, for a mask that leaves a layer no weight; then
    nothing is changed.
    """
    networks = {name: _weights(own) for name, own in (modules.items() if isinstance(modules, Mapping) else [("network", modules)])}
    losses = dict(loss) if isinstance(loss, Mapping) else dict.fromkeys(networks, loss)
    densities = dict(density) if isinstance(density, Mapping) else dict.fromkeys(networks, density)
    copies = {name: _weights(own) for name, own in (targets or {}).items()}
    _check(networks, losses, densities, copies, batches, pruner)
    method = plugins.load("pruners", pruner)
    held = [slot for slots in networks.values() for slot in slots.values()]
    initial = {id(slot): slot.parameter.detach().clone() for slot in held}
    masks: dict[str, Mask] = {name: [torch.ones_like(slot.parameter) for slot in slots.values()] for name, slots in networks.items()}
    schedules = {name: schedule_of(method, densities[name]) for name in networks}
    try:
        for turn in range(max(map(len, schedules.values()))):
            new = {}
            for name, slots in networks.items():
                network = _look(list(slots.values()), masks[name], initial, losses[name], batches, f"{seed}/{name}")
                saliency = [layer.detach() for layer in method.saliency(network)]
                network.place([])
                if not hasattr(method, "REGROWS"):
                    saliency = [layer.masked_fill(mask == 0, -torch.inf) for layer, mask in zip(saliency, masks[name], strict=True)]
                new[name] = _cut(saliency, schedules[name][turn], getattr(method, "budgets", None))
            masks = new
            for name, slots in networks.items():
                _write(slots.values(), masks[name], initial)
        if not allow_disconnected:
            for name, slots in networks.items():
                _check_layers(name, pruner, dict(zip(slots, masks[name], strict=True)))
    except BaseException:
        _write(held, [torch.ones_like(slot.parameter) for slot in held], initial)
        raise
    found = Masks({name: dict(zip(slots, masks[name], strict=True)) for name, slots in networks.items()})
    for name, slots in networks.items():
        for slot, mask in zip(slots.values(), masks[name], strict=True):
            found._held.append((slot.parameter, mask))
            found._hooks.append(slot.parameter.register_hook(lambda gradient, mask=mask: gradient * mask))
        found._held += [(slot.parameter, mask) for slot, mask in zip(copies.get(name, {}).values(), masks[name], strict=False)]
    found.apply()
    return found


@dataclass(frozen=True)
class _Slot:
    """The weight of a layer, and the layer that owns it."""

    layer: nn.Module
    parameter: nn.Parameter

    def put(self, weight: Tensor | None) -> None:
        """Compute with `weight` in place of the parameter, until None puts that back."""
        if weight is None:
            self.layer.__dict__.pop("weight", None)
        else:
            self.layer.__dict__["weight"] = weight  # found before the parameter, whose place among the others stays as it is


def _weights(modules: Modules) -> dict[str, _Slot]:
    """The prunable weights of a network by name, each once."""
    several = isinstance(modules, Sequence)
    found: dict[str, _Slot] = {}
    seen: set[int] = set()
    for number, module in enumerate(modules if isinstance(modules, Sequence) else [modules]):
        for name, layer in module.named_modules():
            if isinstance(layer, LAYERS) and id(layer.weight) not in seen:
                seen.add(id(layer.weight))
                path = (str(number) if several else "", name, "weight")
                found[".".join(part for part in path if part)] = _Slot(layer, cast(nn.Parameter, layer.weight))
    return found


def _check(
    networks: Mapping[str, Mapping[str, _Slot]],
    losses: Mapping[str, Loss],
    densities: Mapping[str, float],
    copies: Mapping[str, Mapping[str, _Slot]],
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
            raise UserError(f"network {name!r} has no prunable weights; prunable are those of {', '.join(c.__name__ for c in LAYERS)}")
        if not 0 < densities[name] <= 1:
            raise UserError(f"density {densities[name]!r} of {name!r} is outside (0, 1]: it is the fraction of weights kept, e.g. 0.05")
        shapes = [tuple(slot.parameter.shape) for slot in slots.values()]
        other = [tuple(slot.parameter.shape) for slot in copies.get(name, slots).values()]
        if other != shapes:
            raise UserError(f"the target of {name!r} has weights of shapes {other}, the network of {shapes}")


def _check_layers(network: str, pruner: str, masks: Mapping[str, Tensor]) -> None:
    """Raise UserError, naming network and layer, where a layer keeps nothing; how layers are joined is not known of any torch module."""
    for layer, mask in masks.items():
        if not mask.any():
            raise UserError(
                f"{pruner} leaves no weight in layer {layer!r} of {network!r}, which keeps {[int(m.sum()) for m in masks.values()]} of "
                f"{[m.numel() for m in masks.values()]}; raise the density, choose another pruner or pass allow_disconnected=True"
            )


def _look(slots: list[_Slot], mask: Mask, initial: Mapping[int, Tensor], loss: Loss, batches: Sequence[Any], stream: str) -> Scored:
    """The network as the pruners' files see it; weights keep their own shapes, there is one member. `stream` names its random numbers."""

    def losses(more: int = 0) -> Iterator[Tensor]:
        for index in range(len(batches) + more):
            yield loss(batches[index % len(batches)])

    def random(layer: int) -> Tensor:
        digest = hashlib.sha256(f"{stream}/{layer}".encode()).digest()  # Python's own hash differs between processes
        made = torch.Generator().manual_seed(int.from_bytes(digest[:8], "big"))
        return torch.rand(slots[layer].parameter.shape, generator=made).to(slots[layer].parameter.device)

    def place(parameters: list[Tensor]) -> None:
        for index, slot in enumerate(slots):
            slot.put(parameters[index] if parameters else None)

    spec: Any = None  # the budgets are asked of shapes, see _cut
    weights: list[Tensor] = [slot.parameter for slot in slots]
    return Scored(spec, weights, mask, losses, random, [initial[id(slot)] for slot in slots], [], place)


@dataclass(frozen=True)
class _Shapes:
    """What layer budgets need of a network: (inputs, outputs) per layer; a convolution's kernel counts as inputs."""

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
