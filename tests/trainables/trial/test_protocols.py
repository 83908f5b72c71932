"""Protocols fill in what a sweep or a trial leaves at its default."""

from __future__ import annotations

import pytest

from search_spaces.sweep import Sweep, expand, override
from trainables.__main__ import parser, with_protocol
from trainables.errors import UserError
from trainables.trial import Trial
from trainables.trial.protocols import PROTOCOLS, protocol

DATA = "winnow/hopper/expert-v0"


def swept(**given: object) -> dict[str, Trial]:
    made = {"datasets": (DATA,), "pruners": ("dense", "snip", "random_erk"), "sparsities": (0.95,), "protocol": "authors"}
    return {f"{trial.algorithm}/hopper-expert/{trial.cell}{trial.transitions or ''}": trial for trial in expand(Sweep(**(made | given)))}  # type: ignore[arg-type]


def test_a_sweep_takes_the_settings_of_the_authors_code() -> None:
    trials = swept(algorithms=("bc", "td3_bc", "iql", "awac"))
    bc, td3, iql = (trials[f"{name}/hopper-expert/snip@95{more}"] for name, more in (("bc", ""), ("td3_bc", "+authors"), ("iql", "")))
    assert {trial.timeouts for trial in trials.values()} == {"terminal"}
    assert {trial.initialization for trial in trials.values() if trial.algorithm != "td3_bc"} == {"xavier"}
    assert td3.initialization == "torch"
    assert td3.hyper == {"learning_rate": 1e-3}
    assert td3.authors
    assert not trials["td3_bc/hopper-expert/random_erk@95"].authors, "nothing is scored"
    assert bc.hyper == {"gaussian": True, "learning_rate": 1e-3}
    assert iql.hyper == {"actor_learning_rate": 1e-3, "critic_learning_rate": 1e-3, "log_std_min": -5.0, "squash": False}
    assert trials["awac/hopper-expert/dense"].hyper_values()["hidden"] == (256, 256)


def test_what_the_sweep_sets_takes_precedence() -> None:
    trials = swept(algorithms=("bc",), hyper={"learning_rate": 3e-4}, transitions=(10_000, 0)).values()
    assert {trial.transitions for trial in trials} == {10_000, 0}
    assert {trial.hyper["gaussian"] for trial in trials} == {True}
    assert {trial.hyper_values()["learning_rate"] for trial in trials} == {3e-4}


def test_so_does_what_it_sets_to_what_is_usual_elsewhere() -> None:
    """How else could one leave out one setting of a protocol? TD3+BC's has two of the three."""
    usual = {"initialization": "torch", "timeouts": "bootstrap", "authors": False}
    as_they_are = expand(Sweep(datasets=(DATA,), pruners=("snip",), sparsities=(0.95,), hyper={"learning_rate": 1e-3}))
    assert [*swept(pruners=("snip",), algorithms=("td3_bc",), **usual).values()] == [*as_they_are]
    sweep = Sweep(datasets=(DATA,), pruners=("snip",), sparsities=(0.95,), protocol="authors")
    typed = override(sweep, ["initialization=torch", "timeouts=bootstrap", "authors=false"])
    assert expand(typed) == as_they_are
    for name, value in usual.items():
        (without,) = expand(override(sweep, [f"{name}={str(value).lower()}"]))
        assert getattr(without, name) == value
        assert sum(getattr(without, other) != usual[other] for other in usual) == (2 if name == "initialization" else 1)


def test_fields_of_training_and_pruning_are_axes_when_they_have_several_values() -> None:
    sweep = Sweep(datasets=(DATA,), algorithms=("bc",), pruners=("dense", "snip"), sparsities=(0.9,))
    cells = expand(override(sweep, ["calibration_batches=1,16", "rescale=none,unit", "timeouts=bootstrap,terminal"]))
    assert len(cells) == 2 * (1 + 2 * 2)
    assert {(t.calibration_batches, t.rescale) for t in cells if t.pruner == "snip"} == {
        (1, "none"),
        (1, "unit"),
        (16, "none"),
        (16, "unit"),
    }
    with pytest.raises(UserError, match="no timeouts 'never'; there are: bootstrap, terminal"):
        expand(override(sweep, ["timeouts=bootstrap,never"]))
    with pytest.raises(UserError, match="calibration_batches 'many' is not an integer"):
        override(sweep, ["calibration_batches=1,many"])


def test_a_trial_takes_a_protocol_from_the_command_line() -> None:
    given = vars(parser().parse_args(["--dataset", DATA, "--algorithm", "td3_bc", "--pruner", "snip", "--sparsity", "0.9"])) | {
        "hyper": {"tau": 0.01}
    }
    filled = with_protocol(given, protocol("authors", "td3_bc"))
    assert (filled["timeouts"], filled["authors"], filled["hyper"]) == ("terminal", True, {"learning_rate": 1e-3, "tau": 0.01})
    assert not with_protocol(given | {"pruner": "magnitude"}, protocol("authors", "td3_bc"))["authors"]
    words = ["--dataset", DATA, "--algorithm", "td3_bc", "--pruner", "snip", "--timeouts", "bootstrap", "--no-authors"]
    filled = with_protocol(vars(parser().parse_args(words)) | {"hyper": {}}, protocol("authors", "td3_bc"))
    assert (filled["timeouts"], filled["authors"], filled["initialization"]) == ("bootstrap", False, "torch")
    plain = with_protocol(given, protocol("", "td3_bc"))
    assert (plain["timeouts"], plain["authors"], plain["initialization"]) == ("bootstrap", False, "torch")


def test_other_names_are_answered_with_those_there_are() -> None:
    with pytest.raises(UserError, match="no protocol 'author'; there are: authors"):
        protocol("author", "bc")
    with pytest.raises(UserError, match="protocol 'authors' has no cql; it has: bc, iql, awac, td3_bc"):
        swept(algorithms=("cql",))


@pytest.mark.parametrize("name", PROTOCOLS)
def test_every_setting_is_one_of_its_algorithm(name: str) -> None:
    for algorithm, settings in PROTOCOLS[name].items():
        given = {"dataset": DATA, "algorithm": algorithm, "pruner": "snip", "sparsity": 0.5, **settings}
        assert len(Trial(**given).hyper) == len(settings["hyper"]), "each differs from the default"
