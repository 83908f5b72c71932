from __future__ import annotations

import json
import re
from dataclasses import fields, replace
from pathlib import Path

import pytest

from service.delivery.promote import default_name
from trainables import plugins
from trainables.errors import UserError
from trainables.trial import Stack, Trial, comparison, hyper_ranges, shape_of

GOLDEN = json.loads((Path(__file__).parents[2] / "golden" / "trial_keys.json").read_text())
DATA = "winnow/halfcheetah/expert-v0"


@pytest.mark.parametrize("entry", GOLDEN, ids=lambda entry: str(entry["key"]))
def test_a_trials_key_never_changes(entry: dict) -> None:
    assert Trial(**entry["trial"]).key == entry["key"]


def test_the_golden_trials_are_different_and_use_every_field() -> None:
    assert len({entry["key"] for entry in GOLDEN}) == len(GOLDEN) >= 8
    assert {name for entry in GOLDEN for name in entry["trial"]} == {field.name for field in fields(Trial)}


def test_a_default_given_explicitly_does_not_change_the_key() -> None:
    plain = Trial(dataset=DATA, pruner="snip", sparsity=0.95)
    explicit = Trial(**(plain.to_json() | {"hyper": plain.hyper_values()}))
    assert explicit.key == plain.key
    assert explicit == plain
    assert not explicit.hyper


def test_every_field_changes_the_key() -> None:
    plain = Trial(dataset=DATA, pruner="snip", sparsity=0.95)
    changes = {
        "dataset": "winnow/hopper/expert-v0", "algorithm": "bc", "pruner": "grasp", "sparsity": 0.9, "seed": 1, "updates": 1000,
        "evaluations": 2, "episodes": 3, "calibration_batches": 2, "calibration_size": 128, "hyper": {"alpha": 1.0},
        "sparsity_of": {"critic": 0.5}, "scope": "joint", "structure": "fan_in", "target": "effective", "authors": True, "rescale": "unit",
        "control": "reinit",
        "fresh": "mine", "data": "abc", "final_episodes": 5, "transitions": 10_000, "initialization": "xavier",
        "timeouts": "terminal", "reward_shift": -1.0, "reward_scale": 0.1, "allow_disconnected": True, "network": "layer_norm",
        "states": "raw", "relative_to": "default",
    }  # fmt: skip
    assert changes.keys() | {"pruning"} == {field.name for field in fields(Trial)}
    moving = Trial(dataset=DATA, pruner="rigl", sparsity=0.95)
    assert replace(moving, pruning={"delta": 500}).key != moving.key
    keys = {name: Trial(**(plain.to_json() | {name: value})).key for name, value in changes.items()}
    assert len({plain.key, *keys.values()}) == len(changes) + 1


def test_states_as_the_algorithm_takes_them_anyway_are_no_other_trial() -> None:
    def key(**given: str) -> str:
        return Trial(dataset=DATA, **given).key  # type: ignore[arg-type]

    assert key(algorithm="td3_bc", states="normalized") == key(algorithm="td3_bc") != key(algorithm="td3_bc", states="raw")
    assert key(algorithm="rebrac", states="raw") == key(algorithm="rebrac") != key(algorithm="rebrac", states="normalized")
    simba = key(algorithm="sac_n", network="simba")
    assert key(algorithm="sac_n", network="simba", states="normalized") == simba != key(algorithm="sac_n", network="simba", states="raw")


def test_equal_hyperparameters_written_differently_are_one_trial() -> None:
    def with_hyper(**hyper: object) -> Trial:
        return Trial(dataset=DATA, hyper=hyper)

    assert with_hyper(alpha=1).key == with_hyper(alpha=1.0).key
    assert with_hyper(hidden=[64, 64]).key == with_hyper(hidden=(64, 64)).key
    assert with_hyper(alpha=1.0, tau=0.01).key == with_hyper(tau=0.01, alpha=1.0).key
    assert isinstance(with_hyper(alpha=1).hyper["alpha"], float)
    assert with_hyper(alpha=2.5).key == Trial(dataset=DATA).key


@pytest.mark.parametrize("trial", [Trial(**entry["trial"]) for entry in GOLDEN], ids=lambda trial: str(trial.key))
def test_a_trial_survives_json(trial: Trial) -> None:
    again = Trial.from_json(json.loads(json.dumps(trial.to_json())))
    assert again == trial
    assert again.key == trial.key


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"pruner": "snap", "sparsity": 0.5}, ["no pruner 'snap'", *plugins.names("pruners")]),
        ({"algorithm": "td4"}, ["no algorithm 'td4'", *plugins.names("algorithms")]),
        ({"dataset": ""}, ["dataset is empty"]),
        ({"pruner": "snip", "sparsity": 1.0}, ["sparsity 1.0", "[0, 1)"]),
        ({"pruner": "snip", "sparsity": -0.1}, ["sparsity -0.1", "[0, 1)"]),
        ({"pruner": "snip", "sparsity": float("nan")}, ["sparsity nan", "[0, 1)"]),
        ({"pruner": "snip", "sparsity": True}, ["sparsity True"]),
        ({"pruner": "snip", "sparsity": "0.5"}, ["sparsity '0.5'"]),
        ({"pruner": "dense", "sparsity": 0.5}, ["'dense'", "0.5", "snip", "magnitude"]),
        ({"pruner": "snip", "sparsity": 0.0}, ["'snip'", "0.0"]),
        ({"pruner": "snip", "sparsity_of": {"value": 0.5}}, ["'value'", "actor, critic"]),
        ({"pruner": "snip", "sparsity_of": {"critic": 1}}, ["sparsity of the critic 1 ", "[0, 1)"]),
        ({"pruner": "snip", "sparsity_of": {"critic": "0.5"}}, ["sparsity of the critic '0.5'"]),
        ({"pruner": "dense", "sparsity_of": {"critic": 0.5}}, ["'dense'", "snip"]),
        ({"pruner": "snip", "sparsity": 0.5, "sparsity_of": {"actor": 0.0, "critic": 0}}, ["'snip'", "'dense'"]),
        ({"pruner": "snip", "sparsity": 0.5, "scope": "world"}, ["scope 'world'", "network, joint, layer"]),
        ({"pruner": "snip", "sparsity": 0.5, "target": 0.5}, ["target '0.5'", "nominal, effective"]),
        ({"pruner": "snip", "sparsity": 0.5, "authors": 1}, ["authors '1'", "False, True"]),
        ({"pruner": "snip", "sparsity": 0.5, "algorithm": "bc", "authors": True}, ["authors True", "'snip' with bc", "none"]),
        ({"pruner": "snip", "sparsity": 0.5, "rescale": True}, ["rescale 'True'", "none, layer, unit"]),
        ({"pruner": "snip", "sparsity": 0.5, "control": "erk"}, ["control 'erk'", "none, shuffle, reinit"]),
        ({"pruner": "snip", "sparsity": 0.5, "allow_disconnected": "yes"}, ["allow_disconnected 'yes'"]),
        ({"scope": "layer"}, ["scope 'layer' has no effect on pruner 'dense'", "snip"]),
        ({"pruner": "random_erk", "sparsity": 0.5, "scope": "layer"}, ["scope 'layer'", "'random_erk'", "magnitude", "snip"]),
        (
            {"pruner": "snip", "sparsity": 0.5, "structure": "units", "scope": "layer"},
            ["structure 'units' takes the place of scope 'layer'"],
        ),
        ({"pruner": "snip", "sparsity": 0.5, "structure": "2:4", "target": "effective"}, ["structure '2:4'", "target 'effective'"]),
        ({"pruner": "small_dense", "sparsity": 0.5, "structure": "2:4"}, ["structure '2:4'", "'small_dense'", "snip"]),
        ({"pruner": "rigl", "sparsity": 0.5, "structure": "units"}, ["structure 'units'", "'rigl'", "snip"]),
        ({"pruner": "random_erk", "sparsity": 0.5, "structure": "2:4"}, ["structure '2:4'", "'random_erk'", "random_uniform", "snip"]),
        ({"pruner": "snip", "sparsity": 0.9, "structure": "2:4"}, ["'2:4' removes 0.5 of the weights", "0.9"]),
        ({"pruner": "snip", "sparsity": 0.5, "structure": "3:4"}, ["structure '3:4'", "none, units, fan_in, 2:4, 1:4, 1:8, 1:16"]),
        ({"initialization": "he"}, ["initialization 'he'", "torch, xavier"]),
        ({"timeouts": "done"}, ["timeouts 'done'", "bootstrap, terminal"]),
        ({"transitions": -1}, ["transitions -1", ">= 0"]),
        ({"pruner": "synflow", "sparsity": 0.5, "target": "effective"}, ["target 'effective'", "'synflow'", "force"]),
        ({"pruner": "gmp", "sparsity": 0.5, "rescale": "layer"}, ["rescale 'layer'", "'gmp'", "snip"]),
        ({"pruner": "small_dense", "sparsity": 0.5, "control": "shuffle"}, ["control 'shuffle'", "'small_dense'"]),
        ({"pruner": "random_erk", "sparsity": 0.5, "authors": True}, ["authors True", "'random_erk'", "it has one on: force, grasp"]),
        ({"pruner": "synflow", "sparsity": 0.5, "authors": True}, ["authors True", "'synflow'"]),
        ({"pruner": "snip", "algorithm": "iql", "sparsity": 0.5, "authors": True}, ["authors True", "iql", "it has one on: none"]),
        ({"seed": -1}, ["seed -1", ">= 0"]),
        ({"seed": 1.5}, ["seed 1.5"]),
        ({"seed": True}, ["seed True"]),
        ({"updates": 0}, ["updates 0", ">= 1"]),
        ({"episodes": 0}, ["episodes 0"]),
        ({"calibration_batches": 0}, ["calibration_batches 0"]),
        ({"updates": 5, "evaluations": 6}, ["evaluations 6", "updates 5"]),
        ({"hyper": {"alfa": 1.0}}, ["'alfa'", "td3_bc", "alpha", "tau", "batch_size"]),
        ({"hyper": {"alpha": "1"}}, ["alpha '1'", "2.5"]),
        ({"hyper": {"alpha": None}}, ["alpha None"]),
        ({"hyper": {"alpha": True}}, ["alpha True"]),
        ({"hyper": {"alpha": float("inf")}}, ["alpha inf is not finite"]),
        ({"hyper": {"alpha": -(10**400)}}, ["alpha -1", "is not finite"]),
        ({"hyper": {"batch_size": 2.5}}, ["batch_size 2.5", "256"]),
        ({"hyper": {"batch_size": 0}}, ["batch_size 0", "[1, 1000000]"]),
        ({"algorithm": "edac", "hyper": {"critics": 1}}, ["edac's critics 1", "[2, inf)"]),
        ({"algorithm": "sac_n", "hyper": {"critics": 1}}, ["sac_n's critics 1", "[2, inf)"]),
        ({"algorithm": "fql", "hyper": {"alpha": -1.0}}, ["fql's alpha -1.0", "[0, inf)"]),
        ({"algorithm": "iql", "hyper": {"expectile": 7.0}}, ["iql's expectile 7.0", "(0, 1)"]),
        ({"algorithm": "iql", "hyper": {"expectile": 1}}, ["iql's expectile 1.0", "(0, 1)"]),
        ({"algorithm": "iql", "hyper": {"log_std_min": 3}}, ["log_std_min 3.0", "(-inf, log_std_max)", "log_std_max 2.0"]),
        ({"hyper": {"tau": -1}}, ["tau -1.0", "[0, 1]"]),
        ({"hyper": {"discount": 1.01}}, ["discount 1.01", "[0, 1]"]),
        ({"hyper": {"learning_rate": -1.0}}, ["learning_rate -1.0", "[0, inf)"]),
        ({"hyper": {"hidden": 256}}, ["hidden 256", "(256, 256)"]),
        ({"hyper": {"hidden": ()}}, ["hidden ()", "type"]),
        ({"hyper": {"hidden": (16, 0)}}, ["hidden (16, 0) is not at least 1"]),
        ({"algorithm": "cql", "hyper": {"samples": 0}}, ["cql's samples 0 is not at least 1"]),
        ({"algorithm": "cql", "hyper": {"samples": 1.5}}, ["cql's samples 1.5", "type", "10"]),
        ({"hyper": {"hidden": (16, "16")}}, ["hidden (16, '16')"]),
    ],
)
def test_a_senseless_trial_is_refused_with_the_value_and_the_choices(given: dict, words: list[str]) -> None:
    with pytest.raises(UserError) as caught:
        Trial(**({"dataset": DATA} | given))
    message = str(caught.value)
    assert "\n" not in message
    for word in words:
        assert word in message


def test_ends_that_a_range_includes_are_taken() -> None:
    assert Trial(dataset=DATA, hyper={"tau": 1, "discount": 0, "alpha": 0}).hyper == {"tau": 1.0, "discount": 0.0, "alpha": 0.0}
    assert Trial(dataset=DATA, algorithm="edac", hyper={"critics": 2}).hyper == {"critics": 2}


@pytest.mark.parametrize("algorithm", plugins.names("algorithms"))
def test_every_range_is_of_a_number_that_is_there(algorithm: str) -> None:
    """COMMON only knows names that some algorithm has; an algorithm's own are all its own."""
    defaults = plugins.hyper_defaults(algorithm)
    assert plugins.ranges("algorithms", algorithm).keys() <= defaults.keys()
    Trial(dataset=DATA, algorithm=algorithm)
    assert all(any(name in plugins.hyper_defaults(other) for other in plugins.names("algorithms")) for name in hyper_ranges.COMMON)


def test_from_json_refuses_an_unknown_field() -> None:
    with pytest.raises(UserError, match=r"'sparsety'.*sparsity"):
        Trial.from_json({"dataset": DATA, "sparsety": 0.5})


def test_a_trial_is_frozen() -> None:
    with pytest.raises(AttributeError):
        Trial(dataset=DATA).seed = 3  # type: ignore[misc]


def test_the_name_says_the_cell() -> None:
    assert Trial(dataset=DATA, pruner="snip", sparsity=0.95, seed=2).name == "td3_bc/halfcheetah-expert/snip@95/s2"
    assert Trial(dataset=DATA, algorithm="bc").name == "bc/halfcheetah-expert/dense/s0"
    other = Trial(dataset=DATA, algorithm="bc", transitions=10_000, initialization="xavier", timeouts="terminal")
    assert other.name == "bc/halfcheetah-expert:10000:xavier:terminal/dense/s0"
    assert default_name(other) == "bc-halfcheetah-expert-10000-xavier-terminal", "MLflow takes it as the name of a model"
    mixed = Trial(dataset=DATA, pruner="snip", sparsity=0.95, sparsity_of={"critic": 0.9}, control="shuffle", rescale="unit", authors=True)
    assert mixed.name == "td3_bc/halfcheetah-expert/snip@95,critic@90+authors+rescale=unit+shuffle/s0"


def test_a_networks_own_sparsity_that_is_the_common_one_is_not_told_twice() -> None:
    plain = Trial(dataset=DATA, pruner="snip", sparsity=0.95)
    assert Trial(dataset=DATA, pruner="snip", sparsity=0.95, sparsity_of={"critic": 0.95}) == plain
    only = Trial(dataset=DATA, pruner="snip", sparsity_of={"actor": 0.95})
    assert (only.sparsity_in("actor"), only.sparsity_in("critic")) == (0.95, 0.0)


def test_a_control_without_a_loss_has_no_calibration_and_so_one_key() -> None:
    plain = Trial(dataset=DATA, pruner="snip", sparsity=0.95)
    other = Trial(dataset=DATA, pruner="snip", sparsity=0.95, calibration_size=4096, authors=True)
    assert other.method == "snip+authors+calibration_size=4096"
    same = {kind for kind, control in other.controls().items() if control == plain.controls()[kind]}
    assert same == {"erk", "small_dense"}
    assert other.controls()["shuffle"].calibration_size == 4096
    assert comparison(other) == comparison(other.controls()["erk"])


@pytest.mark.parametrize(("updates", "evaluations"), [(10, 10), (1000, 7), (7, 3), (1, 1)])
def test_evaluations_are_spread_evenly_and_end_with_the_last_update(updates: int, evaluations: int) -> None:
    found = Trial(dataset=DATA, updates=updates, evaluations=evaluations).evaluation_updates()
    assert len(set(found)) == evaluations
    assert found[-1] == updates
    assert list(found) == sorted(found)
    gaps = [b - a for a, b in zip((0, *found), found, strict=False)]
    assert max(gaps) - min(gaps) <= 1


def test_density_is_the_rest() -> None:
    assert Trial(dataset=DATA, pruner="snip", sparsity=0.75).density == 0.25


BASE = {"dataset": DATA, "pruner": "snip", "sparsity": 0.9}


@pytest.mark.parametrize(
    "free",
    [
        {"seed": 1}, {"sparsity": 0.5}, {"pruner": "magnitude"}, {"hyper": {"alpha": 1.0}}, {"hyper": {"alpha": 1}}, {"scope": "joint"},
        {"sparsity_of": {"critic": 0.5}}, {"rescale": "layer"}, {"control": "shuffle"}, {"authors": True}, {"calibration_batches": 2},
    ],
)  # fmt: skip
def test_stack_mates_may_differ_in_what_does_not_shape_the_model(free: dict) -> None:
    assert len(Stack((Trial(**BASE), Trial(**(BASE | free))))) == 2


@pytest.mark.parametrize(
    "other",
    [
        {"dataset": "winnow/hopper/expert-v0"}, {"algorithm": "bc"}, {"updates": 10_000}, {"evaluations": 5}, {"episodes": 5},
        {"hyper": {"hidden": (64, 64)}}, {"hyper": {"batch_size": 64}},
        {"hyper": {"policy_delay": 1}}, {"pruner": "small_dense"}, {"pruner": "gmp"},
    ],
)  # fmt: skip
def test_a_stack_refuses_trials_of_other_shapes(other: dict) -> None:
    first, second = Trial(**BASE), Trial(**(BASE | {"seed": 1} | other))
    assert shape_of(first) != shape_of(second)
    with pytest.raises(UserError, match="cannot share a stack") as caught:
        Stack((first, second))
    assert first.name in str(caught.value)
    assert second.name in str(caught.value)


def test_a_stack_refuses_to_be_empty_or_to_hold_a_trial_twice() -> None:
    with pytest.raises(UserError, match="at least one"):
        Stack(())
    with pytest.raises(UserError, match=f"^a stack holds a trial twice: {re.escape(Trial(**BASE).name)}$"):
        Stack((Trial(**BASE), Trial(**BASE), Trial(**BASE, seed=7)))
