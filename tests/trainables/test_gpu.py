"""What only a GPU can show, on one: the executions' numbers, recorded updates, memory. `make test-gpu`, which
fails without a GPU; other runs skip them there."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from tests.stacks import Rows, World, assert_same, small_trial
from trainables import execution as executions
from trainables import plugins
from trainables.agent import Agent
from trainables.datasets.minibatches import minibatches_of
from trainables.datasets.table import load_table
from trainables.errors import UserError
from trainables.native import cuda
from trainables.reports import Evaluated, Finished, Report
from trainables.run import run_stack
from trainables.tensors.mlp import MLP
from trainables.tensors.optim import Adam
from trainables.tensors.streams import BLOCK
from trainables.training import memory
from trainables.training.checkpoint import newest
from trainables.training.updates import WARM_UP, Updates
from trainables.trial import Stack, Trial

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")

CELLS = (("dense", 0.0, 0), ("snip", 0.7, 1), ("snip", 0.5, 0))
WIDE = {"hidden": (64, 64), "batch_size": 128}


@pytest.mark.parametrize("shape", [(3, 256, 256), (2, 33, 100), (5, 1, 4), (1, 300, 68)])
def test_the_kernels_compute_what_torch_does(shape: tuple[int, int, int]) -> None:
    n, b, h = shape
    width = 2 * h + 16  # of a row with other things in it
    x, rows, y = (torch.randn(size, device="cuda") for size in (shape, (n, width), shape))
    x[0, 0, 0], y[0, 0, 1] = torch.nan, torch.nan
    bias, weight, y = rows[:, 4 : 4 + h], rows[:, 8 + h : 8 + 2 * h].unsqueeze(1), y.relu()
    wanted = (x + bias.unsqueeze(1)).relu()
    assert cuda.serves(x, bias, weight), "they were not compiled"
    torch.testing.assert_close(cuda.rectify(x.clone(), bias), wanted, rtol=0, atol=0, equal_nan=True)
    outer = torch.randn(n, b, 1, device="cuda")
    for gradient, found in (
        (torch.nan_to_num(x), lambda sums: cuda.gate(torch.nan_to_num(x), y, sums)),
        (outer * weight, lambda sums: cuda.gate_outer(outer, weight, y, sums)),
    ):
        gated = torch.ops.aten.threshold_backward(gradient, y, 0)
        into = torch.full_like(rows, 7)
        torch.testing.assert_close(found(None), gated, rtol=1e-6, atol=1e-6)
        torch.testing.assert_close(found(into[:, 4 : 4 + h]), gated, rtol=1e-6, atol=1e-6)
        torch.testing.assert_close(into[:, 4 : 4 + h], gated.sum(1), rtol=1e-4, atol=1e-4)
        assert (into[:, :4] == 7).all()
        assert (into[:, 4 + h :] == 7).all()


def test_adams_kernel_is_torchs_adam() -> None:
    rates, start = torch.tensor([[3e-4], [1e-2], [0.0]], device="cuda"), torch.randn(3, 80, device="cuda")
    ours, theirs = start.clone(), [row.clone().requires_grad_() for row in start]
    optimizer, factor = Adam(ours, rates, recorded=True), torch.tensor([0.5], dtype=torch.float64, device="cuda")
    references = [torch.optim.Adam([row], lr=float(rate) / 2) for row, rate in zip(theirs, rates, strict=True)]
    for update in range(60):
        gradient = torch.randn(3, 80, device="cuda") * 10.0 ** (update % 8 - 5)
        gradient[:, ::5] = 0
        optimizer.minimize(gradient, factor)
        for row, own, reference in zip(theirs, gradient, references, strict=True):
            row.grad = own.clone()
            reference.step()
    for row, found, before in zip(theirs, ours, start, strict=True):
        torch.testing.assert_close(found, row.detach(), rtol=0, atol=max(2e-5 * float((found - before).abs().max()), 1e-9))
    assert optimizer.count == 60


def world(algorithm: str, device: str = "cuda", execution: str = "") -> World:
    trials = [small_trial(algorithm, pruner, sparsity, seed) for pruner, sparsity, seed in CELLS]
    made = World(trials, device=device, recorded=True)
    made.execution = execution or "auto"
    return made.start()


def on_cpu(rows: Rows) -> Rows:
    return {name: row.cpu() for name, row in rows.items()}


def distance(found: Tensor, wanted: Tensor) -> float:
    return float((found.double() - wanted.double()).norm() / wanted.double().norm().clamp_min(1e-12))


@pytest.mark.parametrize("algorithm", plugins.names("algorithms"))
def test_a_graph_repeats_the_update_bit_for_bit(algorithm: str) -> None:
    first, stop = BLOCK - 9, BLOCK + 30  # the draws' block is filled again in between
    made, repeated = world(algorithm), world(algorithm)
    made.train(first, stop)
    updates = Updates(repeated.agent, repeated.data)
    updates.run(first, stop)
    assert updates.recordings, "nothing was recorded"
    assert all(repeat is not None for repeat, _ in updates.recordings.values())
    assert_same(repeated.rows(), made.rows(), algorithm)
    assert repeated.counts() == made.counts()


@pytest.mark.parametrize("algorithm", plugins.names("algorithms"))
def test_masks_and_updates_are_those_of_the_cpu_but_for_rounding(algorithm: str) -> None:
    there, here = world(algorithm, execution="dense"), world(algorithm, "cpu", execution="dense")
    for name, layers in here.masks.items():
        for own, other in zip(layers, there.masks[name], strict=True):
            assert torch.equal(own, other.cpu()), f"{name}: the masks differ"
    rows = on_cpu(there.rows())
    for name, row in here.rows().items():
        assert distance(rows[name], row) < 1e-6, f"{name} before the first update"
    there.train(0, 6)
    here.train(0, 6)
    rows = on_cpu(there.rows())
    for name, row in here.rows().items():
        assert distance(rows[name], row) < 1e-3, name


@pytest.mark.parametrize("algorithm", plugins.names("algorithms"))
def test_what_auto_takes_is_dense_but_for_rounding(algorithm: str) -> None:
    fast, dense = world(algorithm), world(algorithm, execution="dense")
    able = [not executions.cannot("fused", spec) for spec in fast.agent.specs.values()]  # not with layer normalization, as in some critics
    assert fast.agent.execution == ("fused" if all(able) else "dense+fused")
    fast.train(0, 6)
    dense.train(0, 6)
    for name, row in dense.rows().items():
        assert distance(fast.rows()[name], row) < 1e-3, name


def trial_on(hopper: str, **more: object) -> Trial:
    given = {"dataset": hopper, "algorithm": "td3_bc", "updates": 200, "evaluations": 2, "episodes": 2, "hyper": WIDE}
    return Trial(**(given | more))  # type: ignore[arg-type]


def rows_at(storage: Path, stack: Stack) -> Rows:
    table = load_table(stack.lead.dataset)
    agent = Agent(plugins.load("algorithms", stack.lead.algorithm), stack, table.observation_size, table.action_size)
    saved = newest(storage, stack, agent.specs)
    assert saved is not None
    assert saved.update == stack.lead.updates
    return dict(saved.rows)


def test_a_run_that_was_interrupted_ends_as_one_that_was_not(hopper: str, tmp_path: Path) -> None:
    stack = Stack(tuple(trial_on(hopper, pruner="snip", sparsity=0.8, seed=seed) for seed in range(4)))
    whole = list(run_stack(stack, tmp_path / "whole", device="cuda", checkpoint_every=50))
    for report in run_stack(stack, tmp_path / "cut", device="cuda", checkpoint_every=50):
        if isinstance(report, Evaluated):  # in the middle
            break
    rest = list(run_stack(stack, tmp_path / "cut", device="cuda", checkpoint_every=50))
    assert isinstance(whole[-1], Finished)
    assert whole[-1].execution == "fused"
    assert_same(rows_at(tmp_path / "cut", stack), rows_at(tmp_path / "whole", stack))

    def last(reports: list[Report]) -> list[list[float]]:
        return [report for report in reports if isinstance(report, Evaluated)][-1].episodes

    assert last(rest) == last(whole)


def test_tf32_rounds_and_float32_does_not(hopper: str) -> None:
    """The same actions to 1e-5 without it; others, but near, with it."""
    losses = {}
    stack = Stack((trial_on(hopper, algorithm="bc", updates=1, evaluations=1, hyper={}),))
    for device, tf32 in (("cpu", False), ("cuda", False), ("cuda", True)):
        list(run_stack(stack, device=device, tf32=tf32))  # sets how products round
        table = load_table(hopper)
        agent = Agent(plugins.load("algorithms", "bc"), stack, table.observation_size, table.action_size, device)
        agent.build()
        losses[device, tf32] = agent.actor(torch.ones(1, 64, table.observation_size, device=device)).detach().double().cpu()
    torch.set_float32_matmul_precision("highest")
    exact = losses["cpu", False]
    assert (losses["cuda", False] - exact).abs().max() < 1e-5
    assert 1e-6 < (losses["cuda", True] - exact).abs().max() < 1e-2


@pytest.mark.parametrize("algorithm", ["td3_bc", "iql", "cql"])
def test_a_stack_takes_no_more_memory_than_was_counted(algorithm: str, hopper: str) -> None:
    members = 8
    trials = [trial_on(hopper, algorithm=algorithm, seed=seed, hyper={}) for seed in range(members)]
    room = members * memory.member_bytes(trials[0])
    table, module = load_table(hopper), plugins.load("algorithms", algorithm)
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    stack = Stack(tuple(trials))
    agent = Agent(module, stack, table.observation_size, table.action_size, "cuda")
    agent.build()
    data = minibatches_of(module, stack, table, "cuda")
    Updates(agent, data).run(0, 2 * WARM_UP + 4)
    torch.cuda.synchronize()
    taken = torch.cuda.max_memory_allocated() - before
    assert taken < room + table.rows.nbytes + 64e6, f"{taken / 1e6:.0f} MB where {room / 1e6:.0f} were counted"


def test_stacked_is_alone_but_for_rounding(hopper: str) -> None:
    trials = [trial_on(hopper, seed=seed, updates=20, evaluations=1) for seed in range(5)]
    table, module = load_table(hopper), plugins.load("algorithms", "td3_bc")

    def rows_of(stack: Stack) -> Rows:
        agent = Agent(module, stack, table.observation_size, table.action_size, "cuda")
        agent.build()
        Updates(agent, minibatches_of(module, stack, table, "cuda")).run(0, 20)
        return {name: row.detach().clone() for name, row in agent.rows().items()}

    together, alone = rows_of(Stack(tuple(trials))), rows_of(Stack((trials[3],)))
    for name, row in alone.items():
        assert distance(together[name][3:4], row) < 1e-3, name


PROGRAMS = ("bc", "td3_bc", "iql")


def launched(algorithm: str, device: str = "cuda") -> tuple[World, Updates]:
    made = world(algorithm, device, "onchip")
    updates = Updates(made.agent, made.data)
    assert updates.launches, "not in launches"
    return made, updates


@pytest.mark.parametrize("algorithm", PROGRAMS)
def test_updates_on_the_chip_are_those_of_the_cpu_and_of_fused(algorithm: str) -> None:
    there, updates = launched(algorithm)
    here, on_cpu_too = launched(algorithm, "cpu")
    fused = world(algorithm, execution="fused")
    updates.run(0, 6)
    on_cpu_too.run(0, 6)
    fused.train(0, 6)
    rows = on_cpu(there.rows())
    for name, row in here.rows().items():
        assert distance(rows[name], row) < 1e-3, f"{name}: the shim's"
        assert distance(rows[name], fused.rows()[name].cpu()) < 1e-3, f"{name}: fused's"
    for start in range(6, 106, 10):  # a gradient is compared from the same weights, because rounding makes trajectories diverge
        before, counts = there.rows(), there.counts()
        reference = world(algorithm, execution="dense").resume(there.masks, before, counts)
        reference.train(start, start + 1)
        updates.run(start, start + 1)
        after, wanted = there.rows(), reference.rows()
        for name in (name for name in before if name.startswith("adam.first/")):
            gradient, other = after[name] - 0.9 * before[name], wanted[name] - 0.9 * before[name]
            assert distance(gradient, other) < 1e-5 or not other.any(), f"{name} in update {start}"
        updates.run(start + 1, start + 10)


@pytest.mark.parametrize("algorithm", PROGRAMS)
def test_on_the_chip_bits_repeat_alone_interrupted_and_anew(algorithm: str) -> None:
    whole, updates = launched(algorithm)
    updates.run(0, 250)
    again, parts = launched(algorithm)
    parts.run(0, 33)
    resumed = world(algorithm, execution="onchip").resume(again.masks, again.rows(), again.counts())
    Updates(resumed.agent, resumed.data).run(33, 250)
    assert_same(resumed.rows(), whole.rows(), algorithm)
    trials = [small_trial(algorithm, pruner, sparsity, seed) for pruner, sparsity, seed in CELLS]
    for k, trial in enumerate(trials):
        alone = World([trial], "onchip", recorded=True, device="cuda").start()
        Updates(alone.agent, alone.data).run(0, 250)
        assert_same(alone.rows(), {name: row[k : k + 1] for name, row in whole.rows().items()}, trial.name)
    for name, rows in whole.rows().items():
        views = whole.agent.specs[name.split("/")[1]].views(rows)
        for index, layer in enumerate(whole.masks[name.split("/")[1]]):
            assert (views[f"weight.{index}"][layer == 0] == 0).all(), name


def test_a_network_that_does_not_fit_on_the_chip_is_refused_with_its_size() -> None:
    spec = MLP((23, 256, 256, 1), copies=2)
    rows = torch.zeros(1, spec.row, device="cuda")
    with pytest.raises(UserError, match=r"execution 'onchip' cannot compute \(23, 256, 256, 1\) with .* kB on the chip, where a block has"):
        executions.build("onchip", spec, rows, torch.ones_like(rows))
