"""Masks outlive the process and the module: in pickles, checkpoints and copies; weights that come back to life are an error."""

from __future__ import annotations

import copy
import io
import multiprocessing
import pickle
import warnings

import pytest
import torch
from torch import Tensor, nn

from tests.trainables.library.networks import batches, loss_of, network, train, weights
from trainables.errors import UserError
from trainables.library import Masks, prune_at_init


def pruned(density: float = 0.2) -> tuple[nn.Sequential, Masks, Tensor]:
    """A pruned network, its masks, and where in `weights` it has none."""
    module = network()
    masks = prune_at_init({"actor": module}, loss_of(module), batches(), density)
    return module, masks, torch.cat([mask.flatten() for mask in masks.of["actor"].values()]) == 0


def adam(module: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.Adam(module.parameters(), lr=1e-2)


def same(first: Masks, second: Masks) -> bool:
    left, right = first.state_dict(), second.state_dict()
    return left.keys() == right.keys() and all(torch.equal(left[key], right[key]) for key in left)


def loaded(module: nn.Module, **how: bool) -> nn.Module:
    file = io.BytesIO()
    torch.save(module, file)
    file.seek(0)
    return torch.load(file, **{"weights_only": False} | how)


def test_masks_pickle_without_their_modules_and_hold_others_once_attached() -> None:
    module, masks, removed = pruned()
    text = pickle.dumps(masks)
    assert len(text) < 10_000
    again = pickle.loads(text)
    assert same(masks, again)
    assert repr(again) == repr(masks) == "Masks(actor: 117 of 584 weights (20.03%) in 3 layers)"
    with pytest.raises(UserError, match=r"^these masks hold no modules: call masks.attach"):
        again.check()
    fresh = network(1)
    fresh.load_state_dict(module.state_dict())
    again.attach({"actor": fresh})
    train(fresh, adam(fresh))
    assert (weights(fresh)[removed] == 0).all()
    assert not torch.equal(weights(fresh), weights(module))


def test_a_checkpoint_continues_as_if_it_had_not_been_interrupted() -> None:
    """What is saved are tensors, which torch reads without unpickling objects."""
    module, masks, removed = pruned()
    optimizer = adam(module)
    train(module, optimizer)
    file = io.BytesIO()
    torch.save({"model": module.state_dict(), "optimizer": optimizer.state_dict(), "masks": masks.state_dict()}, file)
    train(module, optimizer)

    file.seek(0)
    checkpoint = torch.load(file, weights_only=True)
    other = network(1)
    own = adam(other)
    other.load_state_dict(checkpoint["model"])
    own.load_state_dict(checkpoint["optimizer"])
    again = Masks().load_state_dict(checkpoint["masks"]).attach({"actor": other})
    assert same(masks, again)
    train(other, own)
    assert torch.equal(weights(other), weights(module))
    again.check(own)
    assert (weights(other)[removed] == 0).all()


def test_masks_that_are_held_take_those_of_a_checkpoint_in_either_order_with_the_model() -> None:
    module, masks, _ = pruned()
    other, others, _ = pruned(0.5)
    with pytest.raises(UserError, match=r"None is not the state_dict\(\) of masks"):
        others.load_state_dict(None)
    others.load_state_dict(masks.state_dict())
    with pytest.raises(UserError, match=r"removed weights of layer '.*' of 'actor' are not 0 any more"):
        loss_of(other)(batches()[0]).backward()
    other.load_state_dict(module.state_dict())
    train(other, adam(other))
    others.check()


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda state: {}, "the checkpoint has no masks"),
        (lambda state: {key.replace("actor", "critic"): mask for key, mask in state.items()}, "has masks of critic; these are of actor"),
        (lambda state: {"actor/0.weight": state["actor/0.weight"]}, "the checkpoint has no '3.weight'; it has: 0.weight"),
        (lambda state: state | {"actor/7.weight": torch.ones(2)}, "no layer in the masks of 'actor' '7.weight'; there are: 0.weight"),
        (lambda state: state | {"actor/0.weight": torch.ones(2)}, r"has '0.weight' in the shape \(2,\); its mask has \(4, 2, 3\)"),
        (lambda state: state | {"actor/0.weight": torch.full((4, 2, 3), 0.5)}, "'actor/0.weight' is not a mask"),
        (lambda state: state | {"step": 3}, "'step' is not a mask"),
    ],
)
def test_a_checkpoint_of_something_else_is_refused_and_nothing_is_changed(change: object, says: str) -> None:
    _, masks, _ = pruned()
    before = copy.deepcopy(masks.of)
    with pytest.raises(UserError, match=says):
        masks.load_state_dict(change(masks.state_dict()))
    assert all(torch.equal(before["actor"][layer], mask) for layer, mask in masks.of["actor"].items())
    masks.check()


@pytest.mark.parametrize("copied", [copy.deepcopy, loaded, lambda module: pickle.loads(pickle.dumps(module))])
def test_a_copy_of_a_module_keeps_its_removed_weights_at_zero(copied: object) -> None:
    """Torch's copies and pickles drop hooks. A copy's hold is its own: what is done to the module itself does not matter to it."""
    module, masks, removed = pruned()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        double = copied(module)
    masks.release()
    assert torch.equal(weights(double), weights(module))
    train(double, adam(double))
    assert (weights(double)[removed] == 0).all()
    train(module, adam(module))
    assert (weights(module)[removed] != 0).any()
    with torch.no_grad():
        double[0].weight.fill_(1)
    with pytest.raises(UserError, match=r"removed weights of layer '0.weight' of 'actor' are not 0 any more"):
        loss_of(double)(batches()[0]).backward()


def test_a_module_that_is_sent_to_another_process_stays_pruned() -> None:
    """Torch sends parameters in its own way, in shared memory."""
    module, masks, removed = pruned()
    here, there = multiprocessing.Pipe()
    there.send(module)
    sent = here.recv()
    before = weights(sent).clone()
    train(sent, adam(sent))
    assert (weights(sent)[removed] == 0).all()
    assert (weights(sent)[~removed] != before[~removed]).any()
    masks.check()
    masks.release()
    there.send(module)
    free = here.recv()
    train(free, adam(free))
    assert (weights(free)[removed] != 0).any()


def test_a_copied_agent_has_masks_that_hold_its_own_modules() -> None:
    module, masks, removed = pruned()
    twice = copy.deepcopy({"masks": masks, "module": module, "tied": module[0].weight})
    assert twice["module"][0].weight is twice["tied"]
    with torch.no_grad():
        twice["module"][0].weight.fill_(1)
    masks.check()
    with pytest.raises(UserError, match="not 0 any more"):
        twice["masks"].check()
    twice["masks"].apply()
    assert (weights(twice["module"])[removed] == 0).all()


def test_a_released_module_pickles_as_plain_torch() -> None:
    module, masks, _ = pruned()
    assert b"trainables" in pickle.dumps(module)
    masks.release()
    assert b"trainables" not in pickle.dumps(module)


def test_an_optimizer_that_has_trained_before_is_told_of_before_and_after_it_does_harm() -> None:
    module = network()
    optimizer = adam(module)
    train(module, optimizer)
    masks = prune_at_init({"actor": module}, loss_of(module), batches(), 0.2)
    masks.check()
    with pytest.raises(UserError, match=r"the optimizer's exp_avg would move \d+ removed weights of layer '0.weight' of 'actor'"):
        masks.check(optimizer)
    train(module, optimizer, updates=1)
    with pytest.raises(UserError, match=r"\d+ of \d+ removed weights of layer '.*' of 'actor' are not 0 any more: an optimizer with"):
        train(module, optimizer, updates=1)
    masks.apply(optimizer)
    masks.check(optimizer)
    train(module, optimizer)
    masks.check(optimizer)


def test_a_target_whose_weights_came_back_is_told_of_by_the_networks_next_gradient() -> None:
    module = network()
    target = copy.deepcopy(module)
    masks = prune_at_init(module, loss_of(module), batches(), 0.2, targets={"network": target})
    train(module, adam(module))
    target.load_state_dict(network(1).state_dict())
    with pytest.raises(UserError, match="of the target of 'network' are not 0 any more"):
        train(module, adam(module))
    masks.apply()
    train(module, adam(module))


def test_a_diverged_network_is_no_matter_of_masks() -> None:
    """An infinite gradient is 0 where a weight is removed, and weights that are no number are not called alive."""
    module, masks, removed = pruned()
    (loss_of(module)(batches()[0]) * torch.inf).backward()
    gradients = torch.cat([layer.weight.grad.flatten() for layer in module if hasattr(layer, "weight")])
    assert (gradients[removed] == 0).all()
    with torch.no_grad():
        module[0].weight.fill_(torch.nan)
    masks.check()


def test_masks_attach_to_modules_that_fit_and_say_why_others_do_not() -> None:
    module, masks, removed = pruned()
    for given, says in [
        ({"critic": module}, "no network in these masks 'critic'; there are: actor"),
        ({}, "the masks of 'actor' get no network"),
        ({"actor": nn.Linear(2, 2)}, "'actor' has no '0.weight'"),
        ({"actor": nn.Sequential(nn.Conv1d(2, 5, 3), *network()[1:])}, r"'actor' has '0.weight' in the shape \(5, 2, 3\)"),
        ({"actor": network(1)}, "removed weights of layer '0.weight' of 'actor' are not 0"),
    ]:
        with pytest.raises(UserError, match=says):
            masks.attach(given)
    with pytest.raises(UserError, match=r"the target of 'actor' has no '0.weight'"):
        masks.attach({"actor": module}, {"actor": nn.ReLU()})
    train(module, adam(module))
    masks.check()
    other = network(1)
    masks.attach({"actor": other}, zero=True)
    assert (weights(other)[removed] == 0).all()
    train(other, adam(other))
    assert (weights(other)[removed] == 0).all()


def test_a_parameter_that_was_replaced_is_told_of() -> None:
    module, masks, _ = pruned()
    module[3].weight = nn.Parameter(module[3].weight.detach().clone())
    with pytest.raises(UserError, match=r"layer '3.weight' of 'actor' has another parameter than the one that is held; call masks.attach"):
        masks.check()
    masks.attach({"actor": module})
    masks.check()


def test_a_module_that_is_frozen_and_loaded_is_held_once_it_trains() -> None:
    module, masks, removed = pruned()
    fresh = network(1).requires_grad_(False)
    fresh.load_state_dict(module.state_dict())
    masks.attach({"actor": fresh})
    assert not any(parameter.requires_grad for parameter in fresh.parameters())
    fresh.requires_grad_()
    train(fresh, adam(fresh))
    assert (weights(fresh)[removed] == 0).all()


def test_masks_hold_in_other_precisions() -> None:
    module, masks, removed = pruned()
    module.double()
    nn.functional.mse_loss(module(batches()[0][0].double()), batches()[0][1].double()).backward()
    assert (torch.cat([layer.weight.grad.flatten() for layer in module if hasattr(layer, "weight")])[removed] == 0).all()
    masks.check()


def test_an_optimizer_that_mixes_weights_is_told_of_unless_masks_are_applied_after_each_step() -> None:
    module = nn.Sequential(nn.Linear(10, 16, bias=False), nn.ReLU(), nn.Linear(16, 3, bias=False))
    data = torch.randn(32, 10)

    def loss(batch: Tensor) -> Tensor:
        return (module(batch) - 1).square().mean()

    def step() -> None:
        loss(data).backward()
        optimizer.step()

    masks = prune_at_init(module, loss, [data], 0.3)
    optimizer = torch.optim.Muon(module.parameters(), lr=1e-2)
    step()
    with pytest.raises(UserError, match=r"not 0 any more: .* one that mixes weights \(Muon\)"):
        step()
    for _ in range(3):
        masks.apply(optimizer)
        step()


@pytest.mark.parametrize("fails", [False, True])
def test_pruning_again_replaces_the_masks_unless_it_fails(fails: bool) -> None:
    """Also where the weights are new: a copy brings the hold of its original along."""
    module, masks, _ = pruned()
    again = copy.deepcopy(module)
    again.load_state_dict(network(1).state_dict())

    def loss(batch: tuple[Tensor, Tensor]) -> Tensor:
        if fails:
            raise RuntimeError("broken")
        return loss_of(again)(batch)

    if fails:
        with pytest.raises(RuntimeError, match="broken"):
            prune_at_init({"actor": again}, loss, batches(), 0.5)
        with pytest.raises(UserError, match="not 0 any more"):
            train(again, adam(again))
    else:
        others = prune_at_init({"actor": again}, loss, batches(), 0.5)
        train(again, adam(again))
        others.check()
        assert others.density("actor") == pytest.approx(0.5)
    masks.check()
