"""Masks that change during training equal derivations from the papers' formulas in float64 with torch's own functions."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor
from torch.nn.functional import linear, mse_loss

from search_spaces.sweep import Sweep, expand
from tests.stacks import World, small_trial
from trainables import plugins
from trainables.errors import UserError
from trainables.pruning.mask_changes import change, drop_and_grow, moved
from trainables.pruning.ranking import kept
from trainables.tensors.mask import to_row
from trainables.tensors.streams import Streams
from trainables.trial import Trial

SEED, ROWS, UPDATE = 3, 64, 12


def trained(pruner: str) -> World:
    """A behaviour-cloning actor after some updates with one of these pruners."""
    world = World([small_trial("bc", pruner, 0.6, SEED, calibration_size=ROWS)]).start()
    world.train(0, UPDATE)
    return world


def gradient(world: World, weights: list[Tensor]) -> list[Tensor]:
    """That of the cloning loss by all weights, on the batch that a change ahead of UPDATE draws."""
    batch = world.data.draw(Streams([SEED], phase=f"change {UPDATE}/calibration/"), ROWS)
    inputs, actions = batch.observations[0].double(), batch.actions[0].double()
    views = world.agent.specs["actor"].views(world.rows()["online/actor"])
    for index, weight in enumerate(weights):
        inputs = linear(inputs, weight, views[f"bias.{index}"][0, 0].double())
        inputs = torch.relu(inputs) if index < len(weights) - 1 else torch.tanh(inputs)
    return list(torch.autograd.grad(mse_loss(inputs, actions), weights))


def weights_of(world: World, rows: Tensor) -> list[Tensor]:
    views = world.agent.specs["actor"].views(rows)
    return [views[f"weight.{index}"][0, 0].double().requires_grad_() for index in range(len(world.agent.specs["actor"].layers))]


def changed(world: World, share: float) -> list[Tensor]:
    masks = change(world.agent, world.stack, world.masks, {0: share}, "dense", UPDATE, world.data.draw)
    return [layer[0, 0] for layer in masks["actor"]]


def test_rigl_replaces_the_smallest_weights_by_those_with_the_largest_gradients() -> None:
    world = trained("rigl")
    masks = [layer[0, 0] for layer in world.masks["actor"]]
    weights = weights_of(world, world.rows()["online/actor"])
    wanted = []
    for weight, mask, slope in zip(weights, masks, gradient(world, weights), strict=True):
        replaced = math.floor(0.3 * int(mask.sum()))
        magnitude = torch.where(mask == 1, weight.abs(), torch.inf).flatten()
        new = mask.flatten().clone()
        new[magnitude.topk(replaced, largest=False).indices] = 0
        new[torch.where(new == 1, -torch.inf, slope.abs().flatten()).topk(replaced).indices] = 1
        wanted.append(new.reshape(mask.shape))
    found = changed(world, 0.3)
    assert all(torch.equal(a, b) for a, b in zip(found, wanted, strict=True))
    assert not torch.equal(found[1], masks[1])


def test_sparse_reg_scores_the_whole_network_with_what_masked_weights_were() -> None:
    world = trained("sparse_reg")
    masks = [layer[0, 0] for layer in world.masks["actor"]]
    online = weights_of(world, world.rows()["online/actor"])
    initial = weights_of(world, world.agent.initial("actor"))
    weights = [torch.where(m == 1, w, i).detach().requires_grad_() for m, w, i in zip(masks, online, initial, strict=True)]
    scores = torch.cat([(w * g).abs().flatten() for w, g in zip(weights, gradient(world, weights), strict=True)])
    wanted = torch.zeros_like(scores).index_fill_(0, scores.topk(kept(0.4, len(scores))).indices, 1)
    found = changed(world, 1.0)
    assert torch.equal(torch.cat([layer.flatten() for layer in found]).double(), wanted)
    after = weights_of(world, world.rows()["online/actor"])
    for new, weight, was in zip(found, after, weights, strict=True):
        assert torch.equal(weight, torch.where(new == 1, was, 0))


def test_imp_begins_again_with_the_first_values_of_the_largest_weights() -> None:
    world = trained("imp")
    weights = weights_of(world, world.rows()["online/actor"])
    found = changed(world, 0.5)
    total = sum(weight.numel() for weight in weights)
    assert sum(int(mask.sum()) for mask in found) == kept(0.4**0.5, total)
    for mask, weight in zip(found, weights, strict=True):
        if int(mask.sum()) < mask.numel():
            assert weight[mask == 1].abs().min() >= weight[mask == 0].abs().max()
    rows, first = world.rows(), world.agent.initial("actor")
    spec = world.agent.specs["actor"]
    assert torch.equal(rows["online/actor"], first * to_row(spec, world_masks(found)))
    assert not rows["adam.first/actor"].any()
    assert world.counts() == {"actor": 0}


def test_imp_begins_again_with_targets_and_moments_of_the_beginning() -> None:
    world = World([small_trial("td3_bc", "imp", 0.6, SEED, calibration_size=ROWS)]).start()
    world.train(0, UPDATE)
    before = world.rows()
    masks = change(world.agent, world.stack, world.masks, {0: 0.5}, "dense", UPDATE, world.data.draw)
    rows = world.rows()
    targets = [name for name in world.agent.specs if f"target/{name}" in rows]
    assert targets
    for name, spec in world.agent.specs.items():
        first = world.agent.initial(name) * to_row(spec, masks[name])
        for kind in ("online", *(["target"] if name in targets else [])):
            assert not torch.equal(before[f"{kind}/{name}"], first), f"{kind}/{name} had moved"
            assert torch.equal(rows[f"{kind}/{name}"], first), f"{kind}/{name}"
        for kind in ("adam.first", "adam.second"):
            assert before[f"{kind}/{name}"].any()
            assert not rows[f"{kind}/{name}"].any(), f"{kind}/{name}"


def world_masks(layers: list[Tensor]) -> list[Tensor]:
    return [layer[None, None] for layer in layers]


def test_what_set_grows_is_random_and_another_at_each_change() -> None:
    world = trained("set")
    first = changed(world, 0.3)
    assert not all(torch.equal(a, b[0, 0]) for a, b in zip(first, world.masks["actor"], strict=True))
    again = change(world.agent, world.stack, world.masks, {0: 0.3}, "dense", UPDATE + 1, world.data.draw)
    assert not all(torch.equal(a, b[0, 0]) for a, b in zip(first, again["actor"], strict=True))


def test_a_layer_that_is_kept_whole_stays_whole() -> None:
    weight, growth = torch.randn(2, 2, 3, 4), torch.rand(2, 2, 3, 4)
    whole = torch.ones_like(weight)
    assert torch.equal(drop_and_grow(weight, whole, growth, [0.5, 0.2]), whole)


@pytest.mark.parametrize("pruner", ["rigl", "set"])
def test_the_share_that_is_replaced_falls_along_a_cosine(pruner: str) -> None:
    schedule = plugins.load("pruners", pruner).mask_schedule(10_000, delta=1000, zeta=0.4, end=0.5)
    assert list(schedule) == [1000, 2000, 3000, 4000]
    assert list(schedule.values()) == pytest.approx([0.2 * (1 + math.cos(math.pi * t / 5)) for t in (1, 2, 3, 4)])


def test_rlx2_changes_masks_until_the_end_and_looks_ahead_from_a_share_of_the_updates_on() -> None:
    schedule = plugins.load("pruners", "rlx2").mask_schedule(50_000, **plugins.pruner_settings("rlx2"))
    assert list(schedule) == [10_000, 20_000, 30_000, 40_000]
    assert list(schedule.values()) == pytest.approx([0.25 * (1 + math.cos(math.pi * t / 5)) for t in (1, 2, 3, 4)])
    steps = {name: small_trial(name, "rlx2", 0.5, updates=3_000_000) for name in ("td3_bc", "bc", "edac")}
    assert [steps["td3_bc"].n_step_at(update) for update in (0, 299_999, 300_000, 2_999_999)] == [1, 1, 3, 3]
    assert steps["bc"].n_steps() == steps["edac"].n_steps() == {0: 1}
    assert small_trial("td3_bc", "rlx2", 0.5, hyper={"n_step": 5}).n_step_at(39) == 5
    assert small_trial("td3_bc", "rigl", 0.5, hyper={"n_step": 5}).n_step_at(0) == 5
    assert small_trial("td3_bc", "rlx2", 0.5, pruning={"n_step_from": 0.0, "delta": 10}).n_step_at(0) == 3


def test_rlx2_grows_by_the_gradient_of_the_n_step_loss() -> None:
    """After the switch a change scores with n-step targets, as the updates around it do; before it with single steps, like RigL."""
    for start, same in ((1.0, True), (0.0, False)):
        worlds = [
            World([small_trial("td3_bc", pruner, 0.6, SEED, calibration_size=ROWS, pruning=given)])
            for pruner, given in (("rlx2", {"n_step_from": start, "delta": 10}), ("rigl", {"delta": 10}))
        ]
        masks = []
        for world in worlds:
            world.start()
            found = change(world.agent, world.stack, world.masks, {0: 0.3}, "dense", UPDATE, world.data.draw)
            masks.append(found["critic"])
        assert all(torch.equal(a, b) for a, b in zip(*masks, strict=True)) == same


def test_sparse_reg_scores_anew_until_its_end() -> None:
    schedule = plugins.load("pruners", "sparse_reg").mask_schedule
    assert list(schedule(10_000, delta=2000, until=6000)) == [2000, 4000]
    assert list(schedule(5_000, delta=2000, until=200_000)) == [2000, 4000]


def test_imp_has_as_many_trainings_as_rounds_and_one() -> None:
    schedule = plugins.load("pruners", "imp").mask_schedule(1500, rounds=14)
    assert list(schedule) == list(range(100, 1500, 100))
    assert list(schedule.values()) == pytest.approx([turn / 14 for turn in range(1, 15)])


def test_how_far_a_mask_has_moved() -> None:
    first, before, now = ({"actor": [torch.tensor([[[[1.0 * (i in kept) for i in range(6)]]]])]} for kept in ({0, 1}, {1, 2}, {2, 3}))
    assert moved(now, before, first) == [{"mask/replaced/actor": 0.5, "mask/first_overlap/actor": 0.0}]
    nothing = {"actor": [0 * now["actor"][0]]}
    assert moved(nothing, nothing, first) == [{"mask/replaced/actor": 0.0, "mask/first_overlap/actor": 1.0}]


@pytest.mark.parametrize(
    ("pruner", "settings", "says"),
    [
        ("rigl", {"zeta": 1.5}, r"rigl's zeta 1.5 is outside \(0, 1\]"),
        ("rigl", {"end": 0.0}, r"rigl's end 0.0 is outside \(0, 1\]"),
        ("set", {"delta": 0}, r"set's delta 0 is outside \[1, end \* updates\) with end 0.8, updates 1000000"),
        ("rigl", {"delta": 800_000}, r"rigl's delta 800000 is outside \[1, end \* updates\) with end 0.8, updates 1000000"),
        ("rlx2", {"end": 0.01}, r"rlx2's delta 10000 is outside \[1, end \* updates\) with end 0.01, updates 1000000"),
        ("rigl", {"delta": 10.5}, "rigl's delta 10.5 is not of the same type as its default 1000"),
        ("sparse_reg", {"until": 1000}, r"sparse_reg's until 1000 is outside \(delta, inf\) with delta 1000"),
        ("imp", {"rounds": 0}, r"imp's rounds 0 is outside \[1, updates\) with updates 1000000"),
        ("imp", {"rounds": 1_000_000}, r"imp's rounds 1000000 is outside \[1, updates\)"),
        ("gmp", {"zeta": 0.5}, "no setting of gmp 'zeta'; there are: none"),
        ("rlx2", {"n_step": 0}, r"rlx2's n_step 0 is outside \[1, inf\)"),
        ("rlx2", {"n_step_from": 1.5}, r"rlx2's n_step_from 1.5 is outside \[0, 1\]"),
        ("rlx2", {"end": 1.5}, r"rlx2's end 1.5 is outside \(0, 1\]"),
        ("sparse_reg", {"zeta": 0.5}, "no setting of sparse_reg 'zeta'; there are: delta, until"),
        ("snip", {"delta": 5}, "no setting of snip 'delta'; there are: none"),
    ],
)
def test_settings_are_those_of_the_pruner_and_in_their_range(pruner: str, settings: dict[str, float], says: str) -> None:
    with pytest.raises(UserError, match=says):
        Trial(dataset="test/made-up-v0", pruner=pruner, sparsity=0.5, pruning=settings)


def test_a_setting_that_nobody_chose_is_not_in_the_way() -> None:
    """With so few updates the default delta of 1,000 means no change, which is no error; a chosen one would be."""
    short = {"dataset": "test/made-up-v0", "updates": 500, "sparsity": 0.5}
    assert Trial(**short, pruner="rigl", pruning={"zeta": 0.3}).pruning == {"zeta": 0.3}
    assert Trial(**short, pruner="sparse_reg", pruning={"until": 5000}).pruning == {"until": 5000}
    with pytest.raises(UserError, match=r"rigl's delta 900 is outside \[1, end \* updates\) with end 0.8, updates 500"):
        Trial(**short, pruner="rigl", pruning={"zeta": 0.3, "delta": 900})
    with pytest.raises(UserError, match=r"sparse_reg's until 200000 is outside \(delta, inf\) with delta 300000"):  # a default, but of it
        Trial(dataset="test/made-up-v0", pruner="sparse_reg", sparsity=0.5, pruning={"delta": 300_000})


@pytest.mark.parametrize("algorithm", ["bc", "edac", "sac_n"])
def test_steps_of_a_target_are_refused_where_there_is_none(algorithm: str) -> None:
    for setting, value in (("n_step", 5), ("n_step_from", 0.5)):
        says = rf"rlx2's {setting} {value} has no effect on {algorithm}, which has no n-step targets; it has one on: .*td3_bc"
        with pytest.raises(UserError, match=says):
            Trial(dataset="test/made-up-v0", algorithm=algorithm, pruner="rlx2", sparsity=0.5, pruning={setting: value})
    fine = Trial(dataset="test/made-up-v0", pruner="rlx2", sparsity=0.5, pruning={"n_step": 5, "zeta": 0.3})
    assert fine.using(algorithm=algorithm).pruning == {"zeta": 0.3}
    sweep = Sweep(
        datasets=("test/made-up-v0",), algorithms=("td3_bc", algorithm), pruners=("rlx2",), sparsities=(0.5,), pruning={"n_step": (3, 5)}
    )
    assert [(trial.algorithm, dict(trial.pruning)) for trial in expand(sweep)] == [
        ("td3_bc", {}), ("td3_bc", {"n_step": 5}), (algorithm, {})
    ]  # fmt: skip


def test_a_setting_at_its_default_is_no_other_trial() -> None:
    plain = Trial(dataset="test/made-up-v0", pruner="rigl", sparsity=0.5)
    assert Trial(dataset="test/made-up-v0", pruner="rigl", sparsity=0.5, pruning={"delta": 1000}).key == plain.key
    other = Trial(dataset="test/made-up-v0", pruner="rigl", sparsity=0.5, pruning={"delta": 500})
    assert other.key != plain.key
    assert other.cell == "rigl@50+delta=500"
    assert other.using(pruner="snip").pruning == {}
