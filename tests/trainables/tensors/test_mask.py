from __future__ import annotations

import itertools

import pytest
import torch

from trainables.tensors.mask import Mask, from_row, on_path, ones, pack_bits, to_row, unpack_bits, useful_units
from trainables.tensors.mlp import MLP

SPEC = MLP((3, 4, 4, 2), copies=2, extra={"log_std": 2})


def random_mask(density: float, spec: MLP = SPEC, members: int = 3, seed: int = 0) -> Mask:
    made = torch.Generator().manual_seed(seed)
    return [(torch.rand(members, spec.copies, n_out, n_in, generator=made) < density).float() for n_in, n_out in spec.layers]


def path_weights(mask: Mask, member: int) -> list[set[tuple[int, ...]]]:
    """Per layer the (copy, row, column) of weights on a path, by walking every path from an input to an output."""
    found: list[set[tuple[int, ...]]] = [set() for _ in mask]
    units = [mask[0].shape[-1], *(layer.shape[-2] for layer in mask)]
    for copy in range(mask[0].shape[1]):
        for path in itertools.product(*(range(n) for n in units)):
            if all(mask[i][member, copy, path[i + 1], path[i]] for i in range(len(mask))):
                for i in range(len(mask)):
                    found[i].add((copy, path[i + 1], path[i]))
    return found


def hand_made() -> Mask:
    """2 -> 3 -> 2 -> 1, one copy. Kept: input 0 to units 0 and 1; input 1 to none; unit 0 to unit 0; unit 2 (not fed) to unit 0 and
    unit 1; unit 0 to the output. On a path: input 0 -> 0 -> 0 -> output."""
    first = torch.tensor([[1.0, 0], [1, 0], [0, 0]])
    second = torch.tensor([[1.0, 0, 1], [0, 0, 1]])
    third = torch.tensor([[1.0, 0]])
    return [layer[None, None] for layer in (first, second, third)]


@pytest.mark.parametrize("density", [0.15, 0.3, 0.6])
@pytest.mark.parametrize("seed", range(4))
def test_on_path_is_what_walking_every_path_finds(density: float, seed: int) -> None:
    mask = random_mask(density, seed=seed)
    path = on_path(mask)
    for member in range(3):
        for layer, indices in zip(path, path_weights(mask, member), strict=True):
            assert {tuple(index) for index in layer[member].nonzero().tolist()} == indices


def walked(mask: Mask, copy: int) -> list[set[tuple[int, int]]]:
    """Per layer the (row, column) of the first member's weights on a path of a residual network, by walking: past a block, or into it."""
    layers = [layer[0, copy] for layer in mask]
    found: list[set[tuple[int, int]]] = [set() for _ in layers]

    def walk(layer: int, unit: int, trail: list[tuple[int, int, int]]) -> None:
        if layer == len(layers):
            for at, row, column in trail:
                found[at].add((row, column))
            return
        if layer % 2 and layer + 1 < len(layers):
            walk(layer + 2, unit, trail)
        for row in layers[layer][:, unit].nonzero().flatten().tolist():
            walk(layer + 1, row, [*trail, (layer, row, unit)])

    for unit in range(layers[0].shape[1]):
        walk(0, unit, [])
    return found


@pytest.mark.parametrize("density", [0.1, 0.25, 0.5])
@pytest.mark.parametrize("seed", range(3))
def test_on_path_of_a_residual_network_is_what_walking_finds(density: float, seed: int) -> None:
    mask = random_mask(density, MLP((3, 2), copies=2).of_width(2, 2), members=1, seed=seed)
    for copy in range(2):
        for layer, wanted in zip(on_path(mask, residual=True), walked(mask, copy), strict=True):
            assert {(row, column) for row, column in layer[0, copy].nonzero().tolist()} == wanted


def test_a_unit_is_useful_where_a_path_leads_from_it_to_an_output() -> None:
    useful = [layer.flatten().tolist() for layer in useful_units(hand_made())]
    assert useful == [[True, True], [True, False, True], [True, False], [True]]


def test_ones_keeps_every_weight() -> None:
    mask = ones(SPEC, 3)
    assert [layer.shape for layer in mask] == [(3, 2, 4, 3), (3, 2, 4, 4), (3, 2, 2, 4)]
    assert sum(float(layer.sum()) for layer in mask) == 3 * sum(SPEC.weights_per_layer)


def test_rows_hold_the_masks_where_the_weights_are_and_ones_elsewhere() -> None:
    mask = random_mask(0.4)
    row = to_row(SPEC, mask)
    assert row.shape == (3, SPEC.row)
    views = SPEC.views(row)
    for index, layer in enumerate(mask):
        assert torch.equal(views[f"weight.{index}"], layer)
        assert (views[f"bias.{index}"] == 1).all()
    assert (views["log_std"] == 1).all()
    assert float(row.sum()) == sum(float(layer.sum()) for layer in mask) + 3 * (SPEC.row - sum(SPEC.weights_per_layer))
    for found, wanted in zip(from_row(SPEC, row), mask, strict=True):
        assert torch.equal(found, wanted)


@pytest.mark.parametrize("density", [0.0, 0.4, 1.0])
def test_bits_survive_packing(density: float) -> None:
    mask = random_mask(density)
    packed = [pack_bits(mask, member) for member in range(3)]
    assert all(len(bits) == -(-sum(SPEC.weights_per_layer) // 8) for bits in packed)
    for found, wanted in zip(unpack_bits(SPEC, packed), mask, strict=True):
        assert torch.equal(found, wanted)
