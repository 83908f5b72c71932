"""`Masks`, what `prune_at_init` returns: it holds masks on modules and travels in checkpoints."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from trainables.errors import UserError, unknown
from trainables.library.fold import folded
from trainables.library.hold import Hold
from trainables.library.weights import Modules, named, weights

MOMENTA = ("exp_avg", "momentum_buffer")  # the state with which torch's optimizers move a weight whose gradient is 0


class Masks:
    """`of[network][layer]` is a mask of {0, 1} in the shape of the layer's weight; `left_out[network]` names weights that are not pruned.

    Those of a pickle, or of a checkpoint, hold nothing until `attach` gives them modules.
    """

    def __init__(self, of: Mapping[str, Mapping[str, Tensor]] | None = None) -> None:
        self.of: dict[str, dict[str, Tensor]] = {network: dict(layers) for network, layers in (of or {}).items()}
        self.left_out: dict[str, dict[str, str]] = {network: {} for network in self.of}
        self._modules: dict[str, Modules] = {}
        self._targets: dict[str, Modules] = {}
        self._holds: list[tuple[tuple[str, str], Hold]] = []  # by network and layer; those of targets follow

    def __repr__(self) -> str:
        networks = []
        for name, layers in self.of.items():
            kept, total = (int(sum(mask.sum() for mask in layers.values())), sum(mask.numel() for mask in layers.values()))
            networks.append(f"{name}: {kept:,} of {total:,} weights ({kept / total:.2%}) in {len(layers)} layers")
        return f"Masks({'; '.join(networks)})"

    def density(self, network: str) -> float:
        """The share of a network's prunable weights that is kept."""
        masks = self.of[network].values()
        return float(sum(mask.sum() for mask in masks)) / sum(mask.numel() for mask in masks)

    def attach(
        self, modules: Modules | Mapping[str, Modules], targets: Mapping[str, Modules] | None = None, *, zero: bool = False
    ) -> Masks:
        """Hold these networks, and their targets, in place of those held so far: modules that were loaded, copied or built again.

        Raises UserError where names or shapes are not those of the masks and, unless `zero`, where a removed weight is not 0; nothing is
        changed then. With `zero`, removed weights are set to 0. Returns these masks.
        """
        networks, copies = named(modules), dict(targets or {})
        for name in networks:
            if name not in self.of:
                raise unknown("network in these masks", name, self.of)
        for name in self.of:
            if name not in networks:
                raise UserError(f"the masks of {name!r} get no network; there are: {', '.join(networks)}")
        for name in copies:
            if name not in networks:
                raise unknown("network (named by a target)", name, networks)
        holds = self._holds_on(networks, "")
        followers = self._holds_on(copies, "the target of ")
        if not zero:
            for hold in (*holds.values(), *followers.values()):
                hold.check()
        left_out = {
            name: {layer: kind for layer, kind in weights(network)[1].items() if layer not in self.of[name]}
            for name, network in networks.items()
        }
        self.release()
        for key, hold in holds.items():
            hold.followers = [followers[key]] if key in followers else []
            hold.hook()
        self.left_out, self._modules, self._targets = left_out, networks, copies
        self._holds = [*holds.items(), *followers.items()]
        if zero:
            self.apply()
        return self

    def check(self, *optimizers: torch.optim.Optimizer) -> None:
        """Raise UserError if a removed weight is not 0, or if an optimizer has momentum that would move one."""
        for hold in self._attached():
            hold.check()
            for name, state in _momenta(optimizers, hold.parameter):
                moving = int(state[hold.removed.to(state.device)].count_nonzero())
                if moving:
                    raise UserError(
                        f"the optimizer's {name} would move {moving} removed weights of {hold.where}: its state is from before pruning; "
                        "start with a fresh optimizer, or call masks.apply(optimizer)"
                    )

    def apply(self, *optimizers: torch.optim.Optimizer) -> None:
        """Set removed weights, and the momentum that optimizers have for them, to 0, e.g. after other weights were loaded."""
        with torch.no_grad():
            for hold in self._attached():
                hold.parameter.masked_fill_(hold.removed.to(hold.parameter.device), 0)
                for _, state in _momenta(optimizers, hold.parameter):
                    state.masked_fill_(hold.removed.to(state.device), 0)

    def release(self) -> None:
        """Stop masking gradients; the weights stay as they are."""
        for _, hold in self._holds:
            hold.release()
        self._holds, self._modules, self._targets = [], {}, {}

    def fold(self, *, smaller: bool = False) -> dict[str, Modules]:
        """Copies of the networks as plain torch modules, to deploy or to go on with: dense ones in which removed weights are 0.

        With `smaller`, units to or from which no weight leads are gone wherever they lie between two linear layers of an nn.Sequential,
        with only activations in between; the outputs are the same up to rounding. Raises UserError if a removed weight is not 0.
        """
        self.check()
        return {name: folded(network, self.of[name], smaller) for name, network in self._modules.items()}

    def state_dict(self) -> dict[str, Tensor]:
        """The masks as bool tensors by `network/layer`, which torch.load (weights_only=True) and safetensors read."""
        return {f"{network}/{layer}": mask.bool() for network, layers in self.of.items() for layer, mask in layers.items()}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> Masks:
        """Take the masks of a checkpoint; those of `Masks()` become them, others must have the same names and shapes. Returns these masks.

        Weights stay as they are. If those that are held do not fit, because the model's state is not loaded yet or is another's, the next
        gradient or `check` raises UserError. Raises UserError for what are not masks; nothing is changed then.
        """
        new: dict[str, dict[str, Tensor]] = {}
        if not isinstance(state, Mapping):
            raise UserError(f"{state!r} is not the state_dict() of masks")
        for key, mask in state.items():
            network, _, layer = str(key).partition("/")
            if not layer or not isinstance(mask, Tensor) or not bool(((mask == 0) | (mask == 1)).all()):
                raise UserError(f"{key!r} is not a mask: the key is network/layer, the value a tensor of 0 and 1")
            new.setdefault(network, {})[layer] = mask.detach().float()
        if not new:
            raise UserError("the checkpoint has no masks")
        if self.of:
            for network in {**self.of, **new}:
                if network not in self.of or network not in new:
                    raise UserError(f"the checkpoint has masks of {', '.join(new)}; these are of {', '.join(self.of)}")
                self._fit("the checkpoint", network, new[network])
        self.left_out = {network: self.left_out.get(network, {}) for network in new}
        self.of = {network: {layer: new[network][layer] for layer in self.of.get(network, new[network])} for network in new}
        for (network, layer), hold in self._holds:
            hold.removed = self.of[network][layer] == 0
        return self

    def _holds_on(self, networks: Mapping[str, Modules], whose: str) -> dict[tuple[str, str], Hold]:
        """Holds, not yet hooked, by network and layer; raises UserError where names or shapes are not those of the masks."""
        holds = {}
        for name, network in networks.items():
            slots = {layer: slot for layer, slot in weights(network, frozen=True)[0].items() if layer in self.of[name]}
            self._fit(f"{whose}{name!r}", name, {layer: slot.parameter for layer, slot in slots.items()})
            for layer, slot in slots.items():
                holds[name, layer] = Hold(f"layer {layer!r} of {whose}{name!r}", self.of[name][layer], slot.parameter)
        return holds

    def _fit(self, what: str, network: str, found: Mapping[str, Tensor]) -> None:
        """Raise UserError unless `found` has the names and shapes of a network's masks."""
        for layer, mask in self.of[network].items():
            if layer not in found:
                raise UserError(f"{what} has no {layer!r}; it has: {', '.join(found) or 'none of the masked layers'}")
            if found[layer].shape != mask.shape:
                raise UserError(f"{what} has {layer!r} in the shape {tuple(found[layer].shape)}; its mask has {tuple(mask.shape)}")
        for layer in found:
            if layer not in self.of[network]:
                raise unknown(f"layer in the masks of {network!r}", layer, self.of[network])

    def _attached(self) -> list[Hold]:
        if not self._holds:
            raise UserError("these masks hold no modules: call masks.attach(modules) first")
        now = [weights(network, frozen=True)[0] for networks in (self._modules, self._targets) for network in networks.values()]
        parameters = {id(slot.parameter) for slots in now for slot in slots.values()}
        for _, hold in self._holds:
            if id(hold.parameter) not in parameters:
                raise hold.replaced()
        return [hold for _, hold in self._holds]

    def __getstate__(self) -> dict[str, Any]:
        return {"of": self.of, "left_out": self.left_out}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(state["of"])  # type: ignore[misc]
        self.left_out = state["left_out"]

    def __deepcopy__(self, memo: dict[int, Any]) -> Masks:
        """Masks that hold the copies of the modules, as where an agent is copied that has both."""
        new = memo[id(self)] = Masks({name: {layer: mask.clone() for layer, mask in layers.items()} for name, layers in self.of.items()})
        if self._modules:
            new.attach(copy.deepcopy(self._modules, memo), copy.deepcopy(self._targets, memo))
        return new


def _momenta(optimizers: tuple[torch.optim.Optimizer, ...], parameter: nn.Parameter) -> Iterator[tuple[str, Tensor]]:
    for optimizer in optimizers:
        for name in MOMENTA:
            state = optimizer.state.get(parameter, {}).get(name)
            if isinstance(state, Tensor):
                yield name, state
