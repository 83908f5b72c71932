"""K members of one algorithm: networks, targets, optimizers, draws and hyperparameters, behind the words that papers use.

agent.actor(observations)            a network, [K, B, A]
agent.critic.frozen(s, a, head=0)    its values with no gradient to its own parameters
agent.target.critic(s, a)            a target network: never differentiated, carries the online mask
agent.hyper.alpha                    a number of the algorithm's Hyper, [K, 1]
agent.noise("target policy", B, A)   standard normals of this update, [K, B, A]
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
from trainables import registry
from trainables.execution import Network
from trainables.masks import Mask, to_row
from trainables.nn import MLP
from trainables.optim import Adam, track
from trainables.streams import Streams
from trainables.trial import Stack, Trial


@dataclass(frozen=True)
class Batch:
    """Transitions of one minibatch: observations, actions, next_observations [K, B, n]; rewards, terminals [K, B].

    Actions are scaled to [-1, 1]; observations are normalized where the algorithm says so."""

    observations: Tensor
    actions: Tensor
    rewards: Tensor
    next_observations: Tensor
    terminals: Tensor


class Agent:
    """The state of a stack in training. Networks are attributes by the names the algorithm gives them."""

    def __init__(self, algorithm: ModuleType, stack: Stack, observation_size: int, action_size: int, device: str = "cpu") -> None:
        self.algorithm = algorithm
        self.size = len(stack)
        self.device = device
        self.updates = stack.lead.updates
        self.update = 0
        self.streams = Streams([trial.seed for trial in stack.trials], device)
        self.hyper = hyper_of(stack, device)
        self.sizes = observation_size, action_size
        self.specs = specs_of(algorithm, stack.lead, *self.sizes, self.hyper)
        self.networks: dict[str, Network] = {}
        self.target = SimpleNamespace()
        self.optimizers: dict[str, Adam] = {}
        self.execution = "dense"
        self.build("dense", {name: self.initial(name) for name in self.specs}, None)

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
            self.optimizers[name] = Adam(self.networks[name].parameters, rate)
            if name in self.algorithm.TARGETS:
                setattr(self.target, name, executions.build(execution, spec, rows[name], row))
        self.execution = type(self.networks[next(iter(self.specs))]).__module__.rsplit(".", 1)[-1]

    def noise(self, purpose: str, *shape: int) -> Tensor:
        """Standard normals [K, *shape] of this update."""
        return self.streams.normal(purpose, *shape)

    def at(self, update: int) -> None:
        """Set the update (from 0) whose draws are made next."""
        self.update = self.streams.update = update

    def every(self, updates: int) -> bool:
        """Whether this is one of every `updates` updates (the last of each group, as in TD3)."""
        return (self.update + 1) % updates == 0

    def cosine(self) -> float:
        """Factor of a cosine schedule from 1 at the first update to 0 after the last."""
        return 0.5 * (1 + math.cos(math.pi * self.update / self.updates))

    def minimize(self, factor: float = 1.0, **losses: Tensor) -> None:
        """One Adam update of each named network along its loss [K]; `factor` scales the learning rate.

        Members share no parameter, so the gradient of the sum over K gives each member its own."""
        for name, loss in losses.items():
            network = self.networks[name]
            gradients = torch.autograd.grad(loss.sum(), network.leaves, materialize_grads=True)
            self.optimizers[name].minimize(network.collect(gradients), factor)

    def track(self, *names: str) -> None:
        """Polyak averaging of the named targets with the algorithm's tau."""
        for name in names:
            track(getattr(self.target, name).parameters, self.networks[name].parameters, self.hyper.tau)

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


def specs_of(algorithm: ModuleType, trial: Trial, observation_size: int, action_size: int, hyper: SimpleNamespace) -> dict[str, MLP]:
    """The algorithm's networks, made smaller where the trial's pruner does that in place of a mask."""
    specs: dict[str, MLP] = algorithm.networks(observation_size, action_size, hyper)
    if "shrink" in registry.defines("pruners", trial.pruner):
        shrink = registry.load("pruners", trial.pruner).shrink
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
