from __future__ import annotations

import itertools

import pytest
import torch

from trainables.errors import UserError
from trainables.pruning import ranking
from trainables.tensors.mlp import MLP
from trainables.training.checkpoint import pack_bits, unpack_bits

SPEC = MLP((3, 4, 4, 2), heads=2, extra={"log_std": 2})


def random_saliency(spec: MLP = SPEC, members: int = 3, seed: int = 0) -> list[torch.Tensor]:
    made = torch.Generator().manual_seed(seed)
    return [torch.randn(members, spec.heads, n_out, n_in, generator=made) for n_in, n_out in spec.layers]


def random_mask(density: float, spec: MLP = SPEC, members: int = 3, seed: int = 0) -> ranking.Mask:
    made = torch.Generator().manual_seed(seed)
    return [(torch.rand(members, spec.heads, n_out, n_in, generator=made) < density).float() for n_in, n_out in spec.layers]


def flat(mask: ranking.Mask, member: int) -> list[float]:
    return [value for layer in mask for value in layer[member].flatten().tolist()]


@pytest.mark.parametrize(
    ("density", "prunable", "count"),
    [(0.05, 71_424, 3571), (0.01, 71_424, 714), (0.08, 71_424, 5714), (1.0, 7, 7), (0.1, 4, 0), (0.1, 8, 1)],
)
def test_kept_is_the_rounded_product(density: float, prunable: int, count: int) -> None:
    assert ranking.kept(density, prunable) == count


def test_threshold_keeps_exactly_the_highest_of_all_layers_and_heads() -> None:
    saliency = random_saliency()
    for keep in ([0, 1, 72], [5, 36, 71]):
        mask = ranking.threshold(saliency, keep)
        assert [layer.shape for layer in mask] == [layer.shape for layer in saliency]
        for member, count in enumerate(keep):
            scores, kept = flat(saliency, member), flat(mask, member)
            assert set(kept) <= {0.0, 1.0}
            assert sum(kept) == count
            wanted = sorted(range(len(scores)), key=lambda i: -scores[i])[:count]
            assert sorted(i for i, one in enumerate(kept) if one) == sorted(wanted)


def test_ties_go_to_the_lower_flat_index() -> None:
    constant = [torch.zeros_like(layer) for layer in random_saliency()]
    kept = flat(ranking.threshold(constant, [10, 30, 50]), 1)
    assert kept == [1.0] * 30 + [0.0] * 42
    constant[2][1, 0, 0, 1] = 1.0  # one weight of the last layer is better
    kept = flat(ranking.threshold(constant, [10, 30, 50]), 1)
    place = 2 * 12 + 2 * 16 + 1
    assert [i for i, one in enumerate(kept) if one] == [*range(29), place]


def test_weights_at_minus_infinity_come_last() -> None:
    saliency = random_saliency()
    saliency[0][:, :, 0] = -torch.inf
    mask = ranking.threshold(saliency, [60, 66, 72])
    assert float(mask[0][:2, :, 0].sum()) == 0
    assert [sum(flat(mask, member)) for member in range(3)] == [60, 66, 72]


def test_a_saliency_that_is_not_a_number_is_refused() -> None:
    saliency = random_saliency()
    saliency[1][2, 0, 1, 1] = torch.nan
    with pytest.raises(UserError, match="saliency of member 2 is not a number in 1 places"):
        ranking.threshold(saliency, [5, 5, 5])


def test_threshold_in_layers_keeps_its_budget_in_every_layer_and_head() -> None:
    saliency = random_saliency()
    budgets = [[3, 8, 16], [24, 0, 1], [1, 7, 2]]
    mask = ranking.threshold_in_layers(saliency, budgets)
    for member, budget in enumerate(budgets):
        for layer, count in enumerate(budget):
            per_head = mask[layer][member].flatten(1).sum(1).tolist()
            assert per_head == [count // 2 + count % 2, count // 2]
            for head in range(2):
                scores, kept = saliency[layer][member, head].flatten(), mask[layer][member, head].flatten().bool()
                if kept.any() and not kept.all():
                    assert scores[kept].min() > scores[~kept].max()


@pytest.mark.parametrize(
    ("wanted", "total", "found"),
    [
        ([1.5, 1.5, 1.0], 4, [2, 1, 1]),  # ties to the first
        ([0.2, 0.7, 0.1], 1, [0, 1, 0]),
        ([3.0, 2.0], 5, [3, 2]),
        ([0.4, 0.35, 0.25], 1, [1, 0, 0]),
        ([10.9, 0.9, 0.2], 12, [11, 1, 0]),
    ],
)
def test_apportion_sums_to_the_total_and_is_nearest(wanted: list[float], total: int, found: list[int]) -> None:
    assert ranking.apportion(wanted, total) == found


def path_weights(mask: ranking.Mask, member: int) -> list[set[tuple[int, ...]]]:
    """Per layer the (head, row, column) of weights on a path, by walking every path from an input to an output."""
    found: list[set[tuple[int, ...]]] = [set() for _ in mask]
    units = [mask[0].shape[-1], *(layer.shape[-2] for layer in mask)]
    for head in range(mask[0].shape[1]):
        for path in itertools.product(*(range(n) for n in units)):
            if all(mask[i][member, head, path[i + 1], path[i]] for i in range(len(mask))):
                for i in range(len(mask)):
                    found[i].add((head, path[i + 1], path[i]))
    return found


@pytest.mark.parametrize("density", [0.15, 0.3, 0.6])
@pytest.mark.parametrize("seed", range(4))
def test_on_path_is_what_walking_every_path_finds(density: float, seed: int) -> None:
    mask = random_mask(density, seed=seed)
    path = ranking.on_path(mask)
    for member in range(3):
        wanted = path_weights(mask, member)
        for layer, indices in zip(path, wanted, strict=True):
            assert {tuple(index) for index in layer[member].nonzero().tolist()} == indices
        names = [f"member {k}" for k in range(3)]
        own = [layer[member : member + 1] for layer in mask]
        connected = all(any(head == index[0] for index in wanted[0]) for head in range(2))
        if connected:
            ranking.check_connected("critic", own, names[:1])
        else:
            with pytest.raises(UserError):
                ranking.check_connected("critic", own, names[:1])


def test_the_random_masks_above_hold_both_connected_and_disconnected_ones() -> None:
    connected = [
        all(any(head == index[0] for index in path_weights(random_mask(density, seed=seed), member)[0]) for head in range(2))
        for density in (0.15, 0.3, 0.6) for seed in range(4) for member in range(3)
    ]  # fmt: skip
    assert 5 < sum(connected) < len(connected) - 5


def hand_made() -> ranking.Mask:
    """2 -> 3 -> 2 -> 1, one head. Kept: input 0 to units 0 and 1; input 1 to none; unit 0 to unit 0; unit 2 (not fed) to unit 0 and
    unit 1; unit 0 to the output. On a path: input 0 -> 0 -> 0 -> output."""
    first = torch.tensor([[1.0, 0], [1, 0], [0, 0]])
    second = torch.tensor([[1.0, 0, 1], [0, 0, 1]])
    third = torch.tensor([[1.0, 0]])
    return [layer[None, None] for layer in (first, second, third)]


def test_check_connected_names_trial_network_layer_and_counts() -> None:
    whole = hand_made()
    broken = [layer.clone() for layer in whole]
    broken[2].zero_()
    ranking.check_connected("actor", whole, ["a"])
    both = [torch.cat(pair) for pair in zip(whole, broken, strict=True)]
    with pytest.raises(UserError) as caught:
        ranking.check_connected("actor", both, ["td3_bc/a/s0", "td3_bc/b/s1"])
    message = str(caught.value)
    assert message.startswith("td3_bc/b/s1: ")
    assert "layer actor.2 keeps 0 of 2 weights" in message
    assert "\n" not in message


def test_a_network_with_weights_in_every_layer_but_no_path_is_refused() -> None:
    mask = hand_made()
    mask[2] = torch.tensor([[[[0.0, 1]]]])  # only unit 1 feeds the output, and only the unit that is not fed feeds it
    with pytest.raises(UserError, match=r"no path from input to output of the value: layer value\.\d keeps \d"):
        ranking.check_connected("value", mask, ["a"])


def test_one_dead_head_is_enough_to_refuse() -> None:
    mask = [torch.cat([torch.ones_like(layer), layer * 0], dim=1) for layer in hand_made()]
    with pytest.raises(UserError, match="critic"):
        ranking.check_connected("critic", mask, ["a"])


@pytest.mark.parametrize("density", [0.0, 0.4, 1.0])
def test_bits_survive_packing(density: float) -> None:
    mask = random_mask(density)
    packed = [pack_bits(mask, member) for member in range(3)]
    assert all(len(bits) == -(-sum(SPEC.weights_per_layer) // 8) for bits in packed)
    for found, wanted in zip(unpack_bits(SPEC, packed), mask, strict=True):
        assert torch.equal(found, wanted)


def test_rows_hold_the_masks_where_the_weights_are_and_ones_elsewhere() -> None:
    mask = random_mask(0.4)
    row = ranking.to_row(SPEC, mask)
    assert row.shape == (3, SPEC.row)
    views = SPEC.views(row)
    for index, layer in enumerate(mask):
        assert torch.equal(views[f"weight.{index}"], layer)
        assert (views[f"bias.{index}"] == 1).all()
    assert (views["log_std"] == 1).all()
    assert float(row.sum()) == sum(float(layer.sum()) for layer in mask) + 3 * (SPEC.row - sum(SPEC.weights_per_layer))
    weights = [SPEC.views(row)[f"weight.{index}"] for index in range(len(SPEC.layers))]
    for found, wanted in zip(weights, mask, strict=True):
        assert torch.equal(found, wanted)
