"""Every algorithm's update on torch's `meta` device, which has types, shapes and devices but no numbers: in place of a GPU.

An operation that mixes it with the CPU raises there as it would on a GPU. The fused Adam of a GPU reads its learning rate as a float,
whatever it is given, so all that it is given is checked.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from tests.stacks import made_up_table, small_trial
from trainables import plugins
from trainables.agent import Agent
from trainables.datasets.minibatches import minibatches_of
from trainables.trial import Stack

KINDS = ("parameters", "gradients", "first moments", "second moments")


@pytest.fixture
def steps(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many members each call of the fused Adam had, which on `meta` only checks what it is given."""
    seen: list[int] = []

    def fused(*lists: list[Tensor], lr: Tensor, **options: Any) -> None:
        *rows, _, counts = lists
        for kind, tensors in zip((*KINDS, "counts"), (*rows, counts), strict=True):
            assert {(t.dtype, t.device.type) for t in tensors} == {(torch.float32, "meta")}, kind
        assert all(len({t.shape for t in alike}) == 1 for alike in zip(*rows, strict=True))
        assert all(count.ndim == 0 for count in counts)
        assert (lr.dtype, lr.device.type, lr.ndim) == (torch.float32, "meta", 0)
        assert all(isinstance(options[name], float | int) for name in ("beta1", "beta2", "weight_decay", "eps"))
        seen.append(len(counts))

    numbers = Tensor.tolist
    monkeypatch.setattr(torch, "_fused_adam_", fused)
    # The optimizer sorts members by learning rate when it is made, the one look at numbers before the loop.
    monkeypatch.setattr(Tensor, "tolist", lambda tensor: [0.0] * len(tensor) if tensor.is_meta else numbers(tensor))
    return seen


@pytest.mark.parametrize("recorded", [True, False])
@pytest.mark.parametrize("algorithm", plugins.names("algorithms"))
def test_updates_and_policies_stay_on_their_device_and_in_float32(algorithm: str, recorded: bool, steps: list[int]) -> None:
    stack = Stack(tuple(small_trial(algorithm, seed=seed) for seed in (0, 1)))
    module, table = plugins.load("algorithms", algorithm), made_up_table()
    agent = Agent(module, stack, table.observation_size, table.action_size, "meta", recorded)
    agent.build()
    data = minibatches_of(module, stack, table, "meta")
    for update in range(4):
        agent.at(update)
        losses = module.update(agent, data.draw(agent.streams, agent.hyper.batch_size))
        assert all(loss.is_meta and loss.shape == (2,) for loss in losses.values())
    assert len(steps) >= 4
    assert set(steps) == {2}
    actions = module.act(agent, torch.zeros(2, 7, table.observation_size, device="meta"))
    assert (actions.is_meta, actions.dtype, actions.shape) == (True, torch.float32, (2, 7, table.action_size))
    assert all(row.is_meta and row.dtype == torch.float32 for row in agent.rows().values())
