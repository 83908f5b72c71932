"""What holds for every file in pruners/, with every algorithm."""

from __future__ import annotations

import functools
from dataclasses import replace

import pytest
import torch

from tests.stacks import World, small_trial
from trainables import plugins
from trainables.pruners import Scored
from trainables.pruning.mask_changes import change, changes_of
from trainables.pruning.prune import prune
from trainables.pruning.ranking import kept
from trainables.tensors.mask import Mask, on_path, to_row
from trainables.tensors.mlp import MLP
from trainables.trial import TRAINING_CHOICES, Trial, options_of
from trainables.trial.pruner_traits import traits_of

ALL = plugins.names("pruners")
# Those that make masks before training, once and for all; gradual ones, masks that move and smaller networks have contracts of their own.
PRUNERS = tuple(name for name in ALL if traits_of(name).at_initialization)
MOVING = tuple(name for name in ALL if traits_of(name).starts_sparse and traits_of(name).during_training)
GRADUAL = tuple(name for name in ALL if traits_of(name).during_training and name not in MOVING)
SMALLER = tuple(name for name in ALL if traits_of(name).shrinks)
ALGORITHMS = plugins.names("algorithms")
each_pruner = pytest.mark.parametrize("pruner", PRUNERS)
each_algorithm = pytest.mark.parametrize("algorithm", ALGORITHMS)


def trial_of(algorithm: str, pruner: str, sparsity: float, seed: int = 0) -> Trial:
    return small_trial(algorithm, pruner, 0.0 if pruner == "dense" else sparsity, seed)


def masks_of(*trials: Trial) -> dict[str, Mask]:
    world = World(trials)
    return prune(world.agent, world.stack, world.data.draw)


ALONE: dict[str, dict[str, Mask]] = {}  # by the trial's key


def alone(trial: Trial) -> dict[str, Mask]:
    """The masks of a stack of one, which many tests ask for; only read."""
    if trial.key not in ALONE:
        ALONE[trial.key] = masks_of(trial)
    return ALONE[trial.key]


def member(masks: dict[str, Mask], index: int) -> torch.Tensor:
    """All masks of a member, flat."""
    return torch.cat([layer[index].flatten() for name in sorted(masks) for layer in masks[name]])


@functools.cache
def mixed(pruner: str, algorithm: str) -> tuple[list[Trial], dict[str, MLP], dict[str, Mask]]:
    """A stack of several pruners, its networks and its masks; only read. Dense is the second, and the pruner's first trial the third."""
    trials = [trial_of(algorithm, "snip", 0.5, 1), trial_of(algorithm, "dense", 0, 2)]
    trials += [trial_of(algorithm, pruner, 0.6), trial_of(algorithm, "random_erk", 0.7, 3)]
    if pruner != "dense":
        trials += [trial_of(algorithm, pruner, 0.37, 4), trial_of(algorithm, pruner, 0.75, 2)]
    world = World(trials)
    return trials, world.agent.specs, prune(world.agent, world.stack, world.data.draw)


@each_pruner
@each_algorithm
def test_exactly_the_asked_number_of_weights_is_kept_in_every_network(pruner: str, algorithm: str) -> None:
    trials, specs, masks = mixed(pruner, algorithm)
    assert masks.keys() == specs.keys()
    for name, mask in masks.items():
        spec = specs[name]
        assert [tuple(layer.shape) for layer in mask] == [(len(trials), spec.copies, n_out, n_in) for n_in, n_out in spec.layers]
        assert all(((layer == 0) | (layer == 1)).all() for layer in mask)
        counts = [sum(int(layer[k].sum()) for layer in mask) for k in range(len(trials))]
        assert counts == [kept(trial.density, sum(spec.weights_per_layer)) for trial in trials]
        assert all(layer.flatten(1).sum(1).min() > 0 for layer in on_path(mask))


@each_pruner
def test_the_same_seed_gives_the_same_mask_and_another_seed_another(pruner: str) -> None:
    first = masks_of(trial_of("td3_bc", pruner, 0.6))
    assert torch.equal(member(first, 0), member(alone(trial_of("td3_bc", pruner, 0.6)), 0))
    other = masks_of(trial_of("td3_bc", pruner, 0.6, seed=1))
    assert torch.equal(member(first, 0), member(other, 0)) == (pruner == "dense")


@each_pruner
@each_algorithm
def test_a_members_mask_does_not_depend_on_its_stack_mates(pruner: str, algorithm: str) -> None:
    trials, _, together = mixed(pruner, algorithm)
    for k in (2, 0):
        assert torch.equal(member(together, k), member(alone(trials[k]), 0))


@each_pruner
def test_pruning_leaves_the_agent_as_it_was(pruner: str) -> None:
    world = World([trial_of("iql", pruner, 0.6)])
    world.agent.at(3)
    prune(world.agent, world.stack, world.data.draw)
    for name in world.agent.specs:
        assert torch.equal(world.agent.networks[name].parameters, world.agent.initial(name))
        assert world.agent.optimizers[name].count == 0
    again = World([trial_of("iql", pruner, 0.6)])
    again.agent.at(3)
    assert torch.equal(world.agent.noise("x", 4), again.agent.noise("x", 4))


@each_pruner
def test_sparser_is_a_different_ranking_only_where_rounds_or_budgets_say_so(pruner: str) -> None:
    """A single ranking gives nested masks, so what 70 % keeps is kept at 50 %."""
    if pruner == "dense" or traits_of(pruner).in_rounds:
        return
    found = masks_of(*(trial_of("td3_bc", pruner, sparsity) for sparsity in (0.7, 0.5, 0.2)))
    sparse, middle, dense = (member(found, k) for k in range(3))
    assert (sparse <= middle).all()
    assert (middle <= dense).all()


@each_pruner
def test_more_calibration_batches_are_used_where_data_is_used(pruner: str) -> None:
    """A pruner whose file asks for losses gives another mask for other data; one that does not, the same."""
    one = trial_of("td3_bc", pruner, 0.6)
    same = torch.equal(member(alone(one), 0), member(alone(replace(one, calibration_batches=3)), 0))
    assert same == (not traits_of(pruner).uses_losses)


@each_pruner
def test_stack_mates_with_other_calibration_data_are_scored_on_their_own(pruner: str) -> None:
    trials = [replace(trial_of("td3_bc", pruner, 0.6), calibration_batches=batches) for batches in (1, 3)]
    together = masks_of(*trials)
    for k, trial in enumerate(trials):
        assert torch.equal(member(together, k), member(alone(trial), 0))


@each_pruner
@pytest.mark.parametrize("scope", ["joint", "layer"])
@pytest.mark.parametrize("target", ["nominal", "effective"])
def test_scopes_and_targets_keep_what_they_say(pruner: str, scope: str, target: str) -> None:
    options = {"scope": scope, "target": target}
    if not {name for name, value in options.items() if value not in ("network", "nominal")} <= options_of(pruner, "td3_bc"):
        return
    trials = [replace(trial_of("td3_bc", pruner, sparsity, seed), **options) for seed, sparsity in enumerate((0.4, 0.6))]
    world = World(trials)
    masks = prune(world.agent, world.stack, world.data.draw)
    totals = {name: sum(spec.weights_per_layer) for name, spec in world.agent.specs.items()}
    for k, trial in enumerate(trials):
        counts = {name: sum(int(layer[k].sum()) for layer in mask) for name, mask in masks.items()}
        live = {name: sum(int(layer[k].sum()) for layer in on_path(mask)) for name, mask in masks.items()}
        wanted = {name: kept(trial.density, total) for name, total in totals.items()}
        if target == "effective":
            assert counts == live, "nothing is kept that lies on no path"
            assert abs(sum(live.values()) - sum(wanted.values())) <= 16, "one more weight may bring a whole unit to life, no more"
        else:
            assert sum(counts.values()) == sum(wanted.values())
        if scope == "layer" and target == "nominal":
            for mask in masks.values():
                for layer in mask:
                    assert abs(float(layer[k].sum()) - trial.density * layer[k].numel()) < 1
        if scope == "layer":
            assert all(abs(counts[name] - wanted[name]) <= (16 if target == "effective" else 0) for name in counts)


@each_pruner
def test_networks_may_have_sparsities_of_their_own(pruner: str) -> None:
    if pruner == "dense":
        return
    trial = small_trial("td3_bc", pruner, 0.6, sparsity_of={"critic": 0.0})
    masks = masks_of(trial)
    assert all((layer == 1).all() for layer in masks["critic"])
    assert sum(int(layer.sum()) for layer in masks["actor"]) == kept(0.4, sum(layer[0].numel() for layer in masks["actor"]))
    if not traits_of(pruner).in_rounds:  # in rounds, the actor's loss sees the critic as pruned so far
        both = alone(trial_of("td3_bc", pruner, 0.6))
        assert torch.equal(member({"actor": masks["actor"]}, 0), member({"actor": both["actor"]}, 0))


@each_pruner
@each_algorithm
def test_one_scoring_serves_all_sparsities_of_a_seed(pruner: str, algorithm: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Members that share seed, pruner and hyperparameters are scored once, and bit for bit as they are alone."""
    module = plugins.load("pruners", pruner)
    if pruner == "dense" or traits_of(pruner).in_rounds:
        return
    trials = [trial_of(algorithm, pruner, sparsity, seed) for seed in (0, 1) for sparsity in (0.3, 0.5, 0.6)]
    apart = [member(alone(trial), 0) for trial in trials]
    sizes: list[int] = []
    original = module.saliency

    def count(network: Scored) -> list[torch.Tensor]:
        sizes.append(len(network.weights[0]))
        return original(network)

    monkeypatch.setattr(module, "saliency", count)
    together = masks_of(*trials)
    assert sizes == [2] * len(together), "two seeds, so two members are scored for each network"
    for k, wanted in enumerate(apart):
        assert torch.equal(member(together, k), wanted)


@pytest.mark.parametrize("pruner", GRADUAL)
@each_algorithm
@pytest.mark.parametrize("execution", ["dense", "sparse", "auto"])
def test_a_gradual_mask_ends_at_its_density_and_holds_in_all_that_is_kept(pruner: str, algorithm: str, execution: str) -> None:
    trials = [small_trial(algorithm, pruner, 0.75, updates=16), small_trial(algorithm, pruner, 0.5, seed=1, updates=16)]
    world = World(trials, execution).start()
    changes = changes_of(world.stack)
    assert changes
    assert min(changes) > 0
    assert max(changes) < trials[0].updates
    before = [float(layer[0].sum()) for mask in world.masks.values() for layer in mask]
    assert all(float(layer[0].mean()) == 1 for mask in world.masks.values() for layer in mask), "it starts dense"
    for update in range(trials[0].updates):
        if update in changes:
            old = world.masks
            world.masks = change(world.agent, world.stack, world.masks, changes[update], execution, update, world.data.draw)
            for name, mask in world.masks.items():
                assert all((new <= past).all() for new, past in zip(mask, old[name], strict=True)), "what is gone stays gone"
        world.train(update, update + 1)
    assert len(before) > 0
    for name, mask in world.masks.items():
        spec = world.agent.specs[name]
        assert sum(int(layer[0].sum()) for layer in mask) == kept(0.25, sum(spec.weights_per_layer))
        removed = to_row(spec, mask) == 0
        for kind, rows in world.rows().items():
            if kind.endswith(f"/{name}") and not kind.startswith("latent"):
                assert (rows[removed] == 0).all(), kind
                assert (rows[~removed] != 0).any()


MOVES, DELTA = 14, 3  # updates, and those between two changes


def moving(algorithm: str, pruner: str, sparsity: float, seed: int = 0) -> Trial:
    """The last changes of a schedule that ends with training would replace less than one of so few weights."""
    ends = {"end": 0.8} if "end" in plugins.pruner_settings(pruner) else {}
    return small_trial(algorithm, pruner, sparsity, seed, pruning={"delta": DELTA} | ends, updates=MOVES)


@pytest.mark.parametrize("pruner", MOVING)
@each_algorithm
@pytest.mark.parametrize("execution", ["dense", "sparse", "auto"])
def test_a_mask_that_moves_keeps_its_number_of_weights_and_holds_in_all_that_is_kept(pruner: str, algorithm: str, execution: str) -> None:
    trials = [moving(algorithm, pruner, 0.75), moving(algorithm, pruner, 0.5, seed=1)]
    world = World(trials, execution).start()
    changes = changes_of(world.stack)
    assert set(changes) == set(range(DELTA, 11 if traits_of(pruner).grows else MOVES, DELTA))
    for update in range(MOVES):
        if update in changes:
            before, old = world.rows(), world.masks
            world.masks = change(world.agent, world.stack, world.masks, changes[update], execution, update, world.data.draw)
            rows = world.rows()
            for name, mask in world.masks.items():
                spec = world.agent.specs[name]
                assert [sum(int(layer[k].sum()) for layer in mask) for k in range(2)] == [
                    kept(trial.density, sum(spec.weights_per_layer)) for trial in trials
                ]
                if traits_of(pruner).grows:
                    assert all(torch.equal(new.sum((2, 3)), past.sum((2, 3))) for new, past in zip(mask, old[name], strict=True))
                now, was = to_row(spec, mask) == 1, to_row(spec, old[name]) == 1
                assert (now & ~was).any(), "something grows"
                for kind in ("online", "target", "adam.first", "adam.second"):
                    row = rows.get(f"{kind}/{name}")
                    if row is None:
                        continue
                    assert (row[~now] == 0).all(), kind
                    assert torch.equal(row[now & was], before[f"{kind}/{name}"][now & was]), kind
                    if kind.startswith("adam") or traits_of(pruner).grows:
                        assert (row[now & ~was] == 0).all(), kind
                    elif kind in ("online", "target"):
                        assert torch.equal(row[now & ~was], before[f"latent/{name}"][now & ~was])
        world.train(update, update + 1)
    for name, mask in world.masks.items():
        removed = to_row(world.agent.specs[name], mask) == 0
        assert all((row[removed] == 0).all() for kind, row in world.rows().items() if kind.endswith(f"/{name}") and "latent" not in kind)


@pytest.mark.parametrize("pruner", MOVING)
@each_algorithm
def test_a_mask_moves_as_it_would_without_its_stack_mates(pruner: str, algorithm: str) -> None:
    """Also beside a member whose parameters are no longer numbers, and one that is calibrated on other data."""
    own, mate, sick = (
        moving(algorithm, pruner, 0.6),
        replace(moving(algorithm, pruner, 0.4, 1), calibration_size=32),
        moving(algorithm, pruner, 0.5, 2),
    )
    single, together = World([own]).start(), World([mate, own, sick]).start()
    together.agent.networks[next(iter(together.agent.specs))].parameters[2] = torch.nan
    for world in (single, together):
        changes = changes_of(world.stack)
        for update in range(MOVES):
            if update in changes:
                world.masks = change(world.agent, world.stack, world.masks, changes[update], "dense", update, world.data.draw)
            world.train(update, update + 1)
    assert torch.equal(member(together.masks, 1), member(single.masks, 0))
    for name, row in single.rows().items():
        assert torch.equal(together.rows()[name][1], row[0]), name


@pytest.mark.parametrize("pruner", [*MOVING, *GRADUAL])
@pytest.mark.parametrize("network", TRAINING_CHOICES["network"])
def test_a_mask_that_changes_in_any_kind_of_network_is_that_of_the_trial_alone_and_keeps_what_it_keeps(pruner: str, network: str) -> None:
    def changing(sparsity: float, seed: int) -> Trial:
        own = moving("td3_bc", pruner, sparsity, seed) if pruner in MOVING else small_trial("td3_bc", pruner, sparsity, seed, updates=MOVES)
        return replace(own, network=network, hyper=dict(own.hyper) | {"hidden": (16, 16)})

    single, together = World([changing(0.6, 0)]).start(), World([changing(0.4, 1), changing(0.6, 0)]).start()
    for world in (single, together):
        changes = changes_of(world.stack)
        assert changes
        for update in range(MOVES):
            if update in changes:
                before, old = world.rows(), world.masks
                world.masks = change(world.agent, world.stack, world.masks, changes[update], "dense", update, world.data.draw)
                for name, mask in world.masks.items():
                    now, was = (to_row(world.agent.specs[name], each) == 1 for each in (mask, old[name]))
                    wanted = before[f"latent/{name}" if traits_of(pruner).rewinds else f"online/{name}"]
                    assert torch.equal(world.rows()[f"online/{name}"][now & was], wanted[now & was])
            world.train(update, update + 1)
    assert torch.equal(member(together.masks, 1), member(single.masks, 0))
    for name, row in single.rows().items():
        assert torch.equal(together.rows()[name][1], row[0]), name
    for name, spec in single.agent.specs.items():
        assert sum(int(layer[0].sum()) for layer in single.masks[name]) == kept(0.4, sum(spec.weights_per_layer))


@pytest.mark.parametrize("pruner", SMALLER)
@each_algorithm
@pytest.mark.parametrize("sparsity", [0.5, 0.8, 0.95])
def test_a_smaller_network_has_about_as_many_weights(pruner: str, algorithm: str, sparsity: float) -> None:
    hyper = {name: (256, 256) for name, value in plugins.hyper_defaults(algorithm).items() if isinstance(value, tuple)}
    trial = small_trial(algorithm, pruner, sparsity, hyper=hyper)
    world, dense = World([trial]), World([small_trial(algorithm, hyper=hyper)])
    assert all((layer == 1).all() for mask in masks_of(trial).values() for layer in mask)
    for name, spec in world.agent.specs.items():
        large = dense.agent.specs[name]
        assert (spec.sizes[0], spec.sizes[-1], spec.copies) == (large.sizes[0], large.sizes[-1], large.copies)
        assert all(width % 4 == 0 for width in spec.sizes[1:-1])
        assert sum(spec.weights_per_layer) == pytest.approx((1 - sparsity) * sum(large.weights_per_layer), rel=0.04)
