"""Five updates of each algorithm against a plain implementation: torch.nn.Linear, mse_loss, torch.optim.Adam, one trial, no stack.

Same initial weights, data, noise and masks. The plain code follows the papers' reference code: sfujim/TD3_BC,
ikostrikov/implicit_q_learning, sfujim/BCQ, seohongpark/fql, and CORL for CQL, AWAC, ReBRAC, EDAC and SAC-N; nakamotoo/Cal-QL.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.distributions import Normal
from torch.nn import functional

from tests.stacks import World, small_trial
from trainables import plugins
from trainables.tensors.streams import Streams

UPDATES, BATCH, SEED = 5, 32, 3
Batch = tuple[Tensor, ...]  # s, a, r, s', terminal and, where the algorithm asks for them, a' or the return
Losses = list[dict[str, float]]  # of each update


class Net(nn.Module):
    """A ReLU network with masked weights, made from a member's canonical row."""

    def __init__(self, world: World, name: str, copy: int = 0) -> None:
        super().__init__()
        spec = world.agent.specs[name]
        views = spec.views(world.agent.initial(name))
        self.tanh = spec.output == "tanh"
        self.layers = nn.ModuleList()
        self.masks = [layer[0, copy] for layer in world.masks[name]]
        for index, mask in enumerate(self.masks):
            layer = nn.Linear(mask.shape[1], mask.shape[0])
            with torch.no_grad():
                layer.weight.copy_(views[f"weight.{index}"][0, copy] * mask)
                layer.bias.copy_(views[f"bias.{index}"][0, copy])
            self.layers.append(layer)
        self.norm = spec.norm
        self.norms = nn.ModuleList(nn.LayerNorm(m.shape[0], eps=1e-6) for m in self.masks[:-1] if spec.norm)
        self.extras = nn.ParameterDict({extra: torch.zeros(size) for extra, size in spec.extra.items()})

    def forward(self, *inputs: Tensor) -> Tensor:
        x = torch.cat(inputs, 1)
        for index, layer in enumerate(self.layers[:-1]):
            x = layer(x)
            if self.norm == "before":
                x = self.norms[index](x)
            x = functional.relu(x)
            if self.norm == "after":
                x = self.norms[index](x)
        x = self.layers[-1](x)
        return torch.tanh(x) if self.tanh else x


Trained = tuple[dict[str, Net], Losses]


def bounds(hyper: dict[str, Any]) -> tuple[float, float]:
    """Of the logarithm of a policy's standard deviation."""
    return hyper["log_std_min"], hyper["log_std_max"]


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


def plain_bc(world: World, data: list[Batch], hyper: dict[str, Any], updates: int) -> Trained:
    actor = Net(world, "actor")
    optimizer = torch.optim.Adam(actor.parameters(), lr=hyper["learning_rate"])
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, updates)
    losses: Losses = []
    for s, a, *_ in data:
        if hyper["gaussian"]:
            loss = -Normal(actor(s), actor.extras["log_std"].clamp(*bounds(hyper)).exp()).log_prob(a).sum(1).mean()
        else:
            loss = functional.mse_loss(actor(s), a)
        losses.append({"actor_loss": learn(optimizer, loss, actor)})
        if hyper["gaussian"]:
            schedule.step()
    return {"online/actor/0": actor}, losses


def plain_td3_bc(world: World, data: list[Batch], hyper: dict[str, Any], updates: int) -> Trained:
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
        if (update + 1) % hyper["policy_delay"] == 0:
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


def plain_iql(world: World, data: list[Batch], hyper: dict[str, Any], updates: int) -> Trained:
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
        policy = Normal(actor(s), actor.extras["log_std"].clamp(*bounds(hyper)).exp())
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


def drawn(update: int, purpose: str, *shape: int, uniform: bool = False) -> Tensor:
    """The trial's own draws of an update."""
    streams = Streams([SEED])
    streams.update = update
    return (streams.uniform if uniform else streams.normal)(purpose, *shape)[0]


def tanh_policy(net: Net, s: Tensor, noise: Tensor, low: float, high: float, offset: float = 0.0) -> tuple[Tensor, Tensor]:
    """An action and its log density [B, 1] by torch's own distributions, in float64: their log(1 - tanh^2) is less careful than ours."""
    mean, log_std = net(s).double().chunk(2, 1)
    std = (log_std + offset).clamp(low, high).exp()
    before = mean + std * noise.double()
    action = torch.tanh(before)
    density = Normal(mean, std).log_prob(before) - torch.log(1 - action.square())
    return action.float(), density.sum(1, keepdim=True).float()


def plain_cql(world: World, data: list[Batch], hyper: dict[str, Any], updates: int) -> Trained:
    """Cal-QL where there are returns."""
    actor, q1, q2 = Net(world, "actor"), Net(world, "critic", 0), Net(world, "critic", 1)
    q1_target, q2_target = copy.deepcopy(q1), copy.deepcopy(q2)
    policy_parameters = [p for layer in actor.layers for p in layer.parameters()]
    policy_optimizer = torch.optim.Adam(policy_parameters, lr=hyper["actor_learning_rate"])
    log_alpha = actor.extras["log_entropy_weight"]
    alpha_optimizer = torch.optim.Adam([log_alpha], lr=hyper["actor_learning_rate"])
    critic_optimizer = torch.optim.Adam([*q1.parameters(), *q2.parameters()], lr=hyper["critic_learning_rate"])
    n, t, (b, a_dim) = hyper["samples"], hyper["temperature"], data[0][1].shape

    def policy(s: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
        return tanh_policy(actor, s, noise, *bounds(hyper), hyper["log_std_offset"])

    losses: Losses = []
    for update, (s, a, r, s2, done, *returns) in enumerate(data):
        own, log_pi = policy(s, drawn(update, "policy", b, a_dim))
        alpha_loss = -(log_alpha * (log_pi - a_dim).detach()).mean()
        policy_loss = (log_alpha.exp().detach() * log_pi - torch.min(q1(s, own), q2(s, own))).mean()
        critic_loss = torch.zeros(())
        noise = drawn(update, "proposed actions", n, 2 * b, a_dim)
        random = drawn(update, "random actions", n, b, a_dim, uniform=True)
        with torch.no_grad():
            a2, _ = policy(s2, drawn(update, "target policy", b, a_dim))
            target = r + (1 - done) * hyper["discount"] * torch.min(q1_target(s2, a2), q2_target(s2, a2))
        for q in (q1, q2):
            columns = []
            for i in range(n):
                here, next_ = (policy(x, eps) for x, eps in ((s, noise[i, :b]), (s2, noise[i, b:])))
                columns.append(q(s, 2 * random[i] - 1) - math.log(0.5**a_dim))
                for action, density in (here, next_):
                    value = q(s, action.detach())
                    columns.append((torch.max(value, *returns) if returns else value) - density.detach())
            ood = t * torch.logsumexp(torch.cat(columns, 1) / t, dim=1, keepdim=True)
            critic_loss = critic_loss + functional.mse_loss(q(s, a), target) + hyper["alpha"] * (ood - q(s, a)).mean()
        losses.append({"entropy_loss": alpha_loss.item()})
        alpha_optimizer.zero_grad()
        alpha_loss.backward()
        losses[-1]["actor_loss"] = learn(policy_optimizer, policy_loss, actor)
        losses[-1]["critic_loss"] = learn(critic_optimizer, critic_loss, q1, q2)
        alpha_optimizer.step()
        follow(q1_target, q1, hyper["tau"])
        follow(q2_target, q2, hyper["tau"])
    return {
        "online/actor/0": actor, "online/critic/0": q1, "online/critic/1": q2,
        "target/critic/0": q1_target, "target/critic/1": q2_target,
    }, losses  # fmt: skip


def plain_awac(world: World, data: list[Batch], hyper: dict[str, Any], updates: int) -> Trained:
    actor, q1, q2 = Net(world, "actor"), Net(world, "critic", 0), Net(world, "critic", 1)
    q1_target, q2_target = copy.deepcopy(q1), copy.deepcopy(q2)
    actor_optimizer = torch.optim.Adam(actor.parameters(), lr=hyper["learning_rate"])
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(actor_optimizer, updates)
    critic_optimizer = torch.optim.Adam([*q1.parameters(), *q2.parameters()], lr=hyper["learning_rate"])

    def policy(s: Tensor) -> Normal:
        return Normal(actor(s), actor.extras["log_std"].clamp(*bounds(hyper)).exp())

    losses: Losses = []
    for update, (s, a, r, s2, done) in enumerate(data):
        with torch.no_grad():
            a2 = (policy(s2).mean + policy(s2).stddev * drawn(update, "target policy", *a.shape)).clamp(-1, 1)
            target = r + (1 - done) * hyper["discount"] * torch.min(q1_target(s2, a2), q2_target(s2, a2))
        critic_loss = functional.mse_loss(q1(s, a), target) + functional.mse_loss(q2(s, a), target)
        losses.append({"critic_loss": learn(critic_optimizer, critic_loss, q1, q2)})
        with torch.no_grad():
            own = (policy(s).mean + policy(s).stddev * drawn(update, "policy", *a.shape)).clamp(-1, 1)
            advantage = torch.min(q1(s, a), q2(s, a)) - torch.min(q1(s, own), q2(s, own))
            weight = (advantage / hyper["advantage_scale"]).exp().clamp(max=hyper["weight_cap"])
        actor_loss = (-policy(s).log_prob(a).sum(1, keepdim=True) * weight).mean()
        losses[-1]["actor_loss"] = learn(actor_optimizer, actor_loss, actor)
        if hyper["cosine"]:
            schedule.step()
        follow(q1_target, q1, hyper["tau"])
        follow(q2_target, q2, hyper["tau"])
    return {
        "online/actor/0": actor, "online/critic/0": q1, "online/critic/1": q2,
        "target/critic/0": q1_target, "target/critic/1": q2_target,
    }, losses  # fmt: skip


def plain_rebrac(world: World, data: list[Batch], hyper: dict[str, Any], updates: int) -> Trained:
    actor, q1, q2 = Net(world, "actor"), Net(world, "critic", 0), Net(world, "critic", 1)
    actor_target, q1_target, q2_target = (copy.deepcopy(net) for net in (actor, q1, q2))
    actor_optimizer = torch.optim.Adam(actor.parameters(), lr=hyper["learning_rate"])
    critic_optimizer = torch.optim.Adam([*q1.parameters(), *q2.parameters()], lr=hyper["learning_rate"])
    losses: Losses = []
    for update, (s, a, r, s2, done, data_a2) in enumerate(data):
        with torch.no_grad():
            noise = (drawn(update, "target policy", *a.shape) * hyper["policy_noise"]).clamp(-hyper["noise_clip"], hyper["noise_clip"])
            a2 = (actor_target(s2) + noise).clamp(-1, 1)
            penalty = ((a2 - data_a2) ** 2).sum(1, keepdim=True)
            next_q = torch.min(q1_target(s2, a2), q2_target(s2, a2)) - hyper["critic_penalty"] * penalty
            target = r + (1 - done) * hyper["discount"] * next_q
        critic_loss = functional.mse_loss(q1(s, a), target) + functional.mse_loss(q2(s, a), target)
        losses.append({"critic_loss": learn(critic_optimizer, critic_loss, q1, q2)})
        if (update + 1) % hyper["policy_delay"] == 0:
            pi = actor(s)
            q = torch.min(q1(s, pi), q2(s, pi))
            cloning = ((pi - a) ** 2).sum(1, keepdim=True)
            actor_loss = (hyper["actor_penalty"] * cloning - q / q.abs().mean().detach()).mean()
            losses[-1]["actor_loss"] = learn(actor_optimizer, actor_loss, actor)
            for t, o in ((actor_target, actor), (q1_target, q1), (q2_target, q2)):
                follow(t, o, hyper["tau"])
    return {
        "online/actor/0": actor, "online/critic/0": q1, "online/critic/1": q2,
        "target/actor/0": actor_target, "target/critic/0": q1_target, "target/critic/1": q2_target,
    }, losses  # fmt: skip


def plain_edac(world: World, data: list[Batch], hyper: dict[str, Any], updates: int) -> Trained:
    """SAC-N where there is no weight of the diversity."""
    n = hyper["critics"]
    actor, critics = Net(world, "actor"), [Net(world, "critic", i) for i in range(n)]
    targets = copy.deepcopy(critics)
    optimizer = torch.optim.Adam(actor.parameters(), lr=hyper["learning_rate"])
    critic_optimizer = torch.optim.Adam([p for q in critics for p in q.parameters()], lr=hyper["learning_rate"])
    log_alpha = actor.extras["log_entropy_weight"]
    losses: Losses = []
    for update, (s, a, r, s2, done) in enumerate(data):
        own, log_pi = tanh_policy(actor, s, drawn(update, "policy", *a.shape), *bounds(hyper))
        lowest = torch.stack([q(s, own) for q in critics]).amin(0)
        policy_loss = (log_alpha.exp().detach() * log_pi - lowest).mean()
        entropy_loss = -(log_alpha * (log_pi - a.shape[1]).detach()).mean()
        learn(optimizer, policy_loss + entropy_loss, actor)
        with torch.no_grad():
            a2, log_pi2 = tanh_policy(actor, s2, drawn(update, "target policy", *a.shape), *bounds(hyper))
            lowest = torch.stack([q(s2, a2) for q in targets]).amin(0)
            target = r + (1 - done) * hyper["discount"] * (lowest - log_alpha.exp() * log_pi2)
        gradients = []
        for q in critics if "eta" in hyper else ():  # CORL: differentiated twice by autograd, all pairs written out
            action = a.clone().requires_grad_()
            (gradient,) = torch.autograd.grad(q(s, action).sum(), action, create_graph=True)
            gradients.append(gradient / gradient.norm(dim=1, keepdim=True))
        error = torch.stack([functional.mse_loss(q(s, a), target) for q in critics]).sum()
        if gradients:
            pairs = [(gradients[i] * gradients[j]).sum(1) for i in range(n) for j in range(n) if i != j]
            error = error + hyper["eta"] * torch.stack(pairs).sum(0).mean() / (n - 1)
        critic_loss = learn(critic_optimizer, error, *critics)
        losses.append({"actor_loss": policy_loss.item(), "entropy_loss": entropy_loss.item(), "critic_loss": critic_loss})
        for t, o in zip(targets, critics, strict=True):
            follow(t, o, hyper["tau"])
    nets = {f"online/critic/{i}": q for i, q in enumerate(critics)} | {f"target/critic/{i}": q for i, q in enumerate(targets)}
    return {"online/actor/0": actor} | nets, losses


def plain_bcq(world: World, data: list[Batch], hyper: dict[str, Any], updates: int) -> Trained:
    names = ("actor", "encoder", "decoder")
    actor, encoder, decoder = (Net(world, name) for name in names)
    q1, q2 = Net(world, "critic", 0), Net(world, "critic", 1)
    actor_target, q1_target, q2_target = (copy.deepcopy(net) for net in (actor, q1, q2))
    rate = hyper["learning_rate"]
    model_optimizer = torch.optim.Adam([*encoder.parameters(), *decoder.parameters()], lr=rate)
    actor_optimizer = torch.optim.Adam(actor.parameters(), lr=rate)
    critic_optimizer = torch.optim.Adam([*q1.parameters(), *q2.parameters()], lr=rate)
    n, clip, weight = hyper["samples"], hyper["latent_clip"], hyper["minimum_weight"]

    def moved(net: Net, s: Tensor, action: Tensor) -> Tensor:
        return (hyper["perturbation"] * net(s, action) + action).clamp(-1, 1)

    losses: Losses = []
    for update, (s, a, r, s2, done) in enumerate(data):
        b, latent = len(s), 2 * a.shape[1]
        mean, log_std = encoder(s, a).chunk(2, 1)
        std = log_std.clamp(*bounds(hyper)).exp()
        z = mean + std * drawn(update, "latents", b, latent)
        divergence = -0.5 * (1 + torch.log(std.pow(2)) - mean.pow(2) - std.pow(2)).mean()
        model_loss = functional.mse_loss(decoder(s, z), a) + hyper["kl_weight"] * divergence
        losses.append({"model_loss": learn(model_optimizer, model_loss, encoder, decoder)})
        with torch.no_grad():
            noise = drawn(update, "next latents", n * b, latent).clamp(-clip, clip).reshape(n, b, latent)
            values = []
            for i in range(n):
                a2 = moved(actor_target, s2, decoder(s2, noise[i]))
                pair = torch.stack([q1_target(s2, a2), q2_target(s2, a2)])
                values.append(weight * pair.amin(0) + (1 - weight) * pair.amax(0))
            target = r + (1 - done) * hyper["discount"] * torch.stack(values).amax(0)
        critic_loss = functional.mse_loss(q1(s, a), target) + functional.mse_loss(q2(s, a), target)
        losses[-1]["critic_loss"] = learn(critic_optimizer, critic_loss, q1, q2)
        sampled = decoder(s, drawn(update, "own latents", b, latent).clamp(-clip, clip)).detach()
        losses[-1]["actor_loss"] = learn(actor_optimizer, -q1(s, moved(actor, s, sampled)).mean(), actor)
        for t, o in ((actor_target, actor), (q1_target, q1), (q2_target, q2)):
            follow(t, o, hyper["tau"])
    return {
        "online/actor/0": actor, "online/encoder/0": encoder, "online/decoder/0": decoder, "online/critic/0": q1, "online/critic/1": q2,
        "target/actor/0": actor_target, "target/critic/0": q1_target, "target/critic/1": q2_target,
    }, losses  # fmt: skip


def plain_fql(world: World, data: list[Batch], hyper: dict[str, Any], updates: int) -> Trained:
    """seohongpark/fql: one Adam along the sum of all losses; the critics that the actor seeks are copies without gradients."""
    actor, flow = Net(world, "actor"), Net(world, "flow")
    critics = [Net(world, "critic", i) for i in range(2)]
    targets = copy.deepcopy(critics)
    optimizer = torch.optim.Adam([p for net in (actor, flow, *critics) for p in net.parameters()], lr=hyper["learning_rate"])
    steps = hyper["flow_steps"]
    losses: Losses = []
    for update, (s, a, r, s2, done) in enumerate(data):
        x0, t = drawn(update, "flow", *a.shape), drawn(update, "flow time", len(a), 1, uniform=True)
        flow_loss = functional.mse_loss(flow(s, (1 - t) * x0 + t * a, t), a - x0)

        z = drawn(update, "policy", *a.shape)
        with torch.no_grad():
            x = z.clone()
            for i in range(steps):
                x += flow(s, x, torch.full((len(a), 1), i / steps)) / steps
        own = actor(s, z)
        q = torch.stack([copy.deepcopy(critic).requires_grad_(False)(s, own.clip(-1, 1)) for critic in critics]).mean(0)
        scale = 1 / q.abs().mean().detach() if hyper["normalize_q"] else 1.0
        actor_loss = hyper["alpha"] * functional.mse_loss(own, x.clip(-1, 1)) - scale * q.mean()

        with torch.no_grad():
            a2 = actor(s2, drawn(update, "target policy", *a.shape)).clip(-1, 1)
            pair = torch.stack([target(s2, a2) for target in targets])
            target = r + (1 - done) * hyper["discount"] * (pair.amin(0) if hyper["minimum"] else pair.mean(0))
        critic_loss = sum(functional.mse_loss(critic(s, a), target) for critic in critics) / 2

        learn(optimizer, flow_loss + actor_loss + critic_loss, actor, flow, *critics)
        losses.append({"flow_loss": flow_loss.item(), "actor_loss": actor_loss.item(), "critic_loss": critic_loss.item()})
        for t_net, o_net in zip(targets, critics, strict=True):
            follow(t_net, o_net, hyper["tau"])
    nets = {f"online/critic/{i}": q for i, q in enumerate(critics)} | {f"target/critic/{i}": q for i, q in enumerate(targets)}
    return {"online/actor/0": actor, "online/flow/0": flow} | nets, losses


def plain_xql(world: World, data: list[Batch], hyper: dict[str, Any], updates: int) -> Trained:
    """The regression as the paper has it, exp(z) - z - 1, over exp of the largest z: in float64, by autograd."""
    actor, value, q1, q2 = Net(world, "actor"), Net(world, "value"), Net(world, "critic", 0), Net(world, "critic", 1)
    assert value.norm == "before", "of the ReLU, as in Div99/XQL"
    q1_target, q2_target = copy.deepcopy(q1), copy.deepcopy(q2)
    actor_optimizer = torch.optim.Adam(actor.parameters(), lr=hyper["actor_learning_rate"])
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(actor_optimizer, updates)
    value_optimizer = torch.optim.Adam(value.parameters(), lr=hyper["critic_learning_rate"])
    critic_optimizer = torch.optim.Adam([*q1.parameters(), *q2.parameters()], lr=hyper["critic_learning_rate"])
    losses: Losses = []
    for s, a, r, s2, done in data:
        with torch.no_grad():
            q = torch.min(q1_target(s, a), q2_target(s, a))
        z = ((q - value(s)).double() / hyper["temperature"]).clamp(max=hyper["max_clip"])
        scale = max(float(z.detach().max()), -1.0)
        value_loss = learn(value_optimizer, ((torch.exp(z) - z - 1) / math.exp(scale)).mean(), value)
        policy = Normal(actor(s), actor.extras["log_std"].clamp(*bounds(hyper)).exp())
        weight = (hyper["beta"] * (q - value(s)).detach()).exp().clamp(max=hyper["weight_cap"])
        actor_loss = learn(actor_optimizer, -(weight.squeeze(1) * policy.log_prob(a).sum(1)).mean(), actor)
        schedule.step()
        with torch.no_grad():
            target = r + (1 - done) * hyper["discount"] * value(s2)
        error = sum(functional.huber_loss(q(s, a), target, delta=hyper["huber"]) for q in (q1, q2))
        critic_loss = learn(critic_optimizer, error, q1, q2)
        losses.append({"value_loss": value_loss, "actor_loss": actor_loss, "critic_loss": critic_loss})
        follow(q1_target, q1, hyper["tau"])
        follow(q2_target, q2, hyper["tau"])
    return {
        "online/actor/0": actor, "online/critic/0": q1, "online/critic/1": q2, "online/value/0": value,
        "target/critic/0": q1_target, "target/critic/1": q2_target,
    }, losses  # fmt: skip


def plain_spot(world: World, data: list[Batch], hyper: dict[str, Any], updates: int) -> Trained:
    """The density by torch's own distributions, in float64: with the decoder's variance kl_weight / 4, -log p(a | z) + KL is, but for a
    constant, the code's loss times 2 A / kl_weight."""
    names = ("actor", "encoder", "decoder")
    actor, encoder, decoder = (Net(world, name) for name in names)
    q1, q2 = Net(world, "critic", 0), Net(world, "critic", 1)
    actor_target, q1_target, q2_target = (copy.deepcopy(net) for net in (actor, q1, q2))
    model_optimizer = torch.optim.Adam([*encoder.parameters(), *decoder.parameters()], lr=hyper["model_learning_rate"])
    actor_optimizer = torch.optim.Adam(actor.parameters(), lr=hyper["learning_rate"])
    critic_optimizer = torch.optim.Adam([*q1.parameters(), *q2.parameters()], lr=hyper["learning_rate"])
    beta = hyper["kl_weight"]

    def negative_elbo(s: Tensor, a: Tensor, noise: Tensor) -> Tensor:
        mean, log_std = encoder(s, a).chunk(2, 1)
        latent = Normal(mean.double(), log_std.double().clamp(*bounds(hyper)).exp())
        z = latent.mean + latent.stddev * noise
        u = decoder(s, z.float()).double()
        constant = math.log(2 * math.pi * beta / 4) / 2
        reconstruction = -(Normal(u, math.sqrt(beta / 4)).log_prob(a.double()) + constant).sum(1)
        divergence = torch.distributions.kl_divergence(latent, Normal(torch.zeros_like(z), torch.ones_like(z))).sum(1)
        return ((reconstruction + divergence) * beta / (2 * a.shape[1])).mean()

    losses: Losses = []
    for update, (s, a, r, s2, done) in enumerate(data):
        model_loss = negative_elbo(s, a, drawn(update, "latents", len(s), 2 * a.shape[1]))
        losses.append({"model_loss": learn(model_optimizer, model_loss, encoder, decoder)})
        with torch.no_grad():
            noise = (drawn(update, "target policy", *a.shape) * hyper["policy_noise"]).clamp(-hyper["noise_clip"], hyper["noise_clip"])
            a2 = (actor_target(s2) + noise).clamp(-1, 1)
            target = r + (1 - done) * hyper["discount"] * torch.min(q1_target(s2, a2), q2_target(s2, a2))
        critic_loss = functional.mse_loss(q1(s, a), target) + functional.mse_loss(q2(s, a), target)
        losses[-1]["critic_loss"] = learn(critic_optimizer, critic_loss, q1, q2)
        if (update + 1) % hyper["policy_delay"] == 0:
            pi = actor(s)
            q = q1(s, pi)
            rare = negative_elbo(s, pi, drawn(update, "own latents", len(s), 2 * a.shape[1]))
            losses[-1]["actor_loss"] = learn(actor_optimizer, -q.mean() / q.abs().mean().detach() + hyper["support_weight"] * rare, actor)
            for t, o in ((actor_target, actor), (q1_target, q1), (q2_target, q2)):
                follow(t, o, hyper["tau"])
    return {
        "online/actor/0": actor, "online/encoder/0": encoder, "online/decoder/0": decoder, "online/critic/0": q1, "online/critic/1": q2,
        "target/actor/0": actor_target, "target/critic/0": q1_target, "target/critic/1": q2_target,
    }, losses  # fmt: skip


Plain = Callable[[World, list[Batch], dict[str, Any], int], Trained]
PLAIN: dict[str, Plain] = {
    "bc": plain_bc, "td3_bc": plain_td3_bc, "iql": plain_iql, "cql": plain_cql, "awac": plain_awac, "rebrac": plain_rebrac,
    "edac": plain_edac, "bcq": plain_bcq, "xql": plain_xql, "spot": plain_spot, "fql": plain_fql, "sac_n": plain_edac, "cal_ql": plain_cql,
}  # fmt: skip
# A large learning rate and an uncommon value for everything else, so that a wrong or unused number shows.
HYPER: dict[str, dict[str, Any]] = {
    "bc": {"learning_rate": 1e-3},
    "td3_bc": {"learning_rate": 1e-3, "discount": 0.9, "tau": 0.1, "alpha": 1.3, "policy_noise": 0.5, "noise_clip": 0.3,
               "policy_delay": 3},
    "iql": {
        "actor_learning_rate": 2e-3, "critic_learning_rate": 1e-3, "discount": 0.9, "tau": 0.1,
        "expectile": 0.8, "beta": 5.0, "weight_cap": 2.0,
    },
    "cql": {
        "actor_learning_rate": 2e-3, "critic_learning_rate": 1e-3, "discount": 0.9, "tau": 0.1, "alpha": 3.0, "temperature": 0.7,
        "samples": 4, "log_std_offset": -0.5,
    },
    "awac": {"learning_rate": 1e-3, "discount": 0.9, "tau": 0.1, "advantage_scale": 0.1, "weight_cap": 1.5},
    "rebrac": {
        "learning_rate": 1e-3, "discount": 0.9, "tau": 0.1, "actor_penalty": 0.3, "critic_penalty": 0.7, "policy_noise": 0.5,
        "noise_clip": 0.3, "policy_delay": 3,
    },
    "edac": {"learning_rate": 1e-3, "discount": 0.9, "tau": 0.1, "critics": 4, "eta": 2.0},
    "xql": {
        "actor_learning_rate": 2e-3, "critic_learning_rate": 1e-3, "discount": 0.9, "tau": 0.1, "temperature": 0.4, "max_clip": 1.2,
        "huber": 0.8, "beta": 5.0, "weight_cap": 2.0,
    },
    "spot": {
        "learning_rate": 1e-3, "model_learning_rate": 2e-3, "discount": 0.9, "tau": 0.1, "support_weight": 0.7, "kl_weight": 0.3,
        "policy_noise": 0.5, "noise_clip": 0.3, "policy_delay": 3,
    },
    "bcq": {
        "learning_rate": 1e-3, "discount": 0.9, "tau": 0.1, "minimum_weight": 0.6, "perturbation": 0.3, "kl_weight": 0.3,
        "latent_clip": 0.7, "samples": 4,
    },
    "cal_ql": {
        "actor_learning_rate": 2e-3, "critic_learning_rate": 1e-3, "discount": 0.9, "tau": 0.1, "alpha": 3.0, "temperature": 0.7,
        "samples": 4, "log_std_offset": -0.5,
    },
    "sac_n": {"learning_rate": 1e-3, "discount": 0.9, "tau": 0.1, "critics": 4},
    "fql": {"learning_rate": 1e-3, "discount": 0.9, "tau": 0.1, "alpha": 1.7, "flow_steps": 4},
}  # fmt: skip


@pytest.mark.parametrize("pruner", ["dense", "snip"])
@pytest.mark.parametrize(
    ("algorithm", "variant"),
    [
        *((name, "") for name in PLAIN),
        *((name, "narrow") for name in PLAIN if "log_std_min" in plugins.hyper_defaults(name)),
        *(("bc", "gaussian"), ("iql", "squash"), ("awac", "cosine"), ("fql", "normalize_q"), ("fql", "minimum")),
    ],
)
def test_five_updates_equal_a_plain_implementation(algorithm: str, variant: str, pruner: str) -> None:
    """`variant` is a switch of the algorithm that is not at its default; `narrow`: the bounds of the standard deviation bind."""
    hyper = HYPER[algorithm]
    if variant == "narrow":
        middle, width = hyper.get("log_std_offset", 0.0), 5e-4 if algorithm in ("bc", "iql", "awac", "xql") else 0.05
        hyper = hyper | {"log_std_min": middle - width, "log_std_max": middle + width} | ({"gaussian": True} if algorithm == "bc" else {})
    elif variant:
        hyper = hyper | {variant: not plugins.hyper_defaults(algorithm)[variant]}
    trial = small_trial(algorithm, pruner, 0.0 if pruner == "dense" else 0.5, SEED, hyper=hyper, updates=8)
    counts = {name: value for name, value in hyper.items() if isinstance(value, int)}
    world = World([trial, small_trial(algorithm, seed=SEED + 1, updates=8, hyper=counts)]).start()  # in a stack
    logged = world.train(0, UPDATES)
    rows = world.rows()

    alone = World([trial]).start()
    data = []
    for update in range(UPDATES):
        alone.agent.at(update)
        b = alone.data.draw(alone.agent.streams, BATCH)
        data.append((b.observations[0], b.actions[0], b.rewards[0].unsqueeze(1), b.next_observations[0], b.terminals[0].unsqueeze(1)))
        data[-1] += () if b.next_actions is None else (b.next_actions[0],)
        data[-1] += () if b.returns is None else (b.returns(alone.agent.hyper.discount)[0].unsqueeze(1),)
    assert any(float(batch[4].sum()) > 0 for batch in data)
    nets, losses = PLAIN[algorithm](alone, data, trial.hyper_values(), trial.updates)

    for found, wanted in zip(logged, losses, strict=True):
        assert {name: float(loss[0]) for name, loss in found.items()} == pytest.approx(wanted, rel=1e-5)

    assert {name.rsplit("/", 1)[0] for name in nets} == {name for name in rows if not name.startswith("adam")}
    for name, net in nets.items():
        place, network, copy = name.split("/")
        views = world.agent.specs[network].views(rows[f"{place}/{network}"])
        start = Net(alone, network, int(copy))
        for index, (layer, before) in enumerate(zip(net.layers, start.layers, strict=True)):
            for kind in ("weight", "bias"):
                found, wanted, began = views[f"{kind}.{index}"][0, int(copy)], getattr(layer, kind).detach(), getattr(before, kind).detach()
                moved = (wanted - began).abs().max()
                assert moved > 1e-5
                assert (found - wanted).abs().max() < 5e-3 * moved, f"{name} {kind}.{index} moved by {float(moved):.1e}"
                assert (found - wanted).abs().max() < 1e-5
        for index, norm in enumerate(net.norms):
            assert (views[f"gain.{index}"][0, int(copy)] - (norm.weight.detach() - 1)).abs().max() < 1e-5
            assert (views[f"shift.{index}"][0, int(copy)] - norm.bias.detach()).abs().max() < 1e-5
            assert norm.bias.detach().abs().max() > 1e-4
            assert (norm.weight.detach() - 1).abs().max() > 1e-4
        for extra, value in net.extras.items():
            if place == "online":
                assert (views[extra][0] - value.detach()).abs().max() < 2e-6
                assert value.detach().abs().min() > 1e-4


def test_bcqs_policy_takes_the_best_by_the_first_critic_of_its_perturbed_actions() -> None:
    hyper = HYPER["bcq"] | {"act_samples": 6}
    world = World([small_trial("bcq", "snip", 0.5, SEED, hyper=hyper)]).start()
    world.agent.at(7)
    sizes, names = world.agent.sizes, ("actor", "decoder", "critic")
    seen = torch.randn(1, 5, sizes[0])
    actor, decoder, q1 = (Net(world, name) for name in names)
    latents = drawn(7, "evaluation", 5, 6, 2 * sizes[1]).clamp(-hyper["latent_clip"], hyper["latent_clip"])
    wanted = []
    for s, z in zip(seen[0], latents, strict=True):
        s = s.expand(6, -1)
        generated = decoder(s, z)
        actions = (generated + hyper["perturbation"] * actor(s, generated)).clamp(-1, 1)
        wanted.append(actions[q1(s, actions).argmax()])
    torch.testing.assert_close(world.agent.algorithm.act(world.agent, seen)[0], torch.stack(wanted))


def test_fqls_policy_is_its_actor_at_the_noise_of_the_episode() -> None:
    world = World([small_trial("fql", "snip", 0.5, SEED, hyper=HYPER["fql"])]).start()
    world.agent.at(7)
    seen = torch.randn(1, 5, world.agent.sizes[0])
    wanted = Net(world, "actor")(seen[0], drawn(7, "evaluation", 5, world.agent.sizes[1])).clamp(-1, 1)
    torch.testing.assert_close(world.agent.algorithm.act(world.agent, seen)[0], wanted)


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


@pytest.mark.parametrize("recorded", [False, True])
def test_a_schedule_begins_again_with_each_training_of_imp(recorded: bool) -> None:
    """Else the last training, whose policy is the trial's, would hardly move."""
    world = World([small_trial("iql", "imp", 0.5, updates=40, pruning={"rounds": 3})], recorded=recorded)
    found = []
    for update in range(40):
        world.agent.at(update)
        found.append(float(world.agent.cosine()))
    one = [0.5 * (1 + math.cos(math.pi * update / 10)) for update in range(10)]
    assert found == pytest.approx(one * 4)
