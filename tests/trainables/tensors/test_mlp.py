from __future__ import annotations

import math
import re

import pytest
import torch
from torch import Tensor, nn

from tests.stacks import World, small_trial
from trainables.errors import UserError
from trainables.execution import dense
from trainables.tensors.mlp import MLP, ROW_ALIGNMENT

SPECS = [
    MLP((3, 8, 7, 2), output="tanh", extra={"log_std": 2, "other": 3}),
    MLP((5, 6, 1), copies=2),
    MLP((4, 3)),
    MLP((4, 8, 6, 1), copies=2, norm="after"),
    MLP((4, 8, 6, 1), copies=2, norm="before"),
]


def random_rows(spec: MLP, members: int = 3) -> Tensor:
    return torch.randn(members, spec.row, generator=torch.Generator().manual_seed(0))


def plain(spec: MLP, rows: Tensor, member: int, copy: int) -> nn.Sequential:
    """The same network of torch's own layers."""
    views = spec.views(rows)
    layers: list[nn.Module] = []
    for index, (n_in, n_out) in enumerate(spec.layers):
        layer = nn.Linear(n_in, n_out, dtype=rows.dtype)
        with torch.no_grad():
            layer.weight.copy_(views[f"weight.{index}"][member, copy])
            layer.bias.copy_(views[f"bias.{index}"][member, copy])
        layers += [layer, nn.ReLU()]
        if spec.norm and index < len(spec.layers) - 1:
            norm = nn.LayerNorm(n_out, eps=1e-6, dtype=rows.dtype)
            with torch.no_grad():
                norm.weight.copy_(1 + views[f"gain.{index}"][member, copy])
                norm.bias.copy_(views[f"shift.{index}"][member, copy])
            layers.insert(len(layers) if spec.norm == "after" else -1, norm)
    layers.pop()
    return nn.Sequential(*layers, nn.Tanh()) if spec.output == "tanh" else nn.Sequential(*layers)


@pytest.mark.parametrize("spec", SPECS)
def test_segments_fill_the_row_without_gap_or_overlap(spec: MLP) -> None:
    places = torch.zeros(spec.row, dtype=torch.int64)
    for offset, shape in spec.segments.values():
        places[offset : offset + math.prod(shape)] += 1
    assert (places[: spec.used] == 1).all()
    assert (places[spec.used :] == 0).all()
    assert spec.row % ROW_ALIGNMENT == 0
    assert 0 <= spec.row - spec.used < ROW_ALIGNMENT
    assert sum(spec.weights_per_layer) == sum(math.prod(s) for n, (_, s) in spec.segments.items() if n.startswith("weight"))


@pytest.mark.parametrize("spec", SPECS)
def test_views_share_the_rows_memory(spec: MLP) -> None:
    rows = random_rows(spec)
    for view in spec.views(rows).values():
        view.zero_()
    assert (rows[:, : spec.used] == 0).all()
    assert (rows[:, spec.used :] != 0).all()


@pytest.mark.parametrize("spec", SPECS)
def test_dense_is_torchs_own_layers_for_every_member_and_copy(spec: MLP) -> None:
    rows = random_rows(spec).double()
    network = dense.Network(spec, rows, torch.ones_like(rows))
    x = torch.randn(3, 9, spec.sizes[0], dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    found = network(x)
    assert found.shape == ((3, 9, spec.sizes[-1]) if spec.copies == 1 else (3, spec.copies, 9, spec.sizes[-1]))
    parts = network(x[..., :2], x[..., 2:])
    assert torch.equal(parts, found)
    for member in range(3):
        for copy in range(spec.copies):
            wanted = plain(spec, rows, member, copy)(x[member])
            torch.testing.assert_close(found[member] if spec.copies == 1 else found[member, copy], wanted, rtol=1e-10, atol=1e-10)
            torch.testing.assert_close(network(x, copy=copy)[member], wanted, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("spec", SPECS)
def test_the_initial_bound_is_torchs_default(spec: MLP) -> None:
    bound = random_rows(spec, 1)
    spec.initial_bound(bound)
    views = spec.views(bound)
    for index, (n_in, _) in enumerate(spec.layers):
        assert (views[f"weight.{index}"] == torch.tensor(1 / math.sqrt(n_in))).all()
        assert (views[f"bias.{index}"] == torch.tensor(1 / math.sqrt(n_in))).all()
    assert all((view == 0).all() for name, view in views.items() if not name.startswith(("weight", "bias")))
    assert (bound[:, spec.used :] == 0).all()


def test_initial_weights_are_distributed_as_torchs_and_differ_between_networks_copies_and_seeds() -> None:
    world = World([small_trial("td3_bc", seed=0, hyper={"hidden": (64, 64)}), small_trial("td3_bc", seed=1, hyper={"hidden": (64, 64)})])
    critic = world.agent.initial("critic")
    views = world.agent.specs["critic"].views(critic)
    for index, (n_in, n_out) in enumerate(world.agent.specs["critic"].layers):
        weights = views[f"weight.{index}"]
        bound = 1 / math.sqrt(n_in)
        reference = nn.Linear(n_in, n_out).weight.detach()
        assert weights.abs().max() <= bound
        if n_out > 1:
            assert weights.abs().max() > 0.98 * bound
            assert weights.std() == pytest.approx(float(reference.std()), rel=0.15)
        assert not torch.equal(weights[:, 0], weights[:, 1])
        assert not torch.equal(weights[0], weights[1])
    assert torch.equal(critic, world.agent.initial("critic"))
    assert torch.equal(critic[1:], World([small_trial("td3_bc", seed=1, hyper={"hidden": (64, 64)})]).agent.initial("critic"))
    assert not torch.equal(critic[:, :64], world.agent.initial("actor")[:, :64])


class SimBa(nn.Module):
    """SimBa as its paper draws it, of torch's own layers."""

    def __init__(self, inputs: int, width: int, blocks: int, outputs: int) -> None:
        super().__init__()
        self.embedding = nn.Linear(inputs, width)
        self.blocks = nn.ModuleList(
            nn.Sequential(nn.LayerNorm(width, eps=1e-6), nn.Linear(width, 4 * width), nn.ReLU(), nn.Linear(4 * width, width))
            for _ in range(blocks)
        )
        self.norm, self.head = nn.LayerNorm(width, eps=1e-6), nn.Linear(width, outputs)

    def forward(self, x: Tensor) -> Tensor:
        x = self.embedding(x)
        for block in self.blocks:
            x = x + block(x)
        return self.head(self.norm(x))


@pytest.mark.parametrize("blocks", [1, 2])
def test_simba_is_what_its_paper_draws(blocks: int) -> None:
    spec = MLP((5, *(8,) * (blocks + 1), 3), copies=2).built_as("simba")
    assert spec.sizes == (5, 8, *(32, 8) * blocks, 3)
    rows = random_rows(spec).double()
    views, network = spec.views(rows), dense.Network(spec, rows, torch.ones_like(rows))
    x = torch.randn(3, 9, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    for member in range(3):
        plain = SimBa(5, 8, blocks, 3).double()
        linear = [module for module in plain.modules() if isinstance(module, nn.Linear)]
        linear = [plain.embedding, *(layer for layer in linear if layer not in (plain.embedding, plain.head)), plain.head]
        norms = [*(block[0] for block in plain.blocks), plain.norm]
        with torch.no_grad():
            for index, layer in enumerate(linear):
                layer.weight.copy_(views[f"weight.{index}"][member, 1])
                layer.bias.copy_(views[f"bias.{index}"][member, 1])
            for index, norm in enumerate(norms):
                norm.weight.copy_(1 + views[f"gain.{2 * index}"][member, 1])
                norm.bias.copy_(views[f"shift.{2 * index}"][member, 1])
        torch.testing.assert_close(network(x)[member, 1], plain(x[member]))


def test_a_normalization_that_is_none_is_refused() -> None:
    with pytest.raises(UserError, match=r"norm True of a network is not one of: '', 'before', 'after'"):
        MLP((5, 8, 3), norm=True)  # type: ignore[arg-type]


@pytest.mark.parametrize("hidden", [(8,), (8, 12)])
def test_hidden_layers_that_cannot_be_blocks_are_refused(hidden: tuple[int, ...]) -> None:
    with pytest.raises(UserError, match=rf"needs two or more hidden layers of one width; .* has {re.escape(str(hidden))}"):
        MLP((5, *hidden, 3)).built_as("simba")
