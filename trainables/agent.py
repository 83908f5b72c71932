"""K members of one algorithm: networks, targets, optimizers, draws and hyperparameters, behind the words that papers use.

agent.actor(observations)            a network, [K, B, A]
agent.critic.frozen(s, a, copy=0)    its values with no gradient to its own parameters
agent.target.critic(s, a)            a target network: never differentiated, carries the online mask
agent.hyper.alpha                    a number of the algorithm's Hyper, [K, 1]
agent.noise("target policy", B, A)   standard normals of this update, [K, B, A]; agent.uniform: numbers in (0, 1)
agent.minimize(critic=loss)          one Adam update of a network along its own loss [K]
agent.track("actor", "critic")       targets move towards their networks
agent.td_target(batch, next_q)       rewards + discount x next_q, over as many steps as the minibatch looks ahead, [K, B]
"""

from __future__ import annotations

import bisect
import itertools
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import ModuleType, SimpleNamespace
from typing import Any

import torch
from torch import Tensor

from trainables import execution as executions
from trainables import plugins
from trainables.errors import CannotComputeError, UserError
from trainables.execution import Network
from trainables.plugins import contract
from trainables.tensors import tape
from trainables.tensors.mask import Mask, to_row
from trainables.tensors.mlp import MLP
from trainables.tensors.optim import Adam, Polyak, Schedule
from trainables.tensors.streams import Streams
from trainables.trial import Stack, Trial
from trainables.trial.pruner_traits import traits_of


@dataclass(frozen=True)
class Batch:
    """Transitions of one minibatch: observations, actions, next_observations [K, B, n]; rewards, terminals [K, B].

    Actions are scaled to [-1, 1]; observations are normalized if the algorithm's NORMALIZE says so. `next_actions` are the dataset's at
    next_observations, if the algorithm's NEXT_ACTIONS asks for them; they mean nothing after a terminal. `returns(discount)`
    [K, B] are the discounted sums of rewards from each transition to its episode's end, for discounts [K, 1], if RETURNS asks for them.

    With n-step targets, next_observations, terminals and next_actions are those `steps` steps on (1 to n), and `rewards_ahead` holds the
    rewards on the way, 0 beyond them. Both are None for one step. `Agent.td_target` is what makes use of them."""

    observations: Tensor
    actions: Tensor
    rewards: Tensor
    next_observations: Tensor
    terminals: Tensor
    next_actions: Tensor | None = None
    returns: Callable[[Tensor], Tensor] | None = None
    rewards_ahead: Tensor | None = None  # [K, B, n]
    steps: Tensor | None = None  # [K, B]


class Agent:
    """The state of a stack in training. Networks are attributes by the names the algorithm gives them, once `build` has made them."""

    def __init__(
        self,
        algorithm: ModuleType,
        stack: Stack,
        observation_size: int,
        action_size: int,
        device: str = "cpu",
        recorded: bool | None = None,
    ) -> None:
        """`recorded`: whether updates are recorded and repeated (trainables/training/updates.py); by default on a GPU.

        Specs, draws and initial weights are there at once; there are no networks before `build`."""
        self.algorithm, self.stack = algorithm, stack
        self.size = len(stack)
        self.device = device
        self.updates = stack.lead.updates
        self.trainings = trainings_of(stack.lead)
        self.initialization = stack.lead.initialization
        self._begins = torch.tensor(self.trainings, device=device)
        self._lengths = torch.tensor([end - first for first, end in itertools.pairwise([*self.trainings, self.updates])], device=device)
        self._update = 0
        self.recorded = device != "cpu" if recorded is None else recorded
        self.clock = torch.zeros(1, dtype=torch.int64, device=device) if self.recorded else None
        self.streams = Streams([trial.seed for trial in stack.trials], device, clock=self.clock)
        self._cosine = Schedule(self.streams.number, self._cosine_at)
        self._phases: dict[str, Streams] = {}
        self.periods: set[int] = set()
        self.builds = 0  # recordings are of the networks of one build
        self.hyper = hyper_of(stack, device)
        self.sizes = observation_size, action_size
        self.specs = specs_of(algorithm, stack.lead, *self.sizes, self.hyper)
        contract.algorithm(algorithm, self.specs, vars(self.hyper), plugins.normalizes(stack.lead.algorithm))
        self.networks: dict[str, Network] = {}
        self.target = SimpleNamespace()
        self.optimizers: dict[str, Adam] = {}
        self.trackers: dict[str, Polyak] = {}
        self.latent: dict[str, Tensor] = {}  # the weights that a pruner may bring back, at the values they were masked with
        self.ones = torch.ones(self.size, device=device)
        self.execution = ""
        self.instead = ""  # why it is not the execution that was asked for
        self.attributes = frozenset(vars(self)) | {"attributes"}  # any other was set by the algorithm

    def __getattr__(self, name: str) -> Network:
        try:
            return self.__dict__["networks"][name]
        except KeyError:
            specs = self.__dict__.get("specs", ())
            missing = f"no network {name!r} before build()" if name in specs else f"no network {name!r}; there are: {', '.join(specs)}"
            raise AttributeError(f"the agent has {missing}") from None

    def initial(self, name: str, purpose: str = "init") -> Tensor:
        """Canonical rows [K, D] of initial weights and biases, drawn from each member's own stream `purpose`."""
        spec = self.specs[name]
        bound = torch.empty(1, spec.row, device=self.device)
        spec.initial_bound(bound)
        rows = (2 * Streams(self.streams.seeds, self.device).uniform(f"{purpose}/{name}", spec.row) - 1) * bound
        if self.initialization == "xavier":
            views = spec.views(rows)
            for index, (n_in, n_out) in enumerate(spec.layers):
                weight = views[f"weight.{index}"]
                drawn = Streams(self.streams.seeds, self.device).normal(f"{purpose}/{name}.{index}", 2 * math.ceil(weight[0].numel() / 2))
                weight.copy_(drawn[:, : weight[0].numel()].reshape(weight.shape) * math.sqrt(2 / (n_in + n_out)))
        return rows

    def build(self, execution: str = "dense", rows: Mapping[str, Tensor] | None = None, masks: Mapping[str, Mask] | None = None) -> None:
        """Make networks, targets and fresh optimizers, in place of any there were, from canonical rows [K, D] (by default the initial
        weights) and masks (by default nothing is masked). Where the execution cannot compute a network after all, another computes them
        all, and `instead` says why."""
        try:
            self._build(execution, rows, masks)
            self.instead = ""
        except CannotComputeError as error:
            self._build(executions.otherwise(execution), rows, masks)
            self.instead = str(error)
        self.builds += 1

    def _build(self, execution: str, rows: Mapping[str, Tensor] | None, masks: Mapping[str, Mask] | None) -> None:
        for name, spec in self.specs.items():
            weights = self.initial(name) if rows is None else rows[name]
            mask = torch.ones_like(weights) if masks is None else to_row(spec, masks[name])
            self.networks[name] = executions.build(execution, spec, weights, mask)
            rate = getattr(self.hyper, self.algorithm.LEARNING_RATES[name])
            self.optimizers[name] = Adam(self.networks[name].parameters, rate, self.recorded)
            if name in self.algorithm.TARGETS:
                target = executions.build(execution, spec, weights, mask)
                setattr(self.target, name, target)
                self.trackers[name] = Polyak(target.parameters, self.networks[name].parameters, self.hyper.tau)
        executions.together([*self.networks.values(), *(getattr(self.target, name) for name in self.trackers)])
        # `dense+sparse` if `auto` chose differently for different networks.
        self.execution = "+".join(sorted({type(network).__module__.rsplit(".", 1)[-1] for network in self.networks.values()}))

    def draws_of(self, phase: str) -> Streams:
        """The members' draws in another phase than training, the same object whenever it is asked for."""
        if phase not in self._phases:
            self._phases[phase] = Streams(self.streams.seeds, self.device, phase=phase)
        return self._phases[phase]

    def noise(self, purpose: str, *shape: int) -> Tensor:
        """Standard normals [K, *shape] of this update."""
        return self.streams.normal(purpose, *shape)

    def uniform(self, purpose: str, *shape: int) -> Tensor:
        """Uniform numbers in (0, 1), [K, *shape], of this update."""
        return self.streams.uniform(purpose, *shape)

    @property
    def update(self) -> int:
        """The number of this update, from 0; an algorithm that asks for it is not repeated from a tape."""
        tape.freeze("agent.update")
        return self._update

    def at(self, update: int) -> None:
        """Make this update (from 0) the one whose random numbers are drawn next."""
        self._update = update
        self.streams.at(update)
        if self.clock is not None:
            self.clock.fill_(update)

    def every(self, updates: int) -> bool:
        """Whether this is one of every `updates` updates (the last of each group, as in TD3)."""
        self.periods.add(updates)
        return (self._update + 1) % updates == 0

    def pattern(self) -> tuple[bool, ...]:
        """What `every` answers in this update for each number it has been asked: updates of one pattern do the same."""
        return tuple((self._update + 1) % updates == 0 for updates in sorted(self.periods))

    def patterns(self) -> list[tuple[bool, ...]]:
        """The patterns of the updates 0, 1, ... until they come again."""
        numbers = sorted(self.periods)
        return [tuple((update + 1) % number == 0 for number in numbers) for update in range(math.lcm(*numbers))]

    def cosine(self) -> Tensor:
        """Factor of a cosine schedule from 1 at the first update of a training to 0 after its last. A trial is one training, unless its
        pruner begins again."""
        if self.clock is None:
            return tape.row(self._cosine)
        if len(self.trainings) == 1:
            return 0.5 * (1 + torch.cos(math.pi * self.clock.double() / self.updates))
        begun = torch.searchsorted(self._begins, self.clock, right=True) - 1
        made, whole = self.clock - self._begins.index_select(0, begun), self._lengths.index_select(0, begun)
        return 0.5 * (1 + torch.cos(math.pi * made.double() / whole))

    def _cosine_at(self, update: int) -> float:
        update = min(update, self.updates - 1)  # it is asked for ahead
        begun = bisect.bisect_right(self.trainings, update) - 1
        first, end = (*self.trainings, self.updates)[begun : begun + 2]
        return 0.5 * (1 + math.cos(math.pi * (update - first) / (end - first)))

    def td_target(self, batch: Batch, value: Tensor) -> Tensor:
        """What Q should be where the next observation is worth `value`, which counts nothing after a terminal, [K, B].

        With n-step targets: the discounted rewards of all m steps to that observation, and discount^m x its value."""
        discount = self.hyper.discount
        if batch.rewards_ahead is None or batch.steps is None:
            return batch.rewards + (1 - batch.terminals) * discount * value
        # Discount^1, ..., discount^n by products alone, which round alike in any stack.
        powers = discount.expand(-1, batch.rewards_ahead.shape[-1]).cumprod(1)
        before = torch.cat([torch.ones_like(discount), powers[:, :-1]], dim=1).unsqueeze(1)
        return (batch.rewards_ahead * before).sum(-1) + (1 - batch.terminals) * powers.gather(1, batch.steps - 1) * value

    def minimize(self, factor: float | Tensor = 1.0, **losses: Tensor) -> None:
        """One Adam update of each named network along its loss [K]; `factor` scales the learning rate.

        Members share no parameters, so the gradient of the sum over K gives each member its own. All gradients are computed before
        the first update; networks that share one loss are differentiated in one pass."""
        if unknown := losses.keys() - self.networks.keys():
            raise UserError(f"agent.minimize got a loss for {min(unknown)!r}; there are networks: {', '.join(self.networks)}")
        contract.losses(self.algorithm, losses, self.size, "agent.minimize got")
        computed: dict[str, Sequence[Tensor]] = {}
        for loss in {id(loss): loss for loss in losses.values()}.values():
            names = [name for name in losses if losses[name] is loss]
            leaves = [leaf for name in names for leaf in self.networks[name].leaves]
            parts = iter(gradients(loss, leaves, self.ones))
            computed |= {name: [next(parts) for _ in self.networks[name].leaves] for name in names}
        for name, gradient in computed.items():
            self.optimizers[name].minimize(self.networks[name].collect(gradient), factor)

    def track(self, *names: str) -> None:
        """Polyak averaging of the named targets with the algorithm's tau."""
        for name in names:
            self.trackers[name].update()

    def rows(self) -> dict[str, Tensor]:
        """All tensors that define the state, each as canonical rows [K, D], whatever the execution."""
        rows: dict[str, Tensor] = {f"latent/{name}": row for name, row in self.latent.items()}
        for name, network in self.networks.items():
            rows[f"online/{name}"] = network.unpack(network.parameters)
            rows[f"adam.first/{name}"] = network.unpack(self.optimizers[name].first)
            rows[f"adam.second/{name}"] = network.unpack(self.optimizers[name].second)
            if name in self.algorithm.TARGETS:
                rows[f"target/{name}"] = network.unpack(getattr(self.target, name).parameters)
        return rows

    def tensors(self) -> list[Tensor]:
        """The same state as the execution stores it in memory."""
        tensors = [getattr(self.target, name).parameters for name in self.trackers]
        for name, network in self.networks.items():
            tensors += network.parameters, self.optimizers[name].first, self.optimizers[name].second
        return tensors

    def counts(self) -> dict[str, int]:
        """The optimizers' update counts."""
        return {name: optimizer.count for name, optimizer in self.optimizers.items()}

    def load_rows(self, rows: Mapping[str, Tensor], counts: Mapping[str, int]) -> None:
        """Restore the state that `rows` and `counts` returned."""
        self.latent = {name: rows[f"latent/{name}"] for name in self.specs if f"latent/{name}" in rows}
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
        """Whether all parameters are finite numbers, per member."""
        ok = torch.ones(self.size, dtype=torch.bool, device=self.device)
        for network in self.networks.values():
            ok &= torch.isfinite(network.parameters).all(dim=1)
        return ok.tolist()


def gradients(loss: Tensor, leaves: Sequence[Tensor], ones: Tensor) -> Sequence[Tensor]:
    """torch.autograd.grad(loss.sum(), leaves, materialize_grads=True) for a loss [K], with `ones` [K].

    Calls autograd's engine directly: the checks of torch.autograd.grad take 10 % of the update of a network pruned by 99 %."""
    engine = torch.autograd.Variable._execution_engine
    computed = engine.run_backward((loss,), (ones,), False, False, tuple(leaves), allow_unreachable=True, accumulate_grad=False)
    return [torch.zeros_like(leaf) if gradient is None else gradient for leaf, gradient in zip(leaves, computed, strict=True)]


def specs_of(algorithm: ModuleType, trial: Trial, observation_size: int, action_size: int, hyper: SimpleNamespace) -> dict[str, MLP]:
    """The algorithm's networks, built as the trial's `network` says, and made smaller if its pruner shrinks them instead of
    masking weights."""
    specs: dict[str, MLP] = algorithm.networks(observation_size, action_size, hyper)
    specs = {name: spec.built_as(trial.network) for name, spec in specs.items()}
    if traits_of(trial.pruner).shrinks:
        shrink = plugins.load("pruners", trial.pruner).shrink
        specs = {name: shrink(spec, 1 - trial.sparsity_in(name)) for name, spec in specs.items()}
    return specs


def trainings_of(trial: Trial) -> list[int]:
    """The first update of each training of a trial: a pruner that rewinds begins again with each change."""
    schedule: Iterable[int] = ()
    if traits_of(trial.pruner).rewinds:
        schedule = plugins.load("pruners", trial.pruner).mask_schedule(trial.updates, **trial.pruning_values())
    return sorted({0, *schedule})


def hyper_of(stack: Stack, device: str) -> SimpleNamespace:
    """The algorithm's hyperparameters: floats as [K, 1] tensors, because members may differ in them, everything else unchanged."""
    values: Sequence[dict[str, Any]] = [trial.hyper_values() for trial in stack.trials]
    hyper = SimpleNamespace()
    for name, value in values[0].items():
        if isinstance(value, float):
            value = torch.tensor([[float(v[name])] for v in values], device=device)
        setattr(hyper, name, value)
    return hyper
