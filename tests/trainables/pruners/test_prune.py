"""From a stack of trials to masks: calibration data, rounds, and what each network is scored by."""

from __future__ import annotations

import itertools
import re
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional

from tests.stacks import World, small_trial
from trainables.datasets.minibatches import Minibatches
from trainables.errors import UserError
from trainables.pruners import synflow
from trainables.pruning import prune as pruners
from trainables.pruning.mask_changes import change, changes_of
from trainables.pruning.prune import prune
from trainables.pruning.ranking import kept
from trainables.tensors.streams import Streams


def mlp(views: dict[str, torch.Tensor], layers: int, copy: int, tanh: bool) -> nn.Sequential:
    parts: list[nn.Module] = []
    for index in range(layers):
        weight = views[f"weight.{index}"][0, copy]
        layer = nn.Linear(weight.shape[1], weight.shape[0])
        with torch.no_grad():
            layer.weight.copy_(weight)
            layer.bias.copy_(views[f"bias.{index}"][0, copy])
        parts += [layer, nn.ReLU()]
    return nn.Sequential(*parts[:-1], *([nn.Tanh()] if tanh else []))


@pytest.mark.parametrize("batches", [1, 3])
def test_td3_bcs_networks_are_scored_each_by_its_own_loss_on_calibration_data(batches: int) -> None:
    """An independent derivation with torch's own layers; the critic's score holds nothing of the actor's loss."""
    trial = small_trial("td3_bc", "snip", 0.6, seed=3, calibration_batches=batches)
    world = World([trial])
    masks = prune(world.agent, world.stack, world.data.draw)

    specs = world.agent.specs
    views = {name: spec.views(world.agent.initial(name)) for name, spec in specs.items()}
    actor = mlp(views["actor"], 3, 0, tanh=True)
    critics = [mlp(views["critic"], 3, copy, tanh=False) for copy in range(2)]
    hyper = trial.hyper_values()
    scores: dict[str, list[list[torch.Tensor]]] = {"actor": [], "critic": []}
    for index in range(batches):
        streams = Streams([3], phase="calibration/")
        streams.update = index
        batch = world.data.draw(streams, 64)
        s, a, r, s2, t = (v[0] for v in (batch.observations, batch.actions, batch.rewards, batch.next_observations, batch.terminals))
        noise = (streams.normal("target policy", 64, 2)[0] * hyper["policy_noise"]).clamp(-hyper["noise_clip"], hyper["noise_clip"])
        with torch.no_grad():
            s2a2 = torch.cat([s2, (actor(s2) + noise).clamp(-1, 1)], 1)
            target = r + (1 - t) * hyper["discount"] * torch.minimum(*(critic(s2a2).squeeze(1) for critic in critics))
        critic_loss = sum(functional.mse_loss(critic(torch.cat([s, a], 1)).squeeze(1), target) for critic in critics)
        copies = [[layer.weight for layer in critic if isinstance(layer, nn.Linear)] for critic in critics]
        flat = torch.autograd.grad(critic_loss, copies[0] + copies[1])
        scores["critic"].append([torch.stack([flat[i] * copies[0][i], flat[i + 3] * copies[1][i]]) for i in range(3)])
        q = critics[0](torch.cat([s, actor(s)], 1)).squeeze(1)
        actor_loss = -hyper["alpha"] / q.abs().mean().detach() * q.mean() + functional.mse_loss(actor(s), a)
        weights = [layer.weight for layer in actor if isinstance(layer, nn.Linear)]
        scores["actor"].append([g * w for g, w in zip(torch.autograd.grad(actor_loss, weights), weights, strict=True)])

    for name, rounds in scores.items():
        total = torch.cat([torch.stack(parts).sum(0).flatten() for parts in zip(*rounds, strict=True)]).abs()
        count = kept(0.4, sum(specs[name].weights_per_layer))
        wanted = torch.zeros_like(total)
        wanted[total.topk(count).indices] = 1
        found = torch.cat([layer[0].flatten() for layer in masks[name]])
        assert (found != wanted).sum() <= 2, f"{name}: {int((found != wanted).sum())} of {len(found)} differ"  # two at the border may swap


def test_calibration_draws_other_minibatches_than_training() -> None:
    world = World([small_trial("bc")])
    training, calibration = (world.data.draw(Streams([0], phase=phase), 8).observations for phase in ("", "calibration/"))
    assert not torch.equal(training, calibration)


def test_synflow_goes_through_its_rounds_and_dead_weights_stay_dead(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World([small_trial("bc", "synflow", 0.8)])
    seen: list[torch.Tensor] = []
    original = synflow.saliency

    def watch(network: pruners.Scored) -> list[torch.Tensor]:
        flat = torch.cat([mask[0].flatten() for mask in network.mask])
        weights = torch.cat([weight.detach()[0].flatten() for weight in network.weights])
        assert torch.equal(weights != 0, flat == 1), "each round scores the network as it is masked so far"
        seen.append(flat)
        return original(network)

    monkeypatch.setattr(synflow, "saliency", watch)
    masks = prune(world.agent, world.stack, world.data.draw)
    seen.append(torch.cat([layer[0].flatten() for layer in masks["actor"]]))
    assert len(seen) == synflow.ROUNDS + 1
    counts = [int(mask.sum()) for mask in seen]
    total = len(seen[0])
    assert counts == [total, *(kept(density, total) for density in synflow.schedule(0.2))]
    for before, after in itertools.pairwise(seen):
        assert (after <= before).all()


def test_a_disconnected_network_is_refused_with_the_trials_name() -> None:
    # The default scale of the initialization gives the first layer the largest weights, so a global ranking starves the others.
    trials = [small_trial("td3_bc"), small_trial("td3_bc", "magnitude", 0.95, seed=1, hyper={"hidden": (16, 16)})]
    world = World(trials)
    with pytest.raises(UserError) as caught:
        prune(world.agent, world.stack, world.data.draw)
    assert str(caught.value).startswith(trials[1].name)
    assert "keeps" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("pruner", ["phew", "ntk_sap", "synflow", "grasp"])
def test_a_mask_of_too_few_weights_names_the_layer(pruner: str) -> None:
    world = World([small_trial("td3_bc", pruner, 0.995)])  # 2 of the actor's 368 weights, in three layers
    with pytest.raises(UserError, match=rf"^td3_bc/.*/{pruner}@99.5.*/s0: .* of the actor: layer actor\.\d keeps 0 of \d+ weights"):
        prune(world.agent, world.stack, world.data.draw)


@pytest.mark.parametrize("pruner", ["gmp", "imp"])
def test_a_mask_that_will_have_too_few_weights_names_the_layer_before_training(pruner: str) -> None:
    gone = small_trial("td3_bc", pruner, 0.995)
    with pytest.raises(UserError, match=rf"^{re.escape(gone.name)}: .* of the actor: layer actor\.\d keeps 0 of \d+ weights"):
        prune(World([gone]).agent, World([gone]).stack, World([gone]).data.draw)
    for allowed in (replace(gone, allow_disconnected=True), replace(gone, sparsity=0.95)):
        world = World([allowed])
        masks = prune(world.agent, world.stack, world.data.draw)
        assert all(layer.all() for mask in masks.values() for layer in mask), "it starts dense"


@pytest.mark.parametrize("pruner", ["snip", "random_erk", "iterative_snip", "rigl", "sparse_reg", "gmp", "imp"])
def test_networks_of_any_size_and_kind_keep_as_many_weights_as_the_algorithms_own(pruner: str) -> None:
    own = {"actor": 5 * 256 + 256 * 256 + 256 * 2, "critic": 2 * (7 * 256 + 256 * 256 + 256)}
    for network, hidden in (("mlp", (16, 16)), ("mlp", (128,)), ("mlp", (24, 16, 16)), ("simba", (16, 16))):
        more = {"network": network, "hyper": {"hidden": hidden}, "relative_to": "default", "allow_disconnected": True, "updates": 2000}
        world = World([small_trial("td3_bc", pruner, 0.998, **more)]).start()
        for update, shares in changes_of(world.stack).items():
            world.masks = change(world.agent, world.stack, world.masks, shares, "dense", update, world.data.draw)
        for name, mask in world.masks.items():
            assert sum(int(layer.sum()) for layer in mask) == round(0.002 * own[name]), (network, hidden, name)


def test_a_network_with_too_few_weights_to_keep_as_many_is_refused() -> None:
    trial = small_trial("td3_bc", "snip", 0.95, relative_to="default", hyper={"hidden": (16, 16)})
    world = World([trial])
    said = f"{trial.name}: its actor has 368 weights, fewer than the 3,366 that relative_to 'default' keeps; choose more units or a higher"
    with pytest.raises(UserError, match=re.escape(said)):
        prune(world.agent, world.stack, world.data.draw)
    with pytest.raises(UserError, match="structure '2:4' fixes the share of the network that is kept; omit relative_to"):
        replace(trial, structure="2:4", sparsity=0.5)


@pytest.mark.parametrize("structure", ["none", "fan_in"])
def test_a_calibration_that_gives_no_numbers_is_refused_with_the_trials_name(structure: str) -> None:
    class Broken:
        def __init__(self, data: Minibatches) -> None:
            self.data = data

        def draw(self, *given: Any) -> Any:
            batch = self.data.draw(*given)
            batch.actions[-1, 0] = torch.nan
            return batch

    trials = [
        small_trial("bc"),
        small_trial("bc", "snip", 0.5, structure=structure),
        small_trial("bc", "snip", 0.5, 1, structure=structure),
    ]
    world = World(trials)
    with pytest.raises(UserError, match=rf"^{re.escape(trials[2].name)}: the saliency of the actor is NaN for \d+ of 368 weights; nothing"):
        prune(world.agent, world.stack, Broken(world.data).draw)


def plain_gradients(actor: nn.Sequential, batch: tuple[torch.Tensor, torch.Tensor], create: bool = False) -> list[torch.Tensor]:
    weights = [layer.weight for layer in actor if isinstance(layer, nn.Linear)]
    return list(torch.autograd.grad(functional.mse_loss(actor(batch[0]), batch[1]), weights, create_graph=create))


@pytest.mark.parametrize("pruner", ["iterative_snip", "force"])
def test_rounds_are_those_of_an_independent_derivation_in_float64(pruner: str) -> None:
    """Round t keeps d^(t / 30) by |w g|: of the masked network for iterative SNIP, where what is gone stays gone; with the initial
    weights for FORCE, where it may return. A calibration batch a round."""
    density, rounds = 0.3, 30
    world = World([small_trial("bc", pruner, 1 - density, seed=3)])
    masks = prune(world.agent, world.stack, world.data.draw)
    actor = mlp(world.agent.specs["actor"].views(world.agent.initial("actor")), 3, 0, tanh=True).double()
    layers = [layer for layer in actor if isinstance(layer, nn.Linear)]
    initial = [layer.weight.detach().clone() for layer in layers]
    chosen = torch.ones(sum(weight.numel() for weight in initial), dtype=torch.float64)
    returned = 0
    for turn in range(rounds):
        streams = Streams([3], phase="calibration/")
        streams.update = turn
        given = world.data.draw(streams, 64)
        gradients = plain_gradients(actor, (given.observations[0].double(), given.actions[0].double()))
        score = torch.cat([(w * g).abs().flatten() for w, g in zip(initial, gradients, strict=True)])
        if pruner == "iterative_snip":
            score = torch.where(chosen == 0, -torch.inf, score)
        new = torch.zeros_like(chosen)
        new[score.topk(kept(density ** ((turn + 1) / rounds), len(score))).indices] = 1
        returned += int(((new == 1) & (chosen == 0)).sum())
        chosen = new
        parts = chosen.split([weight.numel() for weight in initial])
        with torch.no_grad():
            for layer, weight, part in zip(layers, initial, parts, strict=True):
                layer.weight.copy_(weight * part.reshape(weight.shape))
    assert (returned > 0) == (pruner == "force")
    found = torch.cat([layer[0].flatten() for layer in masks["actor"]])
    assert (found != chosen).sum() <= 4, f"{int((found != chosen).sum())} differ"  # float32 may swap neighbours at the border


def test_the_authors_critic_score_holds_the_actors_leftover_gradient() -> None:
    pure, leaky = small_trial("td3_bc", "snip", 0.6), small_trial("td3_bc", "snip", 0.6, authors=True)
    world = World([pure, leaky])
    masks = prune(world.agent, world.stack, world.data.draw)
    assert all(torch.equal(layer[0], layer[1]) for layer in masks["actor"])
    first, second = ([float((layer[0, copy] != layer[1, copy]).sum()) for layer in masks["critic"]] for copy in range(2))
    assert sum(first) > 0, "only the first critic is in the actor's loss"
    assert sum(first) + sum(second) > 4
