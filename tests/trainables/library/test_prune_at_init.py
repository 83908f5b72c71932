"""Pruning any torch module: the same masks as in the core, and masks that hold under other people's training code."""

from __future__ import annotations

import copy
import os
import subprocess
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from tests.stacks import World, small_trial
from tests.trainables.library.networks import batches, loss_of, network, weights
from tests.trainables.pruners.test_prune import mlp
from trainables.errors import UserError
from trainables.library import PRUNERS, prune_at_init
from trainables.pruning.prune import prune
from trainables.tensors.streams import Streams

ROOT = Path(__file__).parents[3]


@pytest.mark.parametrize("pruner", ["snip", "grasp", "magnitude", "force", "iterative_snip"])
def test_the_masks_are_those_of_the_core(pruner: str) -> None:
    """The core draws a calibration batch a round; here all rounds see the same, so the core is given one batch again and again."""
    world = World([small_trial("bc", pruner, 0.4, seed=3)])
    given = world.data.draw(Streams([3], phase="calibration/"), 64)
    wanted = torch.cat([layer[0].flatten() for layer in prune(world.agent, world.stack, lambda streams, size: given)["actor"]])
    actor = mlp(world.agent.specs["actor"].views(world.agent.initial("actor")), 3, 0, tanh=True)
    masks = prune_at_init(actor, loss_of(actor), [(given.observations[0], given.actions[0])], 0.6, pruner)
    assert torch.equal(torch.cat([mask.flatten() for mask in masks.of["network"].values()]), wanted)


@pytest.mark.parametrize("pruner", ["random_erk", "random_uniform"])
def test_networks_get_random_masks_of_their_own_and_the_same_every_time(pruner: str) -> None:
    def masks(seed: int) -> tuple[Tensor, Tensor]:
        critics = {"q1": network(1), "q2": network(1)}
        found = prune_at_init(critics, {name: loss_of(critic) for name, critic in critics.items()}, batches(), 0.3, pruner, seed=seed)
        first, second = (torch.cat([mask.flatten() for mask in found.of[name].values()]) for name in critics)
        return first, second

    first, second = masks(0)
    assert not torch.equal(first, second)
    assert torch.equal(torch.stack(masks(0)), torch.stack((first, second)))
    assert not torch.equal(masks(1)[0], first)


def test_a_random_mask_is_the_same_in_every_process() -> None:
    """A pinned sum of places: a seed from Python's own hash would change it from run to run."""
    mask = prune_at_init(network(), loss_of(network()), batches(), 0.2, "random_uniform").of["network"]["3.weight"]
    assert int(mask.flatten().nonzero().sum()) == 24088


def test_a_layer_that_keeps_nothing_is_refused_by_name_unless_allowed() -> None:
    """A global ranking by magnitude gives all to the first layer, whose default initialization is the largest."""
    torch.manual_seed(0)
    critic = nn.Sequential(nn.Linear(23, 256), nn.ReLU(), nn.Linear(256, 256), nn.ReLU(), nn.Linear(256, 1))
    before = weights(critic)
    given = {"modules": {"critic": critic}, "loss": lambda batch: critic(batch).square().mean(), "batches": [torch.randn(8, 23)]}
    with pytest.raises(UserError, match=r"^magnitude leaves no weight in layer '2.weight' of 'critic', which keeps \[3584, 0, 0\] of .*"):
        prune_at_init(**given, density=0.05, pruner="magnitude")
    assert torch.equal(weights(critic), before)
    assert all("weight" not in layer.__dict__ for layer in critic)
    masks = prune_at_init(**given, density=0.05, pruner="magnitude", allow_disconnected=True)
    assert [int(mask.sum()) for mask in masks.of["critic"].values()] == [3584, 0, 0]


@pytest.mark.parametrize("pruner", PRUNERS)
@pytest.mark.parametrize("optimizer", [torch.optim.Adam, torch.optim.AdamW, torch.optim.SGD])
def test_removed_weights_stay_exactly_zero_under_any_optimizer(pruner: str, optimizer: type[torch.optim.Optimizer]) -> None:
    module = network()
    order = [name for name, _ in module.named_parameters()]
    more = {"momentum": 0.9} if optimizer is torch.optim.SGD else {}
    made = optimizer(module.parameters(), lr=1e-2, weight_decay=0.1, **more)
    target = copy.deepcopy(module)
    masks = prune_at_init(module, loss_of(module), batches(2), 0.2, pruner, targets={"network": target})
    assert [name for name, _ in module.named_parameters()] == order
    removed = torch.cat([mask.flatten() for mask in masks.of["network"].values()]) == 0
    assert int((~removed).sum()) == round(0.2 * len(removed))
    kept_before = weights(module)[~removed].clone()
    for batch in batches(5):
        made.zero_grad()
        loss_of(module)(batch).backward()
        made.step()
        with torch.no_grad():
            for mine, theirs in zip(target.parameters(), module.parameters(), strict=True):
                mine.lerp_(theirs, 0.1)
    assert (weights(module)[removed] == 0).all()
    assert (weights(target)[removed] == 0).all()
    assert (weights(module)[~removed] != kept_before).any()
    masks.release()
    made.zero_grad()
    loss_of(module)(batches()[0]).backward()
    assert (torch.cat([p.grad.flatten() for n, p in module.named_parameters() if "weight" in n])[removed] != 0).any()


def test_kept_weights_are_untouched_and_several_modules_are_ranked_together() -> None:
    pair = [network(1), network(2)]
    initial = torch.cat([weights(module) for module in pair])

    def loss(batch: tuple[Tensor, Tensor]) -> Tensor:
        return sum((loss_of(module)(batch) for module in pair), torch.zeros(()))

    masks = prune_at_init({"critic": pair}, {"critic": loss}, batches(), {"critic": 0.3})
    chosen = torch.cat([mask.flatten() for mask in masks.of["critic"].values()])
    assert torch.equal(torch.cat([weights(module) for module in pair]), initial * chosen)
    half = len(chosen) // 2
    assert chosen[:half].sum() != chosen[half:].sum()
    assert masks.density("critic") == pytest.approx(0.3, abs=1e-3)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"pruner": "synflow"}, "'synflow'; there are: force, grasp"),
        ({"pruner": "gmp"}, "'gmp'; there are"),
        ({"density": 0}, r"density 0 of 'network' is outside \(0, 1\]"),
        ({"batches": []}, "batches is empty"),
        ({"loss": {"actor": None}}, "named by a loss.*'actor'; there are: network"),
        ({"modules": nn.ReLU()}, "no prunable weights"),
        ({"targets": {"network": nn.Linear(2, 2)}}, "the target of 'network' has weights of shapes"),
    ],
)
def test_what_cannot_be_pruned_is_told_and_nothing_is_changed(change: dict, says: str) -> None:
    module = network()
    before = weights(module)
    given = {"modules": module, "loss": loss_of(module), "batches": batches(), "density": 0.2, "pruner": "snip"} | change
    with pytest.raises(UserError, match=says):
        prune_at_init(**given)
    assert torch.equal(weights(module), before)


@pytest.mark.parametrize("pruner", ["snip", "prospr", "iterative_snip"])
def test_a_loss_that_fails_leaves_the_module_as_it_was(pruner: str) -> None:
    module = network()
    before, calls = weights(module), []

    def loss(batch: tuple[Tensor, Tensor]) -> Tensor:
        calls.append(1)
        if len(calls) == 3:
            raise RuntimeError("broken")
        return loss_of(module)(batch)

    with pytest.raises(RuntimeError, match="broken"):
        prune_at_init(module, loss, batches(3), 0.2, pruner)
    assert torch.equal(weights(module), before)
    assert all("weight" not in layer.__dict__ for layer in module.modules())


def test_d3rlpys_own_td3_bc_trains_pruned_networks() -> None:
    """In the peer's virtual environment, which has neither ray nor mlflow nor safetensors (`make test` installs it)."""
    python = ROOT / ".venv-peer" / "bin" / "python"
    assert python.exists(), "make .venv-peer/installed"
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    command = [str(python), "examples/d3rlpy_td3_bc.py", "--density", "0.05", "--updates", "20"]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    lines = [line for line in done.stdout.splitlines() if " keeps " in line]
    assert [line.split(" keeps ")[0] for line in lines] == ["actor", "critic", "target actor", "target critic"]
    assert all("(5.0" in line or "(4.9" in line for line in lines), done.stdout
