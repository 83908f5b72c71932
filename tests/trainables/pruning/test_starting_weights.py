"""What training starts from: rescaled weights, weights drawn again, shuffled masks."""

from __future__ import annotations

import math

import pytest
import torch

from tests.stacks import World, small_trial
from trainables.pruning.prune import prune
from trainables.pruning.starting_weights import factors, starting_rows

BOTH = pytest.mark.parametrize("pruner", ["snip", "random_erk"])


def test_factors_of_a_hand_made_mask() -> None:
    mask = torch.tensor([[[[1.0, 1, 0, 0], [1, 0, 0, 0], [0, 0, 0, 0]]]]).repeat(3, 1, 1, 1)
    none, layer, unit = factors(mask, ["none", "layer", "unit"])
    assert (none == 1).all()
    assert layer.flatten().tolist() == pytest.approx([2.0] * 3)  # 3 of 12 kept
    assert unit.flatten().tolist() == pytest.approx([math.sqrt(2), 2.0, 1.0])


@BOTH
@pytest.mark.parametrize("how", ["layer", "unit"])
def test_rescaling_puts_the_variance_of_a_units_input_back(pruner: str, how: str) -> None:
    """For unit inputs, a unit's sum over kept weights has the variance that the dense sum has: n / (3 n) = 1/3."""
    world = World([small_trial("bc", pruner, 0.7, seed, rescale=how, hyper={"hidden": (256, 256)}) for seed in range(4)])
    masks = prune(world.agent, world.stack, world.data.draw)
    rows = starting_rows(world.agent, world.stack, masks)["actor"]
    weight, mask = world.agent.specs["actor"].views(rows)["weight.1"], masks["actor"][1]
    plain = world.agent.specs["actor"].views(world.agent.initial("actor"))
    variance = (weight * mask).square().sum(-1)[mask.sum(-1) > 0].mean()
    # SNIP keeps larger weights than average, so for it the rescaled variance is above the dense one, never below.
    assert variance > 0.9 / 3
    if pruner == "random_erk" and how == "layer":
        assert variance == pytest.approx(1 / 3, rel=0.05)
    views = world.agent.specs["actor"].views(rows)
    assert torch.equal(views["bias.1"], plain["bias.1"])


def test_members_without_options_start_from_the_plain_initialization_bit_for_bit() -> None:
    trials = [
        small_trial("bc", "snip", 0.7), small_trial("bc", "snip", 0.7, rescale="layer"), small_trial("bc", "snip", 0.7, control="reinit"),
    ]  # fmt: skip
    world = World(trials)
    masks = prune(world.agent, world.stack, world.data.draw)
    rows, plain = starting_rows(world.agent, world.stack, masks)["actor"], world.agent.initial("actor")
    assert torch.equal(rows[0], plain[0])
    assert not torch.equal(rows[1], plain[1])
    assert not (rows[2] == plain[2])[: world.agent.specs["actor"].used].any(), "all is drawn again"
    assert all(torch.equal(layer[0], layer[2]) for layer in masks["actor"]), "under the same mask"
    for k, trial in enumerate(trials):
        alone = World([trial])
        own = prune(alone.agent, alone.stack, alone.data.draw)
        assert torch.equal(starting_rows(alone.agent, alone.stack, own)["actor"][0], rows[k])


def test_a_shuffled_mask_keeps_the_count_of_every_layer_and_copy_and_nothing_else() -> None:
    trials = [small_trial("td3_bc", "snip", 0.7), small_trial("td3_bc", "snip", 0.7, control="shuffle")]
    world = World(trials)
    for mask in prune(world.agent, world.stack, world.data.draw).values():
        for layer in mask:
            assert torch.equal(layer[0].sum((1, 2)), layer[1].sum((1, 2)))
            assert not torch.equal(layer[0], layer[1])
    alone = World(trials[1:])
    together = prune(world.agent, world.stack, world.data.draw)
    for name, mask in prune(alone.agent, alone.stack, alone.data.draw).items():
        assert all(torch.equal(a[0], b[1]) for a, b in zip(mask, together[name], strict=True))


def test_a_disconnected_network_is_allowed_where_it_is_asked_for() -> None:
    trial = small_trial("bc", "magnitude", 0.97, allow_disconnected=True)
    world = World([trial])
    masks = prune(world.agent, world.stack, world.data.draw)
    assert float(masks["actor"][1].sum()) == 0
