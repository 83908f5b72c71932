"""Recorded updates as on a GPU, on a CPU: a tape of torch's operations stands in for the CUDA graph and has its semantics.

It repeats the same operations with the same numbers on the same memory, so whatever an update takes from Python would be frozen.
"""

from __future__ import annotations

import pytest
import torch

from tests.stacks import World, assert_same, small_trial
from trainables import execution as executions
from trainables import plugins
from trainables.agent import Agent
from trainables.tensors import native_ops
from trainables.tensors.streams import BLOCK
from trainables.tensors.tape import Tape
from trainables.training.updates import WARM_UP, Losses, Repeat, Updates, Work


class Recorder:
    """In place of trainables.training.updates.cuda_graph."""

    def __init__(self, agent: Agent) -> None:
        self.agent, self.tapes = agent, 0

    def __call__(self, work: Work) -> tuple[Repeat, Losses]:
        tape = Tape()
        with tape:
            losses = work()
        assert not tape.frozen, f"waits for the device: {tape.frozen}"
        self.tapes += 1
        return tape.repeat, losses


@pytest.fixture(autouse=True)
def as_on_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(native_ops, "serves", lambda tensor: False)


def world(algorithm: str, recorded: bool = True, execution: str = "fused") -> World:
    trials = [
        small_trial(algorithm, pruner, sparsity, seed) for pruner, sparsity, seed in (("dense", 0.0, 0), ("snip", 0.7, 1), ("snip", 0.5, 0))
    ]
    specs = World(trials).agent.specs.values()
    if any(executions.cannot(execution, spec) for spec in specs):
        execution = "dense"
    return World(trials, execution, recorded=recorded).start()


@pytest.mark.parametrize("execution", ["fused", "compact"])
@pytest.mark.parametrize("algorithm", plugins.names("algorithms"))
def test_recorded_updates_are_the_updates(algorithm: str, execution: str) -> None:
    first, stop = BLOCK - 9, BLOCK + 9  # the draws' block is filled again in between
    made, repeated = world(algorithm, execution=execution), world(algorithm, execution=execution)
    made.train(first, stop)
    recorder = Recorder(repeated.agent)
    updates = Updates(repeated.agent, repeated.data, recorder)
    losses = updates.run(first, stop - 1) | updates.run(stop - 1, stop)
    assert 1 <= recorder.tapes <= 2
    assert_same(repeated.rows(), made.rows(), algorithm)
    assert repeated.counts() == made.counts()
    assert all(torch.isfinite(loss).all() for loss in losses.values())


@pytest.mark.parametrize("algorithm", plugins.names("algorithms"))
def test_they_are_those_of_an_agent_that_is_not_recorded(algorithm: str) -> None:
    plain, recorded = world(algorithm, recorded=False), world(algorithm)
    plain.train(5, 12)
    recorded.train(5, 12)
    for name, row in recorded.rows().items():
        torch.testing.assert_close(row, plain.rows()[name], rtol=1e-4, atol=1e-6)


def test_a_network_that_is_built_anew_is_recorded_anew() -> None:
    made, repeated = world("td3_bc"), world("td3_bc")
    updates = Updates(repeated.agent, repeated.data, Recorder(repeated.agent))
    for one, train in ((made, made.train), (repeated, updates.run)):
        train(0, 12)
        rows, counts = one.rows(), one.counts()
        one.resume(one.masks, rows, counts)
        train(12, 24)
    assert_same(repeated.rows(), made.rows())


def test_what_python_decides_is_asked_by_every() -> None:
    repeated = world("td3_bc")
    updates = Updates(repeated.agent, repeated.data, Recorder(repeated.agent))
    updates.run(0, 2 * WARM_UP + 3)
    assert set(updates.recordings) == {(False,), (True,)}
    assert repeated.counts()["critic"] == 2 * repeated.counts()["actor"] + 1
