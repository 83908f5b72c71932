"""What holds for every kind of network that a trial may ask for, with every algorithm, dense and sparse."""

from __future__ import annotations

import re

import pytest
import torch

from tests.contracts.test_algorithms import assert_stack_equals_alone, started, three
from tests.stacks import World, assert_same, made_up_table, small_trial
from trainables import plugins
from trainables.errors import UserError
from trainables.pruning.ranking import check_connected
from trainables.pruning.scored import residual_chain
from trainables.tensors.mlp import MLP
from trainables.training.diagnostics import Diagnostics
from trainables.trial import TRAINING_CHOICES, Trial
from trainables.trial.pruner_traits import traits_of

NETWORKS = TRAINING_CHOICES["network"][1:]
ALGORITHMS = [name for name in plugins.names("algorithms") if not plugins.network_choices(name)]
CASES = [(algorithm, network, execution) for algorithm in ALGORITHMS for network in NETWORKS for execution in ("dense", "sparse")]
each_case = pytest.mark.parametrize(("algorithm", "network", "execution"), CASES)


def built(trials: list[Trial], network: str) -> list[Trial]:
    return [trial.using(network=network) for trial in trials]


@each_case
def test_a_stack_equals_each_member_alone(algorithm: str, network: str, execution: str) -> None:
    trials = built(three(algorithm), network)
    together = started(trials, execution)
    assert_stack_equals_alone(trials, together, together.train(0, 7))


@each_case
def test_resumed_equals_uninterrupted_and_pruned_weights_are_zero(algorithm: str, network: str, execution: str) -> None:
    trials, stop, end = built(three(algorithm), network), 5, 12  # 5 is odd: a delayed update must be counted from the beginning
    whole = World(trials, execution).start()
    whole.train(0, stop)
    saved, counts = whole.rows(), whole.counts()
    wanted = whole.train(stop, end)
    resumed = World(trials, execution).resume(whole.masks, saved, counts)
    assert_same(resumed.rows(), saved, "loaded")
    for found, logged in zip(resumed.train(stop, end), wanted, strict=True):
        assert_same(found, logged)
    assert_same(resumed.rows(), whole.rows(), "resumed")
    for name, rows in whole.rows().items():
        views = whole.agent.specs[name.split("/")[1]].views(rows)
        for index, layer in enumerate(whole.masks[name.split("/")[1]]):
            assert (views[f"weight.{index}"][layer == 0] == 0).all(), f"{name} layer {index}"


@pytest.mark.parametrize(("algorithm", "network"), [case[:2] for case in CASES if case[2] == "sparse"])
def test_sparse_trains_as_dense_does(algorithm: str, network: str) -> None:
    trials = built([small_trial(algorithm, "snip", 0.7), small_trial(algorithm, "random_erk", 0.8, seed=1)], network)
    world, reference = World(trials, "auto").start(), World(trials, "dense").start()
    assert world.agent.execution == "sparse"
    world.train(0, 5)
    reference.train(0, 5)
    for name, row in world.rows().items():
        if name.startswith("online/"):
            torch.testing.assert_close(row, reference.rows()[name], rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize(("algorithm", "network"), [case[:2] for case in CASES if case[2] == "sparse"])
def test_gains_and_shifts_of_all_networks_are_trained_and_never_pruned(algorithm: str, network: str) -> None:
    world = World(built([small_trial(algorithm, "snip", 0.5)], network)).start()
    world.train(0, 3)
    for name, spec in world.agent.specs.items():
        views = spec.views(world.rows()[f"online/{name}"])
        gains = [part for part in views if part.startswith("gain")]
        assert gains
        for part in gains:
            assert (views[part] != 0).any(), f"{name} {part}"


def test_an_algorithm_that_cannot_have_a_network_refuses_it_before_anything_starts() -> None:
    with pytest.raises(UserError, match=r"edac cannot be trained with network 'layer_norm'; there is: mlp"):
        Trial(dataset="test/made-up-v0", algorithm="edac", network="layer_norm")
    with pytest.raises(UserError, match=r"no network 'layernorm'; there are: mlp, layer_norm, simba"):
        Trial(dataset="test/made-up-v0", network="layernorm")
    with pytest.raises(UserError, match=r"structure 'units' does not fit network 'layer_norm'.*fan_in"):
        Trial(dataset="test/made-up-v0", pruner="snip", sparsity=0.5, structure="units", network="layer_norm")
    with pytest.raises(UserError, match=r"pruner 'phew' needs layers in a row, which network 'simba' has not; there are: .*snip"):
        Trial(dataset="test/made-up-v0", pruner="phew", sparsity=0.5, network="simba")
    for hidden in ((64,), (64, 32)):
        with pytest.raises(UserError, match=rf"hidden {re.escape(str(hidden))} is not two or more equal widths, e.g. \(64, 64\)"):
            Trial(dataset="test/made-up-v0", network="simba", hyper={"hidden": hidden})


PRUNERS = [name for name in plugins.names("pruners") if name != "dense" and not traits_of(name).needs_chain]


@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize("pruner", PRUNERS)
def test_every_pruner_prunes_every_network(pruner: str, network: str) -> None:
    """To as many weights as it does a plain one of that size, and the result trains."""
    world = World([small_trial("td3_bc", pruner, 0.5, network=network)], "auto").start()
    for name, mask in world.masks.items():
        kept, total = (sum(int(part) for part in parts) for parts in ((m.sum() for m in mask), (m.numel() for m in mask)))
        if traits_of(pruner).shrinks:
            plain = World([small_trial("td3_bc", network=network)]).agent.specs[name]
            assert total == pytest.approx(0.5 * sum(plain.weights_per_layer), rel=0.25)
            assert world.agent.specs[name].residual == (network == "simba")
        elif traits_of(pruner).starts_sparse:
            assert kept == round(0.5 * total)
    world.train(0, 2)
    assert world.agent.finite() == [True]


def test_synflow_follows_the_stream_of_a_residual_network() -> None:
    """Scores are those of a linear network in which a block adds to what goes past it: no block, no less than the stream."""
    spec = MLP((4, 2)).of_width(3, 1)
    weights = [torch.rand(1, 1, o, i, generator=torch.Generator().manual_seed(i)) for i, o in spec.layers]
    e, inner, outer, head = (layer[0, 0] for layer in weights)
    wanted = head @ (torch.eye(3) + outer @ inner) @ e @ torch.ones(4)
    torch.testing.assert_close(residual_chain(weights)[0, 0], wanted)


def test_simba_sees_normalized_observations_whatever_the_algorithm() -> None:
    assert not plugins.load("algorithms", "rebrac").NORMALIZE
    worlds = [World([small_trial("rebrac", network=network)]) for network in ("layer_norm", "simba")]
    raw, normal = (world.data.draw(world.agent.streams, 64).observations for world in worlds)
    table = made_up_table()
    torch.testing.assert_close(normal, (raw - torch.tensor(table.mean)) / (torch.tensor(table.std) + 1e-3), rtol=1e-4, atol=1e-4)


def test_a_stream_that_goes_past_an_empty_block_is_alive() -> None:
    """A block without weights is no broken path; of the stream's units, those that are always 0 are dormant."""
    world = World([small_trial("bc", network="simba", hyper={"hidden": (16, 16)})]).start()
    mask = [torch.zeros_like(layer) if index in (1, 2) else layer for index, layer in enumerate(world.masks["actor"])]
    check_connected("actor", mask, ["a trial"], residual=True)
    rows = world.agent.networks["actor"].unpack(world.agent.networks["actor"].parameters).detach().clone()
    views = world.agent.specs["actor"].views(rows)
    for index in range(3):
        views[f"bias.{index}"].zero_()
    views["weight.0"][:, :, :4] = 0
    world.agent.build("dense", {"actor": rows}, {"actor": mask})
    (found,) = Diagnostics(world.agent, world.data).in_training({"actor": mask})
    assert found["train/dormant_units/actor"] == pytest.approx(4 / 16)
