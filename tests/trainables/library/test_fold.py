"""Folding: plain modules that compute what the pruned ones do, and smaller ones where whole units are dead."""

from __future__ import annotations

import itertools
import pickle
from collections.abc import Callable
from functools import partial

import pytest
import torch
from torch import Tensor, nn

from tests.trainables.library.networks import batches, loss_of, network, train, weights
from trainables.errors import UserError
from trainables.library import Masks, prune_at_init


def mlp(*sizes: int, activation: Callable[[], nn.Module] = nn.ReLU, bias: bool = True) -> nn.Sequential:
    torch.manual_seed(0)
    layers = [layer for n_in, n_out in itertools.pairwise(sizes) for layer in (nn.Linear(n_in, n_out, bias), activation())]
    return nn.Sequential(*layers[:-1], nn.Tanh())


def held(module: nn.Sequential, *masks: list[list[int]]) -> Masks:
    """Given masks, held by a module."""
    names = [f"{index}.weight" for index, layer in enumerate(module) if isinstance(layer, nn.Linear)]
    of = {name: torch.tensor(mask, dtype=torch.float32) for name, mask in zip(names, masks, strict=True)}
    return Masks({"network": of}).attach(module, zero=True)


def sizes(module: nn.Module) -> list[tuple[int, int]]:
    return [(layer.out_features, layer.in_features) for layer in module.modules() if isinstance(layer, nn.Linear)]


def test_a_folded_network_is_plain_torch_and_a_copy() -> None:
    module = network()
    masks = prune_at_init(module, loss_of(module), batches(), 0.2)
    train(module, torch.optim.Adam(module.parameters(), lr=1e-2))
    plain = masks.fold()["network"]
    given = batches()[0][0]
    assert torch.equal(plain(given), module(given))
    assert b"trainables" not in pickle.dumps(plain)
    train(plain, torch.optim.Adam(plain.parameters(), lr=1e-2))
    removed = torch.cat([mask.flatten() for mask in masks.of["network"].values()]) == 0
    assert (weights(plain)[removed] != 0).any()
    masks.check()


@pytest.mark.parametrize("activation", [nn.ReLU, partial(nn.ReLU, inplace=True), nn.Tanh, nn.Softplus])
@pytest.mark.parametrize("bias", [True, False])
def test_dead_units_are_taken_out_and_their_constants_kept(activation: Callable[[], nn.Module], bias: bool) -> None:
    """The 2nd unit of the middle has no input, the 3rd has no output, and so the 1st of the first layer leads nowhere."""
    module = mlp(2, 3, 4, 1, activation=activation, bias=bias)
    masks = held(module, [[1, 1], [1, 0], [0, 1]], [[0, 1, 0], [0, 0, 0], [1, 0, 0], [0, 1, 1]], [[1, 1, 0, 1]])
    small = masks.fold(smaller=True)["network"]
    constant = activation()(torch.zeros(1)).item() != 0
    middle = 3 if not bias and constant else 2  # without biases, there is no place for a constant
    assert sizes(small) == [(2, 2), (middle, 2), (1, middle)]
    given = torch.randn(64, 2)
    assert torch.allclose(small(given), module(given), atol=1e-6)
    assert sizes(module) == [(3, 2), (4, 3), (1, 4)]


def test_a_layer_in_which_all_is_dead_stays() -> None:
    module = mlp(2, 3, 1)
    small = held(module, [[0, 0]] * 3, [[1, 1, 1]]).fold(smaller=True)["network"]
    assert sizes(small) == sizes(module)
    assert torch.equal(small(torch.ones(4, 2)), module(torch.ones(4, 2)))


class Twins(nn.Module):
    """What is not a row of linear layers stays whole: normalization between, layers that are used twice."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        shared = nn.Linear(64, 64)
        self.body = nn.Sequential(nn.Linear(5, 64), nn.LayerNorm(64), nn.ReLU(), shared, nn.ReLU(), nn.Linear(64, 64))
        self.head = nn.Sequential(shared, nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 2))

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.body(x))


def test_twin_critics_that_were_trained_become_smaller_and_compute_the_same() -> None:
    pair = [mlp(5, 64, 64, 1), Twins()]
    given = torch.randn(32, 5)

    def loss(batch: Tensor) -> Tensor:
        return (pair[0](batch).mean(1) - 1).square().mean() + (pair[1](batch).mean(1) - 1).square().mean()

    masks = prune_at_init({"critic": pair}, loss, [given], 0.03, allow_disconnected=True)
    optimizer = torch.optim.Adam([parameter for module in pair for parameter in module.parameters()], lr=1e-2)
    for _ in range(10):
        optimizer.zero_grad()
        loss(given).backward()
        optimizer.step()
    small = masks.fold(smaller=True)["critic"]
    assert isinstance(small, list)
    for plain, module in zip(small, pair, strict=True):
        assert torch.allclose(plain(given), module(given), atol=1e-5)
    assert sizes(small[0])[0][0] < 64
    assert sizes(small[1])[:2] == [(64, 5), (64, 64)]
    assert sizes(small[1])[-1][1] < 64


def test_what_is_not_pruned_any_more_is_not_folded() -> None:
    module = network()
    masks = prune_at_init(module, loss_of(module), batches(), 0.2)
    with torch.no_grad():
        module[3].weight.fill_(1)
    with pytest.raises(UserError, match=r"removed weights of layer '3.weight' of 'network' are not 0"):
        masks.fold()
    masks.release()
    with pytest.raises(UserError, match="hold no modules"):
        masks.fold()
