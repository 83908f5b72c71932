"""K members of one algorithm: networks, targets, optimizers, draws and hyperparameters, behind the words that papers use.

agent.actor(observations)            a network, [K, B, A]
agent.critic.frozen(s, a, copy=0)    its values with no gradient to its own parameters
agent.target.critic(s, a)            a target network: never differentiated, carries the online mask
agent.hyper.alpha                    a number of the algorithm's Hyper, [K, 1]
agent.noise("target policy", B, A)   standard normals of this update, [K, B, A]; agent.uniform: numbers in (0, 1)
agent.minimize(critic=loss)          one Adam update of a network along its own loss [K]
agent.track("actor", "critic")       targets move towards their networks
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import ModuleType, SimpleNamespace
from typing import Any

import torch
from torch import Tensor

from trainables import execution as executions
from trainables import plugins
from trainables.execution import Network
from trainables.tensors import tape
from trainables.tensors.mask import Mask, to_row
from trainables.tensors.mlp import MLP
from trainables.tensors.optim import Adam, Polyak
from trainables.tensors.streams import Streams
from trainables.trial import Stack, Trial
from trainables.trial.pruner_traits import traits_of


@dataclass(frozen=True)
class Batch:
    """Transitions of one minibatch: observations, actions, next_observations [K, B, n]; rewards, terminals [K, B].

    Actions are scaled to [-1, 1]; observations are normalized where the algorithm says so. `next_actions` are the data's at
    next_observations, where the algorithm asks for them (of no meaning after a terminal)."""

    observations: Tensor
    actions: Tensor
    rewards: Tensor
    next_observations: Tensor
    terminals: Tensor
    next_actions: Tensor | None = None


class Agent:
    """The state of a stack in training. Networks are attributes by the names the algorithm gives them."""

    def __init__(
        self,
        algorithm: ModuleType,
        stack: Stack,
        observation_size: int,
        action_size: int,
        device: str = "cpu",
        recorded: bool | None = None,
    ) -> None:
        """`recorded`: whether updates are recorded and repeated (trainables/training/updates.py); by default on a GPU."""
        self.algorithm = algorithm
        self.size = len(stack)
        self.device = device
        self.updates = stack.lead.updates
        self._update = 0
        self.recorded = device != "cpu" if recorded is None else recorded
        self.clock = torch.zeros(1, dtype=torch.int64, device=device) if self.recorded else None
        self.streams = Streams([trial.seed for trial in stack.trials], device, clock=self.clock)
        self.periods: set[int] = set()
        self.builds = 0
        self.hyper = hyper_of(stack, device)
        self.sizes = observation_size, action_size
        self.specs = specs_of(algorithm, stack.lead, *self.sizes, self.hyper)
        self.networks: dict[str, Network] = {}
        self.target = SimpleNamespace()
        self.optimizers: dict[str, Adam] = {}
        self.trackers: dict[str, Polyak] = {}
        self.ones = torch.ones(self.size, device=device)
        self.execution = "dense"
        self.build("dense", {name: self.initial(name) for name in self.specs}, None)
        self.attributes = frozenset(vars(self)) | {"attributes"}  # anything more was put there by the algorithm

    def __getattr__(self, name: str) -> Network:
        try:
            return self.__dict__["networks"][name]
        except KeyError:
            raise AttributeError(f"the agent has no network {name!r}; there are: {', '.join(self.__dict__.get('specs', ()))}") from None

    def initial(self, name: str, purpose: str = "init") -> Tensor:
        """Canonical rows [K, D] of torch's default initialization, from each member's own stream `purpose`."""
        spec = self.specs[name]
        bound = torch.empty(1, spec.row, device=self.device)
        spec.initial_bound(bound)
        return (2 * Streams(self.streams.seeds, self.device).uniform(f"{purpose}/{name}", spec.row) - 1) * bound

    def build(self, execution: str, rows: Mapping[str, Tensor], masks: Mapping[str, Mask] | None) -> None:
        """Make networks, targets and fresh optimizers from canonical rows [K, D] and masks (none: dense)."""
        for name, spec in self.specs.items():
            row = to_row(spec, masks[name]) if masks is not None else torch.ones_like(rows[name])
            self.networks[name] = executions.build(execution, spec, rows[name], row)
            rate = getattr(self.hyper, self.algorithm.LEARNING_RATES[name])
            self.optimizers[name] = Adam(self.networks[name].parameters, rate, self.recorded)
            if name in self.algorithm.TARGETS:
                target = executions.build(execution, spec, rows[name], row)
                setattr(self.target, name, target)
                self.trackers[name] = Polyak(target.parameters, self.networks[name].parameters, self.hyper.tau)
        self.builds += 1
        # `dense+sparse` where `auto` chose differently for different networks.
        self.execution = "+".join(sorted({type(network).__module__.rsplit(".", 1)[-1] for network in self.networks.values()}))

    def noise(self, purpose: str, *shape: int) -> Tensor:
        """Standard normals [K, *shape] of this update."""
        return self.streams.normal(purpose, *shape)

    def uniform(self, purpose: str, *shape: int) -> Tensor:
        """Uniform numbers in (0, 1), [K, *shape], of this update."""
        return self.streams.uniform(purpose, *shape)

    @property
    def update(self) -> int:
        """The update (from 0) whose draws are made; an algorithm that asks for it is not repeated from a tape."""
        tape.freeze("agent.update")
        return self._update

    def at(self, update: int) -> None:
        """Set the update (from 0) whose draws are made next."""
        self._update = update
        self.streams.at(update)
        if self.clock is not None:
            self.clock.fill_(update)

    def every(self, updates: int) -> bool:
        """Whether this is one of every `updates` updates (the last of each group, as in TD3)."""
        self.periods.add(updates)
        return (self._update + 1) % updates == 0

    def pattern(self) -> tuple[bool, ...]:
        """What `every` will answer in this update, for each number it was asked so far: what tells one update from another."""
        return tuple((self._update + 1) % updates == 0 for updates in sorted(self.periods))

    def cosine(self) -> Tensor:
        """Factor of a cosine schedule from 1 at the first update to 0 after the last."""
        if self.clock is not None:
            return 0.5 * (1 + torch.cos(math.pi * self.clock.double() / self.updates))
        return tape.fresh(lambda: torch.tensor(0.5 * (1 + math.cos(math.pi * self._update / self.updates)), dtype=torch.float64))

    def minimize(self, factor: float | Tensor = 1.0, **losses: Tensor) -> None:
        """One Adam update of each named network along its loss [K]; `factor` scales the learning rate.

        Members share no parameter, so the gradient of the sum over K gives each member its own. All gradients are taken before
        the first update; networks with one loss in common are differentiated in one pass."""
        found: dict[str, Sequence[Tensor]] = {}
        for loss in {id(loss): loss for loss in losses.values()}.values():
            names = [name for name in losses if losses[name] is loss]
            leaves = [leaf for name in names for leaf in self.networks[name].leaves]
            parts = iter(gradients(loss, leaves, self.ones))
            found |= {name: [next(parts) for _ in self.networks[name].leaves] for name in names}
        for name, gradient in found.items():
            self.optimizers[name].minimize(self.networks[name].collect(gradient), factor)

    def track(self, *names: str) -> None:
        """Polyak averaging of the named targets with the algorithm's tau."""
        for name in names:
            self.trackers[name].update()

    def rows(self) -> dict[str, Tensor]:
        """All tensors that define the state, each [K, D] in canonical rows, whatever the execution."""
        found: dict[str, Tensor] = {}
        for name, network in self.networks.items():
            found[f"online/{name}"] = network.unpack(network.parameters)
            found[f"adam.first/{name}"] = network.unpack(self.optimizers[name].first)
            found[f"adam.second/{name}"] = network.unpack(self.optimizers[name].second)
            if name in self.algorithm.TARGETS:
                found[f"target/{name}"] = network.unpack(getattr(self.target, name).parameters)
        return found

    def tensors(self) -> list[Tensor]:
        """The same state as it lies in memory, as the execution stores it."""
        found = [getattr(self.target, name).parameters for name in self.trackers]
        for name, network in self.networks.items():
            found += network.parameters, self.optimizers[name].first, self.optimizers[name].second
        return found

    def counts(self) -> dict[str, int]:
        """The optimizers' update counts."""
        return {name: optimizer.count for name, optimizer in self.optimizers.items()}

    def load_rows(self, rows: Mapping[str, Tensor], counts: Mapping[str, int]) -> None:
        """Put back what `rows` gave; `counts` are the optimizers' update counts."""
        with torch.no_grad():
            for name, network in self.networks.items():
                optimizer = self.optimizers[name]
                network.parameters.copy_(network.pack(rows[f"online/{name}"]))
                optimizer.first.copy_(network.pack(rows[f"adam.first/{name}"]))
                optimizer.second.copy_(network.pack(rows[f"adam.second/{name}"]))
                optimizer.count = counts[name]
                if name in self.algorithm.TARGETS:
                    getattr(self.target, name).parameters.copy_(network.pack(rows[f"target/{name}"]))

    def finite(self) -> list[bool]:
        """Per member, whether all parameters are finite numbers."""
        ok = torch.ones(self.size, dtype=torch.bool, device=self.device)
        for network in self.networks.values():
            ok &= torch.isfinite(network.parameters).all(dim=1)
        return ok.tolist()


def gradients(loss: Tensor, leaves: Sequence[Tensor], ones: Tensor) -> Sequence[Tensor]:
    """torch.autograd.grad(loss.sum(), leaves, materialize_grads=True) for a loss [K], with `ones` [K].

    Calls autograd's engine itself: the checks of torch.autograd.grad take 10 % of the update of a 99 % pruned network."""
    engine = torch.autograd.Variable._execution_engine
    found = engine.run_backward((loss,), (ones,), False, False, tuple(leaves), allow_unreachable=True, accumulate_grad=False)
    return [torch.zeros_like(leaf) if gradient is None else gradient for leaf, gradient in zip(leaves, found, strict=True)]


def specs_of(algorithm: ModuleType, trial: Trial, observation_size: int, action_size: int, hyper: SimpleNamespace) -> dict[str, MLP]:
    """The algorithm's networks, made smaller where the trial's pruner does that in place of a mask."""
    specs: dict[str, MLP] = algorithm.networks(observation_size, action_size, hyper)
    if traits_of(trial.pruner).shrinks:
        shrink = plugins.load("pruners", trial.pruner).shrink
        specs = {name: shrink(spec, 1 - trial.sparsity_in(name)) for name, spec in specs.items()}
    return specs


def hyper_of(stack: Stack, device: str) -> SimpleNamespace:
    """The algorithm's hyperparameters: floats as [K, 1] tensors (members may differ), anything else as it is."""
    values: Sequence[dict[str, Any]] = [trial.hyper_values() for trial in stack.trials]
    hyper = SimpleNamespace()
    for name, value in values[0].items():
        if isinstance(value, float):
            value = torch.tensor([[float(v[name])] for v in values], device=device)
        setattr(hyper, name, value)
    return hyper
