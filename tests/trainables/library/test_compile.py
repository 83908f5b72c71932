"""torch.compile: masks are those of the module as it was written, and hold in the compiled one, without a graph of their own.

The backend is the one that traces and differentiates as the default does, and leaves out its minute of code generation."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn
from torch._dynamo.utils import counters

from tests.trainables.library.networks import batches, loss_of, network, train, weights
from trainables.errors import UserError
from trainables.library import prune_at_init


@pytest.mark.parametrize("pruner", ["snip", "grasp", "prospr"])
@pytest.mark.parametrize("compiled_first", [True, False])
def test_a_compiled_module_is_pruned_and_stays_pruned(pruner: str, compiled_first: bool) -> None:
    torch._dynamo.reset()
    plain, module = network(), network()
    wanted = prune_at_init(plain, loss_of(plain), batches(2), 0.2, pruner)

    compiled = torch.compile(module, backend="aot_eager", fullgraph=True)
    if compiled_first:
        loss_of(compiled)(batches()[0]).backward()
        module.zero_grad()
    masks = prune_at_init(compiled, loss_of(compiled), batches(2), 0.2, pruner)
    assert masks.of.keys() == wanted.of.keys()
    assert all(torch.equal(masks.of["network"][layer], mask) for layer, mask in wanted.of["network"].items())

    counters.clear()
    optimizers = [torch.optim.Adam(each.parameters(), lr=1e-2) for each in (plain, compiled)]
    train(plain, optimizers[0])
    train(compiled, optimizers[1])
    assert counters["stats"].get("unique_graphs", 0) == (0 if compiled_first else 1)
    assert torch.allclose(weights(module), weights(plain), atol=1e-6)
    masks.check(optimizers[1])
    other = copy.deepcopy(module)
    with torch.no_grad():
        module[0].weight.fill_(1)
    with pytest.raises(UserError, match="not 0 any more"):
        train(compiled, optimizers[1])
    masks.attach(torch.compile(other, backend="aot_eager"))


def test_masks_of_a_compiled_part_fit_the_module_as_it_was_written() -> None:
    module = nn.Sequential(torch.compile(network(), backend="aot_eager"), nn.Linear(3, 3))
    masks = prune_at_init(module, loss_of(module), batches(), 0.2)
    assert list(masks.of["network"]) == ["0.0.weight", "0.3.weight", "0.5.weight", "1.weight"]
    plain = nn.Sequential(network(1), nn.Linear(3, 3))
    masks.attach(plain, zero=True)
