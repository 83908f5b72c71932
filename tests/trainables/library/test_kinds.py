"""Kinds of layers: attention, convolutions, recurrent layers and tied weights are pruned; what is left out is named."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from tests.trainables.library.networks import network
from trainables.errors import UserError
from trainables.library import Masks, prune_at_init


class Attention(nn.Module):
    """A transformer's block, and attention with keys and values of other sizes."""

    def __init__(self) -> None:
        super().__init__()
        self.block = nn.TransformerEncoderLayer(8, 2, 16, dropout=0.0, batch_first=True)
        self.cross = nn.MultiheadAttention(8, 2, kdim=6, vdim=4, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        x = self.block(x)
        return self.cross(x, x[..., :6], x[..., :4], need_weights=False)[0]


class Recurrent(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.lstm, self.gru, self.cell = nn.LSTM(8, 6, 2, batch_first=True), nn.GRU(6, 5, batch_first=True), nn.GRUCell(5, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.cell(self.gru(self.lstm(x)[0])[0].mean(1))


class Convolutions(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.down, self.up = nn.Conv1d(10, 8, 3, groups=2), nn.ConvTranspose1d(8, 3, 3, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        return self.up(self.down(x).relu())


class Tied(nn.Module):
    """Two layers of one weight, or one layer twice."""

    def __init__(self, twice: bool) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first = nn.Linear(8, 8, bias=False)
        if not twice:
            second = nn.Linear(8, 8, bias=False)
            second.weight = self.first.weight
            self.layers = [self.first, second]
            self.second = second
        else:
            self.layers = [self.first, self.first]

    def forward(self, x: Tensor) -> Tensor:
        return self.layers[1](self.layers[0](x).tanh())


def pruned(module: nn.Module, pruner: str = "snip", density: float = 0.3) -> tuple[Masks, Callable[[], Tensor]]:
    made = torch.Generator().manual_seed(1)
    data = torch.randn(16, 10, 8, generator=made)

    def loss(batch: Tensor) -> Tensor:
        return module(batch).square().mean()

    return prune_at_init(module, loss, [data], density, pruner, allow_disconnected=True), lambda: loss(data)


def parameters(module: nn.Module) -> dict[str, Tensor]:
    return dict(module.named_parameters())


@pytest.mark.parametrize("pruner", ["snip", "grasp", "prospr", "iterative_snip", "random_erk"])
@pytest.mark.parametrize(
    ("kind", "names"),
    [
        (
            Attention,
            "block.self_attn.in_proj_weight block.self_attn.out_proj.weight block.linear1.weight block.linear2.weight "
            "cross.q_proj_weight cross.k_proj_weight cross.v_proj_weight cross.out_proj.weight",
        ),
        (
            Recurrent,
            "lstm.weight_ih_l0 lstm.weight_hh_l0 lstm.weight_ih_l1 lstm.weight_hh_l1 gru.weight_ih_l0 gru.weight_hh_l0 "
            "cell.weight_ih cell.weight_hh",
        ),
        (Convolutions, "down.weight up.weight"),
    ],
)
def test_weights_of_all_kinds_of_layers_are_pruned_and_stay_pruned(kind: type[nn.Module], names: str, pruner: str) -> None:
    torch.manual_seed(0)
    module = kind()
    masks, loss = pruned(module, pruner)
    assert list(masks.of["network"]) == names.split()
    assert masks.density("network") == pytest.approx(0.3, abs=3e-3)
    optimizer = torch.optim.Adam(module.parameters(), lr=1e-2)
    before = loss().item()
    for _ in range(3):
        optimizer.zero_grad()
        loss().backward()
        optimizer.step()
    assert loss() < before
    masks.check(optimizer)
    for name, mask in masks.of["network"].items():
        assert (parameters(module)[name][mask == 0] == 0).all()
        assert (parameters(module)[name][mask == 1] != 0).all()


@pytest.mark.parametrize("pruner", ["snip", "grasp", "prospr", "force"])
def test_a_tied_weight_is_pruned_once_and_scored_in_all_its_layers(pruner: str) -> None:
    tied, twice = Tied(twice=False), Tied(twice=True)
    masks, loss = pruned(tied, pruner)
    wanted, _ = pruned(twice, pruner)
    assert list(masks.of["network"]) == ["first.weight"]
    assert torch.equal(masks.of["network"]["first.weight"], wanted.of["network"]["first.weight"])
    loss().backward()
    masks.check()
    assert tied.second.weight is tied.first.weight


def test_an_embedding_that_is_tied_to_an_output_layer_is_pruned_with_it() -> None:
    embedding, output = nn.Embedding(5, 8), nn.Linear(8, 5)
    output.weight = embedding.weight
    module = nn.Sequential(embedding, nn.Linear(8, 8), output)
    masks = prune_at_init(module, lambda batch: module(batch).square().mean(), [torch.arange(5)], 0.5, "prospr")
    assert list(masks.of["network"]) == ["1.weight", "2.weight"]
    assert (embedding.weight == 0).any()
    masks.check()


def test_what_is_left_out_is_named_with_its_kind() -> None:
    module = network()
    module.add_module("embedding", nn.Embedding(3, 2))
    module.add_module("normed", nn.utils.parametrizations.weight_norm(nn.Linear(3, 3)))
    module.register_parameter("positions", nn.Parameter(torch.zeros(2, 2)))
    module.register_parameter("scale", nn.Parameter(torch.zeros(2)))
    module[3].weight.requires_grad_(False)
    with pytest.warns(
        UserWarning,
        match=re.escape(
            "weights of 'network' that random_uniform leaves out, and that stay whole: 3.weight (frozen), positions (Sequential), "
            "embedding.weight (Embedding), normed.parametrizations.weight.original0 (ParametrizationList), "
            "normed.parametrizations.weight.original1 (ParametrizationList)"
        ),
    ):
        masks = prune_at_init(module, lambda batch: batch.sum(), [torch.ones(1)], 0.5, "random_uniform")
    assert list(masks.of["network"]) == ["0.weight", "5.weight"]
    assert masks.left_out["network"]["3.weight"] == "frozen"


@pytest.mark.parametrize(
    ("module", "says"),
    [
        (nn.Embedding(3, 2), r"network 'network' has no prunable weights, only weight \(Embedding\); prunable are those of Linear, Conv1d"),
        (nn.Linear(2, 2).requires_grad_(False), r"only weight \(frozen\)"),
        (nn.LayerNorm(3), "none of two or more axes"),
        (nn.Sequential(nn.LazyLinear(3)), "'0.weight' has no shape yet: call the module on a batch first"),
    ],
)
def test_a_network_without_prunable_weights_is_refused(module: nn.Module, says: str) -> None:
    with pytest.raises(UserError, match=says):
        pruned(module)
