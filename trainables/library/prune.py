"""`prune_at_init` and the masks that it returns."""

from __future__ import annotations

import numbers
import sys
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from trainables import plugins
from trainables.errors import UserError, unknown
from trainables.library.hold import Hold
from trainables.library.masks import Masks
from trainables.library.scoring import Loss, Part, Shapes, by_loss, without_loss
from trainables.library.weights import LAYERS, Modules, Slot, named, parts, weights
from trainables.pruning.ranking import kept, threshold, threshold_in_layers
from trainables.pruning.rounds import Saliencies, in_rounds
from trainables.pruning.scored import Scored
from trainables.tensors.mask import Mask
from trainables.trial.pruner_traits import traits_of

Inputs = Tensor | Sequence[Tensor]

PRUNERS = tuple(name for name in plugins.names("pruners") if name != "dense" and traits_of(name).at_initialization)
WITHOUT_LOSS = tuple(name for name in PRUNERS if not traits_of(name).uses_losses)


def prune_at_init(
    modules: Modules | Mapping[str, Modules],
    loss: Loss | Mapping[str, Loss] | None = None,
    batches: Sequence[Any] = (),
    density: float | Mapping[str, float] | None = None,
    pruner: str = "snip",
    *,
    targets: Mapping[str, Modules] | None = None,
    inputs: Inputs | Mapping[str, Inputs] | None = None,
    seed: int = 0,
    allow_disconnected: bool = False,
) -> Masks:
    """Prune networks by `pruner` (a file of trainables/pruners) and keep them pruned.

    `modules` is one network, or several by name; a network may be a sequence of modules that are ranked together (twin critics). `loss` is
    called with each of `batches` and scores its network alone; the signed gradients of several batches are summed. Pruners WITHOUT_LOSS
    need neither. `density` in (0, 1] is what each network keeps: round(density P) weights, ranked over all its layers. `targets` are copies
    of networks, by the same names, that get the same masks. `inputs` are examples [B, ...] of what a network's modules are called with,
    for SynFlow and NTK-SAP where layers are not just linear ones in a row; only their shapes matter. `seed` is for pruners that draw random
    numbers; each network draws its own. (ProsPr's inner steps move only weights here, no biases.)

    Pruned are the weights of linear, convolutional, recurrent and attention layers, tied ones once. A warning names all others of two or
    more axes, e.g. an Embedding's or frozen ones. Raises UserError for anything that cannot be pruned like this and, unless
    `allow_disconnected`, for a mask that leaves a layer without weights; nothing is changed then.
    """
    _check_pruner(pruner)
    given = named(modules)
    found = {name: weights(own) for name, own in given.items()}
    networks = {name: slots for name, (slots, _) in found.items()}
    left_out = {name: ", ".join(f"{path} ({kind})" for path, kind in left.items()) for name, (_, left) in found.items()}
    losses = by_name(networks, loss)
    densities = by_name(networks, density)
    copies = {name: weights(own, frozen=True)[0] for name, own in (targets or {}).items()}
    examples = {name: [own] if isinstance(own, Tensor) else list(own) for name, own in by_name(networks, inputs).items()}
    _check_networks(networks, left_out, densities, copies)
    _check_data(pruner, networks, losses, batches, examples)
    pieces = {
        key: part for name, own in given.items() for key, part in _parts(pruner, name, own, networks[name], examples.get(name, [])).items()
    }
    for name, left in left_out.items():
        if left:
            warnings.warn(f"weights of {name!r} that {pruner} leaves out, and that stay whole: {left}", stacklevel=2)
    held = [slot for slots in networks.values() for slot in slots.values()]
    former = [hold for slot in held if (hold := Hold.of(slot.parameter)) is not None]  # of an earlier call, or of a copy's original
    initial = {id(slot): slot.parameter.detach().clone() for slot in held}
    budgets = plugins.load("pruners", pruner).budgets if traits_of(pruner).has_budgets else None

    chosen: dict[str, Mask] = {}

    def look(masks: dict[str, Mask], turn: int) -> Iterator[tuple[str, Scored]]:
        for key, part in pieces.items():
            if part.module is None:
                yield key, by_loss(part, masks[key], initial, losses[part.network], batches, seed)
            else:
                yield key, without_loss(part, masks[key], initial, seed, turn)

    def cut(saliency: Saliencies, now: dict[str, list[float]], last: bool) -> dict[str, Mask]:
        masks: dict[str, Mask] = {}
        for name, slots in networks.items():
            own = {key: part for key, part in pieces.items() if part.network == name}
            layers = [layer for key, part in own.items() for layer in part.in_shape(saliency[key])]
            if missing := sum(int(layer.isnan().sum()) for layer in layers):
                total = sum(layer.numel() for layer in layers)
                raise UserError(f"the scores of {name!r} by {pruner} are NaN for {missing} of {total} weights; nothing is pruned")
            if traits_of(pruner).uses_losses and name not in chosen and not any(layer.any() for layer in layers):
                raise UserError(f"every score of {name!r} by {pruner} is 0: its loss does not depend on its weights")
            chosen[name] = _cut(name, layers, now[next(iter(own))][0], budgets)
            _write(slots.values(), chosen[name], initial)
            masks |= {key: part.laid_out(chosen[name][part.first : part.first + len(part.slots)]) for key, part in own.items()}
        return masks

    start = {key: part.laid_out([torch.ones_like(slot.parameter) for slot in part.slots]) for key, part in pieces.items()}
    try:
        for hold in former:
            hold.release()
        with _differentiable(), _same_buffers([*given.values(), *(targets or {}).values()]):
            in_rounds(pruner, start, {key: [densities[part.network]] for key, part in pieces.items()}, look, cut)
        masks = {name: dict(zip(slots, chosen[name], strict=True)) for name, slots in networks.items()}
        if not allow_disconnected:
            for name, layers in masks.items():
                _check_layers(name, pruner, layers)
    except BaseException:
        _write(held, [torch.ones_like(slot.parameter) for slot in held], initial)
        for hold in former:
            hold.hook()
        raise
    return Masks(masks).attach(given, targets, zero=True)


@contextmanager
def _same_buffers(networks: Iterable[Modules]) -> Iterator[None]:
    """What modules note down while they compute, such as BatchNorm's running statistics, is afterwards what it was before."""
    kept = [(buffer, buffer.detach().clone()) for network in networks for module in parts(network) for buffer in module.buffers()]
    try:
        yield
    finally:
        with torch.no_grad():
            for buffer, before in kept:
                buffer.copy_(before)


def by_name(networks: Mapping[str, object], given: Any) -> dict[str, Any]:
    """What is given by network, or once for all; empty for None."""
    if given is None:
        return {}
    return dict(given) if isinstance(given, Mapping) else dict.fromkeys(networks, given)


def _parts(pruner: str, name: str, network: Modules, slots: Mapping[str, Slot], examples: Sequence[Tensor]) -> dict[str, Part]:
    """What the pruner scores at once: all weights of a network or, without a loss, those of each of its modules."""
    if traits_of(pruner).uses_losses:
        return {name: Part(name, list(slots.values()))}
    found: dict[str, Part] = {}
    first, modules = 0, parts(network)
    for number, module in enumerate(modules):
        inside = {id(parameter) for parameter in module.parameters()}
        own = [slot for slot in list(slots.values())[first:] if id(slot.parameter) in inside]
        key = name if len(modules) == 1 else f"{name}/{number}"
        if own:
            found[key] = Part(name, own, first, module, key, examples)
        first += len(own)
        if own and traits_of(pruner).needs_chain:
            found[key].check_chain(f"{pruner} walks along such a row")
    return found


def _check_pruner(pruner: str) -> None:
    """Raise UserError, with the reason, for a pruner that makes no masks before training."""
    if pruner in PRUNERS:
        return
    if pruner not in plugins.names("pruners"):
        raise unknown("pruner", pruner, PRUNERS)
    why = "prunes nothing"
    if traits_of(pruner).shrinks:
        why = "makes networks smaller and masks nothing"
    elif traits_of(pruner).during_training:
        why = "changes its masks during a training that prune_at_init does not see; run it in a sweep"
    raise UserError(f"{pruner} {why}; there are: {', '.join(PRUNERS)}")


def _check_networks(
    networks: Mapping[str, Mapping[str, Slot]],
    left_out: Mapping[str, str],
    densities: Mapping[str, Any],
    copies: Mapping[str, Mapping[str, Slot]],
) -> None:
    if not densities:
        raise UserError("density is None: give the fraction of weights kept, e.g. density=0.05, or one for each network")
    _check_names(networks, "density", densities, needed=True)
    _check_names(networks, "target", copies)
    owners: dict[int, str] = {}
    for name, slots in networks.items():
        targets = {id(slot.parameter) for slot in copies.get(name, {}).values()}
        for layer, slot in slots.items():
            if (other := owners.setdefault(id(slot.parameter), name)) != name:
                raise UserError(
                    f"{other!r} and {name!r} share the weight of layer {layer!r}: prune them as one network, a sequence of both"
                )
            if id(slot.parameter) in targets:
                raise UserError(f"the target of {name!r} is the network itself, or shares the weight of layer {layer!r} with it")
        if not slots:
            kinds = ", ".join(kind.__name__ for kind in LAYERS)
            others = f"only {left_out[name]}" if left_out[name] else "none of two or more axes"
            raise UserError(
                f"network {name!r} has no prunable weights, {others}; prunable are those of {kinds}, MultiheadAttention and recurrent "
                "layers, unless frozen or parametrized"
            )
        density: Any = densities[name]
        number = isinstance(density, numbers.Real) and not isinstance(density, bool)
        if not number or not 0 < float(density) <= 1:
            what = "is outside (0, 1]" if number else "is not a number"
            raise UserError(f"density {density!r} of {name!r} {what}: it is the fraction of weights kept, e.g. 0.05")
        shapes = [tuple(slot.parameter.shape) for slot in slots.values()]
        theirs = [tuple(slot.parameter.shape) for layer, slot in copies.get(name, slots).items() if layer in slots]
        if theirs != shapes:
            raise UserError(f"the target of {name!r} has weights of shapes {theirs}, the network of {shapes}")


def _check_data(
    pruner: str, networks: Mapping[str, object], losses: Mapping[str, Any], batches: Sequence[Any], examples: Mapping[str, Sequence[Any]]
) -> None:
    uses_losses = traits_of(pruner).uses_losses
    if uses_losses and not losses:
        raise UserError(f"{pruner} scores weights by a loss: give loss and batches; without them there are: {', '.join(WITHOUT_LOSS)}")
    if uses_losses and (isinstance(batches, Mapping) or not (hasattr(batches, "__len__") and hasattr(batches, "__getitem__"))):
        raise UserError(f"batches is a {type(batches).__name__}, not a sequence: give a list of batches, e.g. [next(iter(loader))]")
    if uses_losses and not len(batches):
        raise UserError("batches is empty; SNIP's authors use one of 100 or more samples")
    _check_names(networks, "loss", losses, needed=uses_losses)
    _check_names(networks, "list of inputs", examples)
    for name, given in examples.items():
        for example in given:
            if not isinstance(example, Tensor) or not example.is_floating_point() or example.ndim < 2:
                kind = f"{tuple(example.shape)} of {example.dtype}" if isinstance(example, Tensor) else type(example).__name__
                raise UserError(f"inputs of {name!r} are not tensors [B, ...] of floating-point numbers, but {kind}")


def _check_names(networks: Mapping[str, object], kind: str, given: Mapping[str, object], needed: bool = False) -> None:
    for name in given:
        if name not in networks:
            raise unknown(f"network (named by a {kind})", name, networks)
    for name in networks:
        if needed and name not in given:
            raise UserError(f"network {name!r} has no {kind}; there are: {', '.join(given) or 'none'}")


def _check_layers(network: str, pruner: str, masks: Mapping[str, Tensor]) -> None:
    """Raise UserError, naming network and layer, if a layer keeps nothing; how a torch module joins its layers cannot be known."""
    for layer, mask in masks.items():
        if not mask.any():
            raise UserError(
                f"{pruner} leaves no weight in layer {layer!r} of {network!r}, which keeps {[int(m.sum()) for m in masks.values()]} of "
                f"{[m.numel() for m in masks.values()]}; raise the density, choose another pruner or pass allow_disconnected=True"
            )


@contextmanager
def _differentiable() -> Iterator[None]:
    """Compute so that gradients can be differentiated, as GraSP and ProsPr do: neither what torch.compile made nor fused attention can."""
    uncompiled = torch.compiler.set_stance("force_eager") if "torch._dynamo" in sys.modules else nullcontext()
    with uncompiled, sdpa_kernel(SDPBackend.MATH):
        yield


def _cut(network: str, saliency: list[Tensor], density: float, budgets: Callable[[Any, float], list[int]] | None) -> Mask:
    if budgets:
        shapes = Shapes(network, tuple((layer[0].numel(), layer.shape[0]) for layer in saliency))
        return [mask[0, 0] for mask in threshold_in_layers([layer[None, None] for layer in saliency], [budgets(shapes, density)])]
    total = sum(layer.numel() for layer in saliency)
    return [mask[0] for mask in threshold([layer[None] for layer in saliency], [kept(density, total)])]


def _write(slots: Any, masks: Mask, initial: Mapping[int, Tensor]) -> None:
    """Put every parameter back into its layer, at its initial value times the mask."""
    with torch.no_grad():
        for slot, mask in zip(slots, masks, strict=True):
            slot.put(None)
            slot.parameter.copy_(initial[id(slot)] * mask)
