"""Pruning any torch module: the same masks as in the core, and masks that hold under other people's training code."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Callable
from typing import Any

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


@pytest.mark.parametrize("pruner", ["snip", "grasp", "magnitude", "force", "iterative_snip", "synflow", "ntk_sap", "phew"])
def test_the_masks_are_those_of_the_core(pruner: str) -> None:
    """The core draws a calibration batch a round; here all rounds see the same, so the core is given one batch again and again."""
    world = World([small_trial("bc", pruner, 0.4, seed=3)])
    given = world.data.draw(Streams([3], phase="calibration/"), 64)
    wanted = torch.cat([layer[0].flatten() for layer in prune(world.agent, world.stack, lambda streams, size: given)["actor"]])
    actor = mlp(world.agent.specs["actor"].views(world.agent.initial("actor")), 3, 0, tanh=True)
    masks = prune_at_init({"actor": actor}, loss_of(actor), [(given.observations[0], given.actions[0])], 0.6, pruner, seed=3)
    assert torch.equal(torch.cat([mask.flatten() for mask in masks.of["actor"].values()]), wanted)


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
    module = nn.Sequential(nn.Flatten(), nn.Linear(20, 16), nn.ReLU(), nn.Linear(16, 3)) if pruner == "phew" else network()
    order = [name for name, _ in module.named_parameters()]
    more = {"momentum": 0.9} if optimizer is torch.optim.SGD else {}
    made = optimizer(module.parameters(), lr=1e-2, weight_decay=0.1, **more)
    target = copy.deepcopy(module)
    masks = prune_at_init(module, loss_of(module), batches(2), 0.2, pruner, targets={"network": target}, inputs=batches()[0][0])
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
        ({"pruner": "snap"}, "no pruner 'snap'; there are: force, grasp"),
        ({"pruner": "dense"}, "^dense prunes nothing; there are: force, grasp"),
        (
            {"pruner": "gmp"},
            "^gmp changes its masks during a training that prune_at_init does not see; run it in a sweep; there are: force",
        ),
        ({"pruner": "imp"}, "^imp changes its masks during"),
        ({"pruner": "small_dense"}, "^small_dense makes networks smaller and masks nothing; there are: force"),
        (
            {"pruner": "phew"},
            r"'network' are not linear ones in a row, because of a Conv1d of shape \(4, 2, 3\); phew walks along such a row",
        ),
        (
            {"pruner": "synflow"},
            r"because of a Conv1d of shape \(4, 2, 3\); give inputs=\{'network': tensors with which its modules are called",
        ),
        ({"pruner": "ntk_sap"}, "how 'network' is called is not known: give inputs="),
        ({"pruner": "synflow", "inputs": {"actor": torch.ones(1, 2)}}, "named by a list of inputs.*'actor'; there are: network"),
        (
            {"pruner": "synflow", "inputs": torch.ones(2)},
            r"inputs of 'network' are not tensors \[B, ...\] of floating-point numbers, but \(2,\)",
        ),
        ({"pruner": "synflow", "inputs": [3]}, "but int"),
        ({"loss": None}, "^snip scores weights by a loss: give loss and batches; without them there are: magnitude, ntk_sap, phew"),
        ({"density": None}, "density is None: give the fraction"),
        ({"modules": {"a/b": nn.Linear(2, 2)}}, "the name of a network, 'a/b', contains '/'"),
        ({"density": 0}, r"density 0 of 'network' is outside \(0, 1\]"),
        ({"density": True}, "density True of 'network' is not a number"),
        ({"density": "0.5"}, "density '0.5' of 'network' is not a number"),
        ({"batches": []}, "batches is empty"),
        ({"batches": {"observations": 1}}, "batches is a dict, not a sequence: give a list of batches"),
        ({"batches": iter([1])}, "batches is a list_iterator, not a sequence: give a list of batches"),
        ({"loss": lambda batch: 0.5}, "the loss of 'network' cannot be differentiated: it is a float"),
        ({"loss": lambda batch: torch.ones(())}, "the loss of 'network' cannot be differentiated: it is a tensor without a gradient"),
        ({"loss": loss_of(network())}, "every score of 'network' by snip is 0: its loss does not depend on its weights"),
        (
            {"batches": [(torch.full((32, 2, 10), torch.nan), torch.zeros(32, 3))]},
            r"^the scores of 'network' by snip are NaN for \d+ of \d+ weights; nothing is pruned",
        ),
        ({"loss": {"actor": None}}, "named by a loss.*'actor'; there are: network"),
        ({"modules": nn.ReLU()}, "no prunable weights, none of two or more axes"),
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


def test_running_statistics_stay_as_they_were() -> None:
    """Losses are computed in training mode, by networks of which most weights are about to go."""
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 3))
    before, data = copy.deepcopy(module.state_dict()), [torch.randn(32, 6) for _ in range(3)]
    for density, refused in ((0.01, True), (0.5, False)):
        with pytest.raises(UserError) if refused else contextlib.nullcontext():
            prune_at_init(module, lambda batch: module(batch).square().mean(), data, density)
        assert all(torch.equal(module.state_dict()[name], before[name]) for name in before if "running" in name or "tracked" in name)


def test_synflow_prunes_convolutions_by_the_flow_through_the_linear_network() -> None:
    """A plain implementation of the paper's loop: no biases, no activations, absolute weights, an input of ones, 100 rounds."""
    module = network()
    given = {"inputs": batches()[0][0], "density": 0.1, "pruner": "synflow"}
    masks = prune_at_init(module, **given)
    plain = network()[0:1].double(), network()[3:4].double(), network()[5:6].double()
    layers = [part[0] for part in plain]
    initial = [layer.weight.detach().abs() for layer in layers]
    chosen = [torch.ones_like(weight) for weight in initial]
    for turn in range(1, 101):
        for layer, weight, mask in zip(layers, initial, chosen, strict=True):
            layer.weight.data, layer.bias.data = weight * mask, torch.zeros_like(layer.bias)
        signal = layers[0](torch.ones(1, 2, 10, dtype=torch.float64)).flatten(1)
        gradients = torch.autograd.grad(layers[2](layers[1](signal)).sum(), [layer.weight for layer in layers])
        scores = torch.cat([(layer.weight * g).flatten() for layer, g in zip(layers, gradients, strict=True)])
        scores[torch.cat([mask.flatten() for mask in chosen]) == 0] = -1
        keep = torch.zeros_like(scores)
        keep[scores.sort(descending=True, stable=True).indices[: round(0.1 ** (turn / 100) * len(scores))]] = 1
        chosen = [part.reshape(mask.shape) for part, mask in zip(keep.split([mask.numel() for mask in chosen]), chosen, strict=True)]
    for mask, wanted in zip(masks.of["network"].values(), chosen, strict=True):
        assert torch.equal(mask, wanted.float())


class Critic(nn.Module):
    """Q(s, a) with dropout and layer normalization, by functions rather than modules."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.first, self.second = nn.Linear(5, 16), nn.Linear(16, 1)

    def forward(self, observation: Tensor, action: Tensor) -> Tensor:
        hidden = nn.functional.relu(self.first(torch.cat([observation, action], 1)))
        return self.second(nn.functional.dropout(hidden, 0.5, self.training)).tanh()


@pytest.mark.parametrize("pruner", ["synflow", "ntk_sap"])
def test_pruners_without_a_loss_call_a_module_as_it_is_called(pruner: str) -> None:
    """The same masks as for layers in a row; a module that is in training stays so."""
    critic = Critic(0)
    layers = [critic.first, nn.ReLU(), critic.second, *([nn.Tanh()] if pruner == "ntk_sap" else [])]
    wanted = prune_at_init({"q": copy.deepcopy(nn.Sequential(*layers))}, density=0.3, pruner=pruner, seed=1)
    masks = prune_at_init({"q": critic}, density=0.3, pruner=pruner, seed=1, inputs={"q": [torch.ones(1, 3), torch.ones(1, 2)]})
    assert torch.equal(masks.of["q"]["first.weight"], wanted.of["q"]["0.weight"])
    assert torch.equal(masks.of["q"]["second.weight"], wanted.of["q"]["2.weight"])
    assert critic.training


@pytest.mark.parametrize("pruner", ["synflow", "ntk_sap", "phew"])
def test_pruners_without_a_loss_prune_twin_critics_of_any_scale_alike(pruner: str) -> None:
    """Their scores are shares of a critic's own; a ranking by absolute flow would give all weights to the larger one."""
    pair = [Critic(0), Critic(1)]
    with torch.no_grad():
        pair[1].first.weight.mul_(100)
    masks = prune_at_init({"q": pair}, density=0.3, pruner=pruner, inputs={"q": [torch.ones(1, 3), torch.ones(1, 2)]}).of["q"]
    first, second = (sum(int(mask.sum()) for name, mask in masks.items() if name[0] == number) for number in "01")
    assert first + second == round(0.3 * 2 * 96)
    assert abs(first - second) <= 6
    assert not torch.equal(masks["0.first.weight"], masks["1.first.weight"])


@pytest.mark.parametrize("pruner", ["snip", "synflow", "phew"])
def test_a_module_list_is_a_sequence_of_modules(pruner: str) -> None:
    def masks(kind: Callable[[list[nn.Module]], Any]) -> dict[str, Tensor]:
        pair = [nn.Sequential(nn.Flatten(), nn.Linear(20, 8), nn.ReLU(), nn.Linear(8, 3)) for _ in range(2)]
        for number, module in enumerate(pair):
            module.load_state_dict(
                {name: torch.sin(torch.arange(p.numel()) + number).reshape(p.shape) for name, p in module.named_parameters()}
            )

        def loss(batch: tuple[Tensor, Tensor]) -> Tensor:
            return loss_of(pair[0])(batch) + loss_of(pair[1])(batch)

        found = prune_at_init(kind(pair), loss, batches(), 0.4, pruner)
        folded = found.fold(smaller=True)["network"]
        assert isinstance(folded, kind)
        assert all(torch.allclose(folded[i](batches()[0][0]), pair[i](batches()[0][0]), atol=1e-5) for i in range(2))
        return found.of["network"]

    listed, wanted = masks(nn.ModuleList), masks(list)
    assert list(listed) == list(wanted) == ["0.1.weight", "0.3.weight", "1.1.weight", "1.3.weight"]
    assert all(torch.equal(listed[name], wanted[name]) for name in wanted)


def test_networks_that_share_a_weight_are_refused() -> None:
    """The second mask would take the place of the first, and either network would keep what both masks keep."""
    shared = nn.Linear(4, 16)
    actor, critic = nn.Sequential(shared, nn.ReLU(), nn.Linear(16, 2)), nn.Sequential(shared, nn.ReLU(), nn.Linear(16, 1))
    with pytest.raises(UserError, match=r"'actor' and 'critic' share the weight of layer '0\.weight'"):
        prune_at_init({"actor": actor, "critic": critic}, density=0.5, pruner="random_uniform")
    with pytest.raises(UserError, match="the target of 'actor' is the network itself"):
        prune_at_init({"actor": actor}, density=0.5, pruner="random_uniform", targets={"actor": actor})


@pytest.mark.parametrize(
    ("module", "pruner", "says"),
    [
        (nn.TransformerEncoderLayer(8, 2, 16, batch_first=True), "synflow", "multi_head_attention_forward cannot be made linear"),
        (nn.Sequential(nn.Linear(8, 8), nn.Softmax(1), nn.Linear(8, 8)), "synflow", "softmax cannot be made linear"),
        (nn.GRU(8, 8), "ntk_sap", r"'' \(GRU\) reads its weights from a list of its own"),
    ],
)
def test_modules_that_a_pruner_cannot_compute_are_refused_by_name(module: nn.Module, pruner: str, says: str) -> None:
    before = [parameter.detach().clone() for parameter in module.parameters()]
    with pytest.raises(UserError, match=says):
        prune_at_init(
            module, density=0.5, pruner=pruner, inputs=torch.ones(1, 4, 8) if not isinstance(module, nn.Sequential) else torch.ones(1, 8)
        )
    assert all(torch.equal(a, b) for a, b in zip(before, module.parameters(), strict=True))
    assert module.training


def test_attention_is_pruned_by_its_tangent_kernel() -> None:
    torch.manual_seed(0)
    module = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
    masks = prune_at_init(module, density=0.3, pruner="ntk_sap", inputs=torch.ones(1, 4, 8))
    assert masks.density("network") == pytest.approx(0.3, abs=1e-3)
