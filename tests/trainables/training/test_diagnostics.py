"""What is measured of networks in training is what its definition says, on a network whose numbers are known."""

from __future__ import annotations

import pytest
import torch

from tests.stacks import World, small_trial
from trainables.pruning.starting_weights import starting_rows
from trainables.tensors.mask import ones
from trainables.training.diagnostics import ROWS, Diagnostics, dormant, ranks


def test_units_that_hardly_ever_act_are_dormant_and_units_off_every_path_do_not_count() -> None:
    hidden = torch.ones(2, 1, 4, 5)
    hidden[0, 0, :, 0] = 0
    hidden[0, 0, :, 1] = 0.01
    hidden[1, 0, :, :2] = 0
    live = torch.ones(2, 1, 5, dtype=torch.bool)
    live[1, 0, 0] = False
    second = torch.ones(2, 1, 4, 3)
    assert dormant([hidden, second], [live, torch.ones(2, 1, 3, dtype=torch.bool)]) == pytest.approx([2 / 8, 1 / 7])


def test_the_rank_is_the_number_of_directions_that_hold_almost_all() -> None:
    generator = torch.Generator().manual_seed(0)
    basis, _ = torch.linalg.qr(torch.randn(ROWS, 6, generator=generator))
    three = basis[:, :3] @ torch.eye(3, 20)
    most = basis @ torch.diag(torch.tensor([1.0, 1.0, 1.0, 1e-4, 1e-4, 1e-4])) @ torch.eye(6, 20)
    features = torch.stack([three, most, basis @ torch.eye(6, 20), torch.zeros(ROWS, 20)]).unsqueeze(1)
    assert ranks(features) == [3, 3, 6, 0]
    assert ranks(features.reshape(2, 2, ROWS, 20)) == [3, 3]
    assert ranks(torch.full((1, 1, ROWS, 4), torch.nan)) == [0]


def world(execution: str = "auto") -> World:
    return World([small_trial("td3_bc", "snip", 0.5, 0), small_trial("td3_bc", "snip", 0.9, 1)], execution).start()


def test_a_network_with_every_weight_has_the_signal_1_and_a_weaker_one_less() -> None:
    trained = world()
    diagnostics = Diagnostics(trained.agent, trained.data)
    rows = {name: trained.agent.initial(name) for name in trained.agent.specs}
    whole = {name: ones(spec, 2, "cpu") for name, spec in trained.agent.specs.items()}
    for about in diagnostics.before_training(rows, whole):
        assert about == {"mask/signal/actor": 1, "mask/signal/critic": 1}
    few, fewer = (about["mask/signal/critic"] for about in diagnostics.before_training(rows, trained.masks))
    assert fewer < few < 1


def test_the_signal_of_weights_that_were_drawn_again_is_beside_their_own() -> None:
    trial = small_trial("td3_bc", "random_erk", 0.5, control="reinit")
    again = World([trial])
    whole = {name: ones(spec, 1, "cpu") for name, spec in again.agent.specs.items()}
    (about,) = Diagnostics(again.agent, again.data).before_training(starting_rows(again.agent, again.stack, whole), whole)
    assert about == {"mask/signal/actor": 1, "mask/signal/critic": 1}


@pytest.mark.parametrize("execution", ["dense", "sparse"])
def test_the_networks_in_training_are_measured_whatever_computes_them_and_training_goes_on_as_it_would(execution: str) -> None:
    measured, plain = world(execution), world("dense")
    diagnostics = Diagnostics(measured.agent, measured.data)
    before = measured.rows()
    found = diagnostics.in_training(measured.masks)
    assert all(torch.equal(row, before[name]) for name, row in measured.rows().items())
    wanted = Diagnostics(plain.agent, plain.data).in_training(plain.masks)
    assert found == wanted
    assert sorted(found[0]) == sorted(f"train/{what}/{name}" for what in ("dormant_units", "feature_rank") for name in ("actor", "critic"))


def test_a_critic_that_sees_nothing_has_no_rank_and_only_dormant_units() -> None:
    trained = world("dense")
    for name, view in trained.agent.specs["critic"].views(trained.agent.critic.parameters).items():
        if name.startswith("bias"):
            view[1] = -10.0
    found = Diagnostics(trained.agent, trained.data).in_training(trained.masks)
    assert found[1]["train/feature_rank/critic"] == 0
    assert found[1]["train/dormant_units/critic"] == 1
    assert found[0]["train/feature_rank/critic"] > 1
