"""Which weights of a module are prunable, by which names, and which are left out."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn
from torch.nn.parameter import UninitializedParameter

from trainables.errors import UserError

Modules = nn.Module | Sequence[nn.Module]

LAYERS = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
ATTENTION = ("in_proj_weight", "q_proj_weight", "k_proj_weight", "v_proj_weight")  # out_proj is a Linear


@dataclass(frozen=True)
class Slot:
    """A prunable weight and the layers that compute with it, by attribute; several where it is tied."""

    parameter: nn.Parameter
    owners: tuple[tuple[nn.Module, str], ...]

    @property
    def layer(self) -> nn.Module:
        """The layer that it is named after."""
        return self.owners[0][0]

    def put(self, weight: Tensor | None) -> None:
        """Compute with `weight` in place of the parameter; None restores the parameter."""
        for layer, attribute in self.owners:
            if weight is None:
                layer.__dict__.pop(attribute, None)
            else:
                layer.__dict__[attribute] = weight  # looked up before the parameter, whose position among the others stays
            if isinstance(layer, nn.RNNBase):  # reads its weights from a list of its own
                layer._flat_weights[layer._flat_weights_names.index(attribute)] = self.parameter if weight is None else weight


def named(modules: Modules | Mapping[str, Modules]) -> dict[str, Modules]:
    """Networks by name; a single one is called `network`. Raises UserError for a name that a checkpoint could not hold."""
    networks = dict(modules) if isinstance(modules, Mapping) else {"network": modules}
    for name in networks:
        if "/" in name:
            raise UserError(f"the name of a network, {name!r}, contains '/', which separates it from its layers in a checkpoint")
    return networks


def several(network: Modules) -> bool:
    """Whether a network is a sequence of modules that are ranked together; a ModuleList is one."""
    return isinstance(network, Sequence | nn.ModuleList)


def parts(network: Modules) -> list[nn.Module]:
    """The modules of a network, without the wrappers of torch.compile."""
    return [_plain(module) for module in (network if isinstance(network, Sequence | nn.ModuleList) else [network])]


def weights(network: Modules, frozen: bool = False) -> tuple[dict[str, Slot], dict[str, str]]:
    """The prunable weights of a network by name, each once, and the names and kinds of those left out.

    Left out are weights of other layers than those above, attention's and recurrent ones, and, unless `frozen`, those without gradients.
    A layer whose weight is computed by a parametrization (weight norm) has none of its own. Raises UserError for a weight without a shape.
    """
    everything = [
        (name, layer, attribute, p) for name, layer in _named_layers(network) for attribute, p in layer._parameters.items() if p is not None
    ]
    owners: dict[int, list[tuple[nn.Module, str]]] = {}
    for _, layer, attribute, parameter in everything:
        owners.setdefault(id(parameter), []).append((layer, attribute))
    slots: dict[str, Slot] = {}
    left_out: dict[str, str] = {}
    chosen: set[int] = set()
    for name, layer, attribute, parameter in everything:
        path = ".".join(part for part in (name, attribute) if part)
        if id(parameter) in chosen or not _prunable(layer, attribute):
            continue
        if isinstance(parameter, UninitializedParameter):
            raise UserError(f"{path!r} has no shape yet: call the module on a batch first")
        if parameter.requires_grad or frozen:
            own = owners[id(parameter)]
            own.sort(key=lambda owner, layer=layer: owner[0] is not layer)  # type: ignore[misc]
            slots[path] = Slot(parameter, tuple(own))
            chosen.add(id(parameter))
        else:
            left_out[path] = "frozen"
    for name, layer, attribute, parameter in everything:
        path = ".".join(part for part in (name, attribute) if part)
        if id(parameter) not in chosen and path not in left_out and parameter.ndim > 1 and not attribute.startswith("bias"):
            left_out[path] = type(layer).__name__
    return slots, left_out


def _prunable(layer: nn.Module, attribute: str) -> bool:
    if isinstance(layer, nn.MultiheadAttention):
        return attribute in ATTENTION
    if isinstance(layer, nn.RNNBase | nn.RNNCellBase):
        return attribute.startswith("weight_")
    return isinstance(layer, LAYERS) and attribute == "weight"


def _named_layers(network: Modules) -> Iterator[tuple[str, nn.Module]]:
    for number, module in enumerate(parts(network)):
        for name, layer in module.named_modules():
            path = [str(number)] if several(network) else []
            yield ".".join(path + [part for part in name.split(".") if part and part != "_orig_mod"]), layer


def _plain(module: Any) -> nn.Module:
    while "_orig_mod" in module._modules:
        module = module._modules["_orig_mod"]
    plain: nn.Module = module
    return plain
