from __future__ import annotations

import pytest
import torch

from tests.trainables.tensors.test_mask import SPEC, hand_made, path_weights, random_mask
from trainables.errors import UserError
from trainables.pruning import ranking
from trainables.tensors.mask import Mask
from trainables.tensors.mlp import MLP


def random_saliency(spec: MLP = SPEC, members: int = 3, seed: int = 0) -> list[torch.Tensor]:
    made = torch.Generator().manual_seed(seed)
    return [torch.randn(members, spec.copies, n_out, n_in, generator=made) for n_in, n_out in spec.layers]


def flat(mask: Mask, member: int) -> list[float]:
    return [value for layer in mask for value in layer[member].flatten().tolist()]


@pytest.mark.parametrize(
    ("density", "prunable", "count"),
    [(0.05, 71_424, 3571), (0.01, 71_424, 714), (0.08, 71_424, 5714), (1.0, 7, 7), (0.1, 4, 0), (0.1, 8, 1)],
)
def test_kept_is_the_rounded_product(density: float, prunable: int, count: int) -> None:
    assert ranking.kept(density, prunable) == count


@pytest.mark.parametrize("ties", [False, True])
def test_threshold_keeps_exactly_the_highest_of_all_layers_and_copies(ties: bool) -> None:
    saliency = [layer.round() if ties else layer for layer in random_saliency()]
    saliency[1][:, 0, 0, 0] = torch.inf
    for keep in ([0, 1, 72], [5, 36, 71], [36, 5, 36]):
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
    with pytest.raises(UserError, match="saliency of member 2 is NaN for 1 weights"):
        ranking.threshold(saliency, [5, 5, 5])


def test_threshold_in_layers_keeps_its_budget_in_every_layer_and_copy() -> None:
    saliency = random_saliency()
    budgets = [[3, 8, 16], [24, 0, 1], [1, 7, 2]]
    mask = ranking.threshold_in_layers(saliency, budgets)
    for member, budget in enumerate(budgets):
        for layer, count in enumerate(budget):
            per_copy = mask[layer][member].flatten(1).sum(1).tolist()
            assert per_copy == [count // 2 + count % 2, count // 2]
            for copy in range(2):
                scores, kept = saliency[layer][member, copy].flatten(), mask[layer][member, copy].flatten().bool()
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


@pytest.mark.parametrize("density", [0.15, 0.3, 0.6])
@pytest.mark.parametrize("seed", range(4))
def test_a_network_is_connected_where_every_copy_has_a_path(density: float, seed: int) -> None:
    mask = random_mask(density, seed=seed)
    for member in range(3):
        own = [layer[member : member + 1] for layer in mask]
        if all(any(copy == index[0] for index in path_weights(mask, member)[0]) for copy in range(2)):
            ranking.check_connected("critic", own, ["a"])
        else:
            with pytest.raises(UserError):
                ranking.check_connected("critic", own, ["a"])


def test_the_random_masks_above_hold_both_connected_and_disconnected_ones() -> None:
    connected = [
        all(any(copy == index[0] for index in path_weights(random_mask(density, seed=seed), member)[0]) for copy in range(2))
        for density in (0.15, 0.3, 0.6) for seed in range(4) for member in range(3)
    ]  # fmt: skip
    assert 5 < sum(connected) < len(connected) - 5


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


def test_one_dead_copy_is_enough_to_refuse() -> None:
    mask = [torch.cat([torch.ones_like(layer), layer * 0], dim=1) for layer in hand_made()]
    with pytest.raises(UserError, match="critic"):
        ranking.check_connected("critic", mask, ["a"])
