"""What each structure keeps."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from tests.stacks import World, small_trial
from trainables.errors import UserError
from trainables.nn import MLP
from trainables.pruning.narrow import shrink
from trainables.pruning.prune import prune
from trainables.pruning.structures import structured
from trainables.tensors.mask import Mask, to_row

SPEC = MLP((10, 16, 12, 3), copies=2)


def scores(members: int = 2) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [torch.rand(members, SPEC.copies, n_out, n_in, generator=generator) for n_in, n_out in SPEC.layers]


@pytest.mark.parametrize(("structure", "kept", "group"), [("2:4", 2, 4), ("1:4", 1, 4), ("1:8", 1, 8), ("1:16", 1, 16)])
def test_of_each_group_of_inputs_the_highest_are_kept(structure: str, kept: int, group: int) -> None:
    saliency = scores()
    for layer, mask in zip(saliency, structured(structure, SPEC, saliency, [kept / group, 1.0]), strict=True):
        for start in range(0, layer.shape[-1], group):
            part, chosen = layer[0, :, :, start : start + group], mask[0, :, :, start : start + group]
            count = min(kept, part.shape[-1])
            assert (chosen.sum(-1) == count).all()
            assert torch.equal((part * chosen).sum(-1), part.topk(count, dim=-1).values.sum(-1))
        assert (mask[1] == 1).all(), "a network that is not pruned"


def test_every_unit_keeps_as_many_inputs() -> None:
    saliency = scores()
    for layer, mask in zip(saliency, structured("fan_in", SPEC, saliency, [0.3, 0.01]), strict=True):
        assert (mask[0].sum(-1) == round(0.3 * layer.shape[-1])).all()
        assert (mask[1].sum(-1) == 1).all()
        assert torch.equal(mask[1].argmax(-1), layer[1].argmax(-1))


def test_whole_units_are_those_of_the_smaller_dense_network() -> None:
    saliency = scores()
    masks = structured("units", SPEC, saliency, [0.5, 0.3])
    for member, density in enumerate((0.5, 0.3)):
        sizes = shrink(SPEC, density).sizes
        for copy in range(SPEC.copies):
            alive = [layer[member, copy] for layer in masks]
            for index, mask in enumerate(alive):
                assert int((mask.sum(1) > 0).sum()) == sizes[index + 1]
                assert int((mask.sum(0) > 0).sum()) == sizes[index]
                assert int(mask.sum()) == sizes[index] * sizes[index + 1], "it is a dense block"
            summed = saliency[0][member, copy].sum(1) + saliency[1][member, copy].sum(0)
            assert set(summed.topk(sizes[1]).indices.tolist()) == set(torch.nonzero(alive[0].sum(1)).flatten().tolist())


@pytest.mark.parametrize(("hidden", "density"), [((1,), 0.5), ((3, 64), 0.9), ((64, 3), 0.99)])
def test_no_layer_of_a_smaller_network_is_wider(hidden: tuple[int, ...], density: float) -> None:
    spec = MLP((4, *hidden, 2))
    assert all(small <= own for small, own in zip(shrink(spec, density).sizes, spec.sizes, strict=True))


@pytest.mark.parametrize("width", [1, 3])
def test_a_stream_that_is_narrow_already_stays_as_it_is(width: int) -> None:
    spec = MLP((4, width, width, 2)).built_as("simba")
    assert shrink(spec, 0.5) == spec


def masks_of(**options: object) -> Mask:
    world = World([small_trial("td3_bc", **options)])  # type: ignore[arg-type]
    return prune(world.agent, world.stack, world.data.draw)["critic"]


@pytest.mark.parametrize("pruner", ["snip", "grasp", "magnitude", "force", "synflow"])
def test_any_saliency_fills_a_structure(pruner: str) -> None:
    if pruner == "synflow":
        with pytest.raises(UserError, match="structure '2:4' has no effect on pruner 'synflow'"):
            small_trial("td3_bc", pruner, 0.5, structure="2:4")
        return
    mask = masks_of(pruner=pruner, sparsity=0.5, structure="2:4")
    assert all((layer[..., :4].sum(-1) == 2).all() for layer in mask)
    assert not torch.equal(mask[1], masks_of(pruner=pruner, sparsity=0.5, structure="fan_in")[1])


@pytest.mark.parametrize(
    ("pruner", "structure", "network"),
    [
        ("phew", "2:4", "mlp"), ("phew", "1:8", "layer_norm"), ("prospr", "1:4", "mlp"), ("prospr", "2:4", "simba"),
        ("random_uniform", "1:16", "mlp"), ("random_uniform", "1:8", "simba"), ("snip", "1:4", "simba"), ("magnitude", "1:16", "simba"),
    ],
)  # fmt: skip
def test_any_scores_fill_every_group_of_every_network_exactly_and_the_result_trains(pruner: str, structure: str, network: str) -> None:
    kept, group = (int(number) for number in structure.split(":"))
    world = World([small_trial("td3_bc", pruner, 1 - kept / group, structure=structure, network=network)], "auto").start()
    before = world.rows()
    world.train(0, 2)
    for name, mask in world.masks.items():
        for layer in mask:
            for part in layer.split(group, dim=-1):  # the last group may have fewer inputs
                assert (part.sum(-1) == min(kept, part.shape[-1])).all()
        removed, row = to_row(world.agent.specs[name], mask) == 0, world.rows()[f"online/{name}"]
        assert (row[removed] == 0).all()
        assert (row != before[f"online/{name}"]).any()
    assert world.agent.finite() == [True]


def test_phew_fills_no_structure_of_a_network_without_layers_in_a_row() -> None:
    with pytest.raises(UserError, match=r"pruner 'phew' needs layers in a row, which network 'simba' has not; there are: .*snip"):
        small_trial("td3_bc", "phew", 0.5, structure="2:4", network="simba")


def test_stack_mates_of_other_structures_do_not_matter() -> None:
    trials = [small_trial("td3_bc", "snip", 0.75, structure=name) for name in ("none", "1:4", "units", "fan_in")]
    world = World(trials)
    together = prune(world.agent, world.stack, world.data.draw)["critic"]
    for index, trial in enumerate(trials):
        alone = masks_of(pruner="snip", sparsity=0.75, structure=trial.structure)
        assert all(torch.equal(a[index], b[0]) for a, b in zip(together, alone, strict=True))


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"structure": "2:4"}, "structure '2:4' removes 0.5 of the weights: sparsity 0.75 does not fit it"),
        ({"structure": "1:4", "control": "shuffle"}, "control 'shuffle' would undo the structure '1:4'"),
        (
            {"algorithm": "rebrac", "structure": "units"},
            r"'units' does not fit the critic of rebrac.*; sparsity_of.critic=0 leaves it dense",
        ),
        ({"algorithm": "xql", "structure": "units"}, "'units' does not fit the value of xql"),
        ({"structure": "3:4"}, "no structure '3:4'; there are: none, units, fan_in, 2:4"),
    ],
)
def test_what_does_not_fit_is_refused(options: dict[str, str], says: str) -> None:
    with pytest.raises(UserError, match=says):
        replace(small_trial("td3_bc", "snip", 0.75), **options)


def test_whole_units_of_the_networks_that_are_not_normalized() -> None:
    trial = small_trial("rebrac", "snip", 0.75, structure="units", sparsity_of={"critic": 0.0})
    masks = World([trial]).start().masks
    assert (masks["actor"][0].sum(-1) == 0).any()
    assert all((layer == 1).all() for layer in masks["critic"])
    with pytest.raises(UserError, match="'units' does not fit a network with layer normalization"):
        structured("units", replace(SPEC, norm="after"), scores(), [0.5, 0.3])
