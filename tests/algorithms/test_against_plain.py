"""Five updates of each algorithm against a plain implementation: torch.nn.Linear, mse_loss, torch.optim.Adam, one trial, no stack.

Same initial weights, data, noise and masks. The plain code follows the papers' reference code: sfujim/TD3_BC and
ikostrikov/implicit_q_learning.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.distributions import Normal
from torch.nn import functional

from tests.stacks import World, small_trial
from trainables.streams import Streams

UPDATES, BATCH, SEED = 5, 32, 3
Batch = tuple[Tensor, Tensor, Tensor, Tensor, Tensor]
Losses = list[dict[str, float]]  # of each update


class Net(nn.Module):
    """A ReLU network with masked weights, made from a member's canonical row."""

    def __init__(self, world: World, name: str, head: int = 0) -> None:
        super().__init__()
        spec = world.agent.specs[name]
        views = spec.views(world.agent.initial(name))
        self.tanh = spec.output == "tanh"
        self.layers = nn.ModuleList()
        self.masks = [layer[0, head] for layer in world.masks[name]]
        for index, mask in enumerate(self.masks):
            layer = nn.Linear(mask.shape[1], mask.shape[0])
            with torch.no_grad():
                layer.weight.copy_(views[f"weight.{index}"][0, head] * mask)
                layer.bias.copy_(views[f"bias.{index}"][0, head])
            self.layers.append(layer)
        self.log_std = nn.Parameter(torch.zeros(mask.shape[0])) if spec.extra else None

    def forward(self, *inputs: Tensor) -> Tensor:
        x = torch.cat(inputs, 1)
        for layer in self.layers[:-1]:
            x = functional.relu(layer(x))
        x = self.layers[-1](x)
        return torch.tanh(x) if self.tanh else x


Trained = tuple[dict[str, Net], Losses]


def learn(optimizer: torch.optim.Adam, loss: Tensor, *nets: Net) -> float:
    """One update; returns the loss before it."""
    optimizer.zero_grad()
    loss.backward()
    for net in nets:
        for layer, mask in zip(net.layers, net.masks, strict=True):
            layer.weight.grad *= mask
    optimizer.step()
    return loss.item()


def follow(target: Net, online: Net, tau: float) -> None:
    with torch.no_grad():
        for t, o in zip(target.parameters(), online.parameters(), strict=True):
            t.copy_(tau * o + (1 - tau) * t)


def plain_bc(world: World, data: list[Batch], hyper: dict[str, float], updates: int) -> Trained:
    actor = Net(world, "actor")
    optimizer = torch.optim.Adam(actor.parameters(), lr=hyper["learning_rate"])
    losses: Losses = []
    for s, a, *_ in data:
        losses.append({"actor_loss": learn(optimizer, functional.mse_loss(actor(s), a), actor)})
    return {"online/actor/0": actor}, losses


def plain_td3_bc(world: World, data: list[Batch], hyper: dict[str, float], updates: int) -> Trained:
    actor, q1, q2 = Net(world, "actor"), Net(world, "critic", 0), Net(world, "critic", 1)
    actor_target, q1_target, q2_target = (copy.deepcopy(net) for net in (actor, q1, q2))
    actor_optimizer = torch.optim.Adam(actor.parameters(), lr=hyper["learning_rate"])
    critic_optimizer = torch.optim.Adam([*q1.parameters(), *q2.parameters()], lr=hyper["learning_rate"])
    losses: Losses = []
    for update, (s, a, r, s2, done) in enumerate(data):
        streams = Streams([SEED])
        streams.update = update
        with torch.no_grad():
            noise = (streams.normal("target policy", *a.shape)[0] * hyper["policy_noise"]).clamp(-hyper["noise_clip"], hyper["noise_clip"])
            a2 = (actor_target(s2) + noise).clamp(-1, 1)
            target = r + (1 - done) * hyper["discount"] * torch.min(q1_target(s2, a2), q2_target(s2, a2))
        critic_loss = functional.mse_loss(q1(s, a), target) + functional.mse_loss(q2(s, a), target)
        losses.append({"critic_loss": learn(critic_optimizer, critic_loss, q1, q2)})
        if (update + 1) % 2 == 0:
            pi = actor(s)
            q = q1(s, pi)
            actor_loss = -hyper["alpha"] / q.abs().mean().detach() * q.mean() + functional.mse_loss(pi, a)
            losses[-1]["actor_loss"] = learn(actor_optimizer, actor_loss, actor)
            for t, o in ((actor_target, actor), (q1_target, q1), (q2_target, q2)):
                follow(t, o, hyper["tau"])
    return {
        "online/actor/0": actor, "online/critic/0": q1, "online/critic/1": q2,
        "target/actor/0": actor_target, "target/critic/0": q1_target, "target/critic/1": q2_target,
    }, losses  # fmt: skip


def plain_iql(world: World, data: list[Batch], hyper: dict[str, float], updates: int) -> Trained:
    actor, q1, q2, value = Net(world, "actor"), Net(world, "critic", 0), Net(world, "critic", 1), Net(world, "value")
    q1_target, q2_target = copy.deepcopy(q1), copy.deepcopy(q2)
    actor_optimizer = torch.optim.Adam(actor.parameters(), lr=hyper["actor_learning_rate"])
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(actor_optimizer, updates)
    critic_optimizer = torch.optim.Adam([*q1.parameters(), *q2.parameters()], lr=hyper["critic_learning_rate"])
    value_optimizer = torch.optim.Adam(value.parameters(), lr=hyper["critic_learning_rate"])
    losses: Losses = []
    for s, a, r, s2, done in data:
        with torch.no_grad():
            next_v = value(s2)
            q = torch.min(q1_target(s, a), q2_target(s, a))
        advantage = q - value(s)
        weight = torch.where(advantage > 0, hyper["expectile"], 1 - hyper["expectile"])
        value_loss = learn(value_optimizer, (weight * advantage**2).mean(), value)
        target = r + (1 - done) * hyper["discount"] * next_v
        error = (functional.mse_loss(q1(s, a), target) + functional.mse_loss(q2(s, a), target)) / 2
        critic_loss = learn(critic_optimizer, error, q1, q2)
        policy = Normal(actor(s), actor.log_std.clamp(-20, 2).exp())
        cap = (hyper["beta"] * advantage.detach()).exp().clamp(max=hyper["weight_cap"])
        actor_loss = learn(actor_optimizer, -(cap.squeeze(1) * policy.log_prob(a).sum(1)).mean(), actor)
        losses.append({"value_loss": value_loss, "critic_loss": critic_loss, "actor_loss": actor_loss})
        schedule.step()
        follow(q1_target, q1, hyper["tau"])
        follow(q2_target, q2, hyper["tau"])
    return {
        "online/actor/0": actor, "online/critic/0": q1, "online/critic/1": q2, "online/value/0": value,
        "target/critic/0": q1_target, "target/critic/1": q2_target,
    }, losses  # fmt: skip


Plain = Callable[[World, list[Batch], dict[str, float], int], Trained]
PLAIN: dict[str, Plain] = {"bc": plain_bc, "td3_bc": plain_td3_bc, "iql": plain_iql}
# A large learning rate and an uncommon value for everything else, so that a wrong or unused number shows.
HYPER = {
    "bc": {"learning_rate": 1e-3},
    "td3_bc": {"learning_rate": 1e-3, "discount": 0.9, "tau": 0.1, "alpha": 1.3, "policy_noise": 0.5, "noise_clip": 0.3},
    "iql": {
        "actor_learning_rate": 2e-3, "critic_learning_rate": 1e-3, "discount": 0.9, "tau": 0.1,
        "expectile": 0.8, "beta": 5.0, "weight_cap": 2.0,
    },
}  # fmt: skip


@pytest.mark.parametrize("pruner", ["dense", "snip"])
@pytest.mark.parametrize("algorithm", PLAIN)
def test_five_updates_equal_a_plain_implementation(algorithm: str, pruner: str) -> None:
    trial = small_trial(algorithm, pruner, 0.0 if pruner == "dense" else 0.5, SEED, hyper=HYPER[algorithm], updates=8)
    world = World([trial, small_trial(algorithm, seed=SEED + 1, updates=8)]).start()  # in a stack
    logged = world.train(0, UPDATES)
    rows = world.rows()

    alone = World([trial]).start()
    data = []
    for update in range(UPDATES):
        alone.agent.at(update)
        b = alone.data.draw(alone.agent.streams, BATCH)
        data.append((b.observations[0], b.actions[0], b.rewards[0].unsqueeze(1), b.next_observations[0], b.terminals[0].unsqueeze(1)))
    assert any(float(batch[4].sum()) > 0 for batch in data)
    nets, losses = PLAIN[algorithm](alone, data, trial.hyper_values(), trial.updates)

    for found, wanted in zip(logged, losses, strict=True):
        assert {name: float(loss[0]) for name, loss in found.items()} == pytest.approx(wanted, rel=1e-5)

    assert {name.rsplit("/", 1)[0] for name in nets} == {name for name in rows if not name.startswith("adam")}
    for name, net in nets.items():
        place, network, head = name.split("/")
        views = world.agent.specs[network].views(rows[f"{place}/{network}"])
        start = Net(alone, network, int(head))
        for index, (layer, before) in enumerate(zip(net.layers, start.layers, strict=True)):
            for kind in ("weight", "bias"):
                found, wanted, began = views[f"{kind}.{index}"][0, int(head)], getattr(layer, kind).detach(), getattr(before, kind).detach()
                moved = (wanted - began).abs().max()
                assert moved > 1e-5
                assert (found - wanted).abs().max() < 5e-3 * moved, f"{name} {kind}.{index} moved by {float(moved):.1e}"
                assert (found - wanted).abs().max() < 1e-5
        if net.log_std is not None and place == "online":
            assert (views["log_std"][0] - net.log_std.detach()).abs().max() < 1e-6
            assert net.log_std.detach().abs().min() > 1e-4


def test_terminal_transitions_are_not_bootstrapped_and_others_are() -> None:
    """With a terminal everywhere, the critic's loss does not depend on the next observation."""
    for algorithm in ("td3_bc", "iql"):
        world = World([small_trial(algorithm)]).start()
        batch = world.data.draw(world.agent.streams, 16)
        loss = world.algorithm.LOSSES["critic"]
        for terminal, same in ((1.0, True), (0.0, False)):
            batch.terminals.fill_(terminal)
            first = loss(world.agent, batch)
            batch.next_observations.add_(1.0)
            assert torch.equal(first, loss(world.agent, batch)) == same


def test_iqls_schedule_ends_at_zero() -> None:
    world = World([small_trial("iql", updates=10)])
    world.agent.at(0)
    assert world.agent.cosine() == 1.0
    world.agent.at(9)
    assert world.agent.cosine() == pytest.approx(0.5 * (1 + math.cos(0.9 * math.pi)))
