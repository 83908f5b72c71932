"""What a plug-in's file owes, asked where it would first be missed: a line that names the file and what is wanted, not a traceback from
somewhere inside. Imports no torch.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from types import ModuleType
from typing import Any

from trainables import plugins
from trainables.errors import UserError

GUIDE = "docs/your-own.md has one"


def pruner(name: str) -> None:
    """Raises UserError for a file without `saliency`, unless it makes smaller networks; reads the source alone."""
    if not plugins.defines("pruners", name) & {"saliency", "shrink"}:
        raise UserError(f"pruners/{name}.py has no function saliency(network), which scores the weights of a network; {GUIDE}")


def scores(pruner: str, found: Any, shapes: Sequence[Sequence[int]]) -> list[Any]:
    """What `saliency` has returned, as a list. Raises UserError unless these are tensors of floats with the shapes of the weights."""
    wanted = f"it has to return one tensor of floats per layer, of the shapes {_listed(shapes)}"
    if not isinstance(found, Iterable) or isinstance(found, Mapping) or hasattr(found, "detach"):
        raise UserError(f"pruner {pruner!r}: saliency returned {_what(found)}; {wanted}")
    layers = list(found)
    wrong = [layer for layer in layers if not hasattr(layer, "detach") or not layer.is_floating_point()]
    if wrong:
        raise UserError(f"pruner {pruner!r}: saliency returned {_what(wrong[0])} for a layer; {wanted}")
    if [tuple(layer.shape) for layer in layers] != [tuple(shape) for shape in shapes]:
        raise UserError(f"pruner {pruner!r}: saliency returned tensors of the shapes {_listed(layer.shape for layer in layers)}; {wanted}")
    return layers


def algorithm(module: ModuleType, networks: Collection[str], hyper: Collection[str], normalizes: bool) -> None:
    """Raises UserError where an algorithm's file lacks something, or names a network or hyperparameter that it does not have.

    `normalizes`: its NORMALIZE as planning has read it from the source."""
    name, there = short(module), ", ".join(networks) or "none"
    for needed in ("NORMALIZE", "LEARNING_RATES", "TARGETS", "LOSSES", "update", "act"):
        if not hasattr(module, needed):
            raise UserError(f"algorithms/{name}.py has no {needed}; {GUIDE}")
    if not isinstance(module.NORMALIZE, bool) or module.NORMALIZE is not normalizes:
        raise UserError(
            f"algorithms/{name}.py: NORMALIZE is {module.NORMALIZE!r}; write NORMALIZE = True or NORMALIZE = False, since planning "
            "reads it without running the file"
        )
    for constant in ("LEARNING_RATES", "TARGETS", "LOSSES"):
        for network in getattr(module, constant):
            if network not in networks:
                raise UserError(f"algorithms/{name}.py: {constant} names {network!r}, which networks() does not make; it makes: {there}")
    for constant in ("LEARNING_RATES", "LOSSES"):
        if missing := [network for network in networks if network not in getattr(module, constant)]:
            raise UserError(f"algorithms/{name}.py: {constant} lacks the network {missing[0]!r}")
    for network, rate in module.LEARNING_RATES.items():
        if rate not in hyper:
            raise UserError(
                f"algorithms/{name}.py: the learning rate of {network!r} is {rate!r}, which Hyper does not have; it has: {', '.join(hyper)}"
            )


def losses(module: ModuleType, found: Any, members: int, where: str = "update returned") -> None:
    """Raises UserError unless these are losses by name, a number for each member."""
    wanted = f"losses by name, each with a number per member: shape ({members},)"
    if not isinstance(found, Mapping):
        raise UserError(f"algorithms/{short(module)}.py: {where} {_what(found)}; expected {wanted}")
    for name, loss in found.items():
        if not hasattr(loss, "detach") or tuple(loss.shape) != (members,):
            what = f"{where} {_what(loss)} for {name!r}"
            raise UserError(f"algorithms/{short(module)}.py: {what}; expected {wanted}, such as .mean((1, 2)) of [K, B, A]")


def actions(module: ModuleType, found: Any, shape: Sequence[int]) -> None:
    """Raises UserError unless `act` has returned a tensor of this shape [K, E, A]."""
    if not hasattr(found, "detach") or tuple(found.shape) != tuple(shape):
        wanted = f"a tensor [members, observations, actions], here {tuple(shape)}"
        raise UserError(f"algorithms/{short(module)}.py: act returned {_what(found)}; expected {wanted}")


def short(module: ModuleType) -> str:
    return module.__name__.rpartition(".")[2]


def _listed(shapes: Iterable[Sequence[int]]) -> str:
    return ", ".join(str(tuple(shape)) for shape in shapes) or "none"


def _what(value: Any) -> str:
    """A value in a few words."""
    if hasattr(value, "detach"):
        return f"a tensor of {str(value.dtype).rpartition('.')[2]} of the shape {tuple(value.shape)}"
    return "None" if value is None else f"a {type(value).__name__}"
