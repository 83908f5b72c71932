"""What holds for every file in algorithms/, in every execution."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor

from tests.stacks import Rows, World, assert_same, made_up_table, member_of, small_trial
from trainables import execution as executions
from trainables import plugins
from trainables.errors import UserError
from trainables.tensors.mask import Mask
from trainables.trial import Trial

ALGORITHMS = plugins.names("algorithms")
EXECUTIONS = tuple(name for name in executions.CHOICES if name != "auto")
UPDATES = 13
STOP = 7  # odd: a delayed update must be counted from the beginning

each_algorithm = pytest.mark.parametrize("algorithm", ALGORITHMS)


def refused(algorithm: str, execution: str) -> str:
    """Why an execution cannot compute one of the algorithm's networks; empty where it can."""
    specs = World([small_trial(algorithm)]).agent.specs.values()
    return next((reason for spec in specs if (reason := executions.cannot(execution, spec))), "")


CASES = [(a, e) for a in ALGORITHMS for e in EXECUTIONS if not refused(a, e)]
each_case = pytest.mark.parametrize(("algorithm", "execution"), CASES)


def three(algorithm: str) -> list[Trial]:
    """Different seeds, pruners and sparsities."""
    return [
        small_trial(algorithm, "snip", 0.5, seed=0),
        small_trial(algorithm, "random_erk", 0.7, seed=1),
        small_trial(algorithm, "dense", 0.0, seed=2),
    ]


MASKS: dict[tuple[str, ...], dict[str, Mask]] = {}


def started(trials: Sequence[Trial], execution: str = "dense") -> World:
    """A stack at update 0. What a pruner removes is computed by `dense` whatever the execution, so once for all of them."""
    large = trials[0].hyper_values()["batch_size"] > 32
    world = World(trials, execution, made_up_table(11, 3) if large else made_up_table())
    key = tuple(trial.key for trial in trials)
    world.start(MASKS.get(key))
    MASKS.setdefault(key, {name: [layer.clone() for layer in mask] for name, mask in world.masks.items()})
    return world


@dataclass(frozen=True)
class Undisturbed:
    """The stack of `three` after all its updates, and what it was after the first STOP; only read."""

    world: World
    logged: list[dict[str, Tensor]]
    rows: Rows
    saved: Rows
    counts: dict[str, int]
    masks: dict[str, Mask]


@functools.cache
def undisturbed(algorithm: str, execution: str) -> Undisturbed:
    world = started(three(algorithm), execution)
    logged = world.train(0, STOP)
    saved, counts = world.rows(), world.counts()
    logged += world.train(STOP, UPDATES)
    return Undisturbed(world, logged, world.rows(), saved, counts, world.masks)


def assert_near(found: Rows, wanted: Rows, where: str) -> None:
    for name, value in found.items():
        torch.testing.assert_close(value, wanted[name], rtol=1e-3, atol=1e-5, msg=lambda said: f"{where} {name}: {said}")  # noqa: B023


def assert_stack_equals_alone(trials: list[Trial], together: World, logged: list[dict[str, Tensor]]) -> None:
    """To the last bit, but for `fused`: on a GPU a member is as wide as the widest of its stack."""
    execution = together.execution
    check = assert_near if execution == "fused" else assert_same
    assert together.agent.execution == execution
    assert logged[-1]
    rows = together.rows()
    for k, trial in enumerate(trials):
        alone = started([trial], execution)
        alone_logged = alone.train(0, len(logged))
        check(member_of(rows, k), alone.rows(), trial.name)
        for update, (found, wanted) in enumerate(zip(logged, alone_logged, strict=True)):
            check({name: loss[k : k + 1] for name, loss in found.items()}, wanted, f"{trial.name} update {update}")
    for name, row in rows.items():
        if name.startswith("online/"):
            assert not torch.equal(row, together.agent.initial(name.removeprefix("online/"))), f"{name} was not trained"


@each_case
def test_a_stack_equals_each_member_alone(algorithm: str, execution: str) -> None:
    whole = undisturbed(algorithm, execution)
    assert_stack_equals_alone(three(algorithm), whole.world, whole.logged)


@each_case
def test_so_it_does_at_the_algorithms_own_sizes(algorithm: str, execution: str) -> None:
    defaults = plugins.hyper_defaults(algorithm)
    trials = [small_trial(algorithm, p, s, seed=k, hyper=defaults) for k, (p, s) in enumerate([("snip", 0.9), ("random_uniform", 0.95)])]
    assert trials[0].hyper == {}
    together = started(trials, execution)
    assert_stack_equals_alone(trials, together, together.train(0, 2))  # the second one makes the delayed steps, too


@each_algorithm
def test_so_it_does_at_an_odd_batch_size(algorithm: str) -> None:
    """Where a member's numbers do not fill the processor's registers."""
    trials = [small_trial(algorithm, "random_uniform", 0.5, seed, hyper={"batch_size": 7}) for seed in range(2)]
    together = started(trials, "sparse")
    assert_stack_equals_alone(trials, together, together.train(0, 12))


@each_case
def test_members_may_differ_in_every_float_hyperparameter(algorithm: str, execution: str) -> None:
    defaults = plugins.hyper_defaults(algorithm)
    floats = {name: value for name, value in defaults.items() if isinstance(value, float)}
    assert floats
    trials = [small_trial(algorithm, "snip", 0.5, hyper={name: value * 0.8}) for name, value in floats.items() if value]
    plain = small_trial(algorithm, "snip", 0.5)
    together = started([plain, *trials], execution)
    assert_stack_equals_alone([plain, *trials], together, together.train(0, 3))


@each_algorithm
def test_a_learning_rate_acts_on_its_member(algorithm: str) -> None:
    """0 leaves every network where it was, beside a member that learns."""
    rates = set(plugins.load("algorithms", algorithm).LEARNING_RATES.values())
    still = small_trial(algorithm, hyper=dict.fromkeys(rates, 0.0))
    world = World([small_trial(algorithm), still]).start()
    world.train(0, 3)
    for name in world.agent.specs:
        moved = (world.agent.networks[name].unpack(world.agent.networks[name].parameters) != world.agent.initial(name)).any(1)
        assert moved.tolist() == [True, False]


@each_case
def test_resumed_equals_uninterrupted_bit_for_bit_also_in_another_stack(algorithm: str, execution: str) -> None:
    trials, whole = three(algorithm), undisturbed(algorithm, execution)
    saved, rest = whole.saved, whole.logged[STOP:]
    stranger = started([small_trial(algorithm, "magnitude", 0.3, seed=9)], execution)
    stranger.train(0, STOP)
    mixed_trials = [trials[2], stranger.stack.lead, trials[0]]
    mixed_rows = {name: torch.cat([saved[name][2:], stranger.rows()[name], saved[name][:1]]) for name in saved}
    mixed_masks = {
        name: [torch.cat([own[2:], strange, own[:1]]) for own, strange in zip(mask, stranger.masks[name], strict=True)]
        for name, mask in whole.masks.items()
    }
    mixed = World(mixed_trials, execution).resume(mixed_masks, mixed_rows, whole.counts)
    assert_same(mixed.rows(), mixed_rows, "loaded")
    logged = mixed.train(STOP, UPDATES)
    for there, here in ((0, 2), (2, 0)):
        assert_same(member_of(mixed.rows(), there), member_of(whole.rows, here), trials[here].name)
        for found, wanted in zip(logged, rest, strict=True):
            assert_same({n: v[there] for n, v in found.items()}, {n: v[here] for n, v in wanted.items()})


@each_case
def test_a_saved_state_goes_into_any_execution_unchanged(algorithm: str, execution: str) -> None:
    world = started(three(algorithm))
    world.train(0, 5)
    again = World(three(algorithm), execution).resume(world.masks, world.rows(), world.counts())
    assert again.rows().keys() == world.rows().keys()
    for name, row in again.rows().items():
        assert torch.equal(row, world.rows()[name]), name  # not the bits: a zero behind a mask may have a sign
    assert again.counts() == world.counts()


@each_case
def test_pruned_weights_are_exactly_zero_everywhere_always(algorithm: str, execution: str) -> None:
    world = started(three(algorithm), execution)
    agent = world.agent
    for update in range(UPDATES):
        world.train(update, update + 1)
        for name, rows in world.rows().items():
            network = name.split("/")[1]
            views = agent.specs[network].views(rows)
            for index, layer in enumerate(world.masks[network]):
                assert (views[f"weight.{index}"][layer == 0] == 0).all(), f"{name} layer {index} after update {update}"
        # Not only in what is saved but in the numbers that are computed with: nothing is lost by going through the masks.
        for name, network in agent.networks.items():
            held = [network.parameters, agent.optimizers[name].first, agent.optimizers[name].second]
            held += [getattr(agent.target, name).parameters] if name in world.algorithm.TARGETS else []
            for place, packed in enumerate(held):
                assert torch.equal(network.pack(network.unpack(packed)), packed), f"{name} {place} after update {update}"
    names = {name.split("/")[0] for name in world.rows()}
    assert {"online", "adam.first", "adam.second"} <= names
    assert ("target" in names) == bool(world.algorithm.TARGETS)


@each_case
def test_targets_carry_the_online_mask_and_start_as_copies(algorithm: str, execution: str) -> None:
    world = started(three(algorithm), execution)
    rows = world.rows()
    for name in world.algorithm.TARGETS:
        assert torch.equal(rows[f"target/{name}"], rows[f"online/{name}"])
    world.train(0, 4)
    rows = world.rows()
    for name in world.algorithm.TARGETS:
        online, target = rows[f"online/{name}"], rows[f"target/{name}"]
        start = world.agent.initial(name)
        assert not torch.equal(target, online)
        assert (target - online).norm() > 0.5 * (start * (online != 0) - online).norm(), "a target that follows at tau 0.005 is far behind"
        assert ((target == 0) == (online == 0)).float().mean() > 0.999


@each_case
def test_nan_in_one_member_stays_there(algorithm: str, execution: str) -> None:
    whole, disturbed = undisturbed(algorithm, execution), started(three(algorithm), execution)

    def poison(update: int) -> None:
        if update == 5:
            for network in disturbed.agent.networks.values():
                network.parameters[1].fill_(torch.nan)

    found = disturbed.train(0, UPDATES, before=poison)
    assert disturbed.agent.finite() == [True, False, True]
    assert whole.world.agent.finite() == [True, True, True]
    for k in (0, 2):
        assert_same(member_of(disturbed.rows(), k), member_of(whole.rows, k))
        for mine, theirs in zip(found, whole.logged, strict=True):
            assert_same({n: v[k] for n, v in mine.items()}, {n: v[k] for n, v in theirs.items()})
    assert all(torch.isnan(loss[1]) for loss in found[-1].values())


@each_case
def test_the_policy_acts_within_bounds_and_each_member_on_its_own(algorithm: str, execution: str) -> None:
    world = started(three(algorithm), execution)
    world.train(0, 3)
    observations = 10 * torch.randn(3, 4, 5, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        actions = world.algorithm.act(world.agent, observations)
        changed = observations.clone()
        changed[1] += 1
        other = world.algorithm.act(world.agent, changed)
    assert actions.shape == (3, 4, 2)
    assert (actions.abs() <= 1).all()
    assert torch.equal(other[[0, 2]], actions[[0, 2]])
    assert not torch.equal(other[1], actions[1])


@each_algorithm
def test_the_file_has_what_the_folder_promises(algorithm: str) -> None:
    module = plugins.load("algorithms", algorithm)
    world = World([small_trial(algorithm), small_trial(algorithm, seed=1)])
    specs = world.agent.specs
    assert "actor" in specs
    assert module.LEARNING_RATES.keys() == specs.keys() == module.LOSSES.keys()
    assert plugins.layer_normalized(algorithm) == tuple(name for name, spec in specs.items() if spec.norm), "read from the source"
    assert set(module.TARGETS) <= specs.keys()
    assert isinstance(module.NORMALIZE, bool)
    for name, loss in module.LOSSES.items():
        found = loss(world.agent, world.data.draw(world.agent.streams, 16))
        assert found.shape == (2,), f"{name}: a loss is [K]"
        assert found.requires_grad


def _all(rows: Rows) -> torch.Tensor:
    return torch.cat([row.flatten() for row in rows.values()])


@each_case
def test_other_data_noise_or_seed_train_another_network(algorithm: str, execution: str) -> None:
    """Guards the tests above against comparing things that never move."""
    first, second = (started([small_trial(algorithm, "snip", 0.5, seed=s)], execution) for s in (0, 1))
    first.train(0, 2)
    second.train(0, 2)
    assert not torch.equal(_all(first.rows()), _all(second.rows()))


def test_what_compact_cannot_compute_is_refused_and_auto_computes_all() -> None:
    trials = [small_trial("rebrac", "snip", 0.7, seed=0), small_trial("rebrac", "random_erk", 0.8, seed=1)]
    with pytest.raises(UserError, match=r"'compact' cannot compute layer normalization.*'auto'") as caught:
        World(trials, "compact").start()
    assert "\n" not in str(caught.value)
    assert World(trials, "auto").start().agent.execution == "sparse"


@pytest.mark.parametrize(("algorithm", "execution"), [case for case in CASES if case[1] != "dense"])
def test_every_execution_trains_as_dense_does(algorithm: str, execution: str) -> None:
    trials = [small_trial(algorithm, "snip", 0.7, seed=0), small_trial(algorithm, "random_erk", 0.8, seed=1)]
    world, reference = started(trials, execution), started(trials)
    world.train(0, 5)
    reference.train(0, 5)
    for name, row in world.rows().items():
        if name.startswith("online/"):
            torch.testing.assert_close(row, reference.rows()[name], rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("algorithm", ["bcq", "fql"])  # those that draw to act
def test_evaluation_with_noise_is_a_function_of_trial_update_and_episode(algorithm: str) -> None:
    trials = [small_trial(algorithm, seed=0), small_trial(algorithm, seed=1)]
    world = World(trials).start()
    world.train(0, 3)
    observations = torch.randn(2, 3, 5, generator=torch.Generator().manual_seed(0))
    first = world.algorithm.act(world.agent, observations)
    assert torch.equal(world.algorithm.act(world.agent, observations), first), "the same in every step and at every call"
    assert torch.equal(world.algorithm.act(world.agent, observations[:, :2]), first[:, :2]), "however many episodes there are"
    same = world.algorithm.act(world.agent, observations[:, :1].expand(-1, 3, -1))
    assert not torch.equal(same[:, 0], same[:, 1]), "episodes draw apart"
    alone = World(trials[1:]).start()
    alone.train(0, 3)
    assert torch.equal(alone.algorithm.act(alone.agent, observations[1:]), first[1:])
    world.agent.at(3)
    assert not torch.equal(world.algorithm.act(world.agent, observations), first), "another update draws anew"
