from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from search_spaces.sweep import Range, Search, Sweep, expand, override
from search_spaces.sweep.sweep import VARIED
from service.results.cells import settings
from tests.search_spaces.sweep.small import DATA, small
from trainables.errors import UserError
from trainables.trial import CHOICES, TRAINING_CHOICES


def test_the_grid_has_every_cell_once_and_dense_is_one_cell() -> None:
    trials = expand(small())
    cells = [(t.dataset, t.algorithm, t.pruner, t.sparsity, t.seed) for t in trials]
    assert len(set(cells)) == len(cells) == 2 * 2 * (1 + 2 * 2) * 3
    assert sum(t.pruner == "dense" for t in trials) == 2 * 2 * 3
    assert len({t.key for t in trials}) == len(trials)
    assert all(t.updates == 100 for t in trials)


def test_the_first_trials_span_the_grid() -> None:
    trials = expand(small())
    one_seed = trials[: len(trials) // 3]
    assert {t.seed for t in one_seed} == {0}
    assert {(t.dataset, t.algorithm, t.pruner, t.sparsity) for t in one_seed} == {
        (t.dataset, t.algorithm, t.pruner, t.sparsity) for t in trials
    }
    assert [t.pruner for t in trials[:4]] == ["dense"] * 4
    assert expand(small()) == trials


def test_sparsity_zero_is_the_dense_cell() -> None:
    trials = expand(small(pruners=("snip",), sparsities=(0.0, 0.5), seeds=(0,), datasets=DATA[:1], algorithms=("bc",)))
    assert [(t.pruner, t.sparsity) for t in trials] == [("dense", 0.0), ("snip", 0.5)]


def test_a_hyperparameter_goes_to_the_algorithms_that_have_it_and_a_tuple_is_an_axis() -> None:
    trials = expand(small(hyper={"alpha": (1, 2.5)}, pruners=("dense",), seeds=(0,)))
    assert [(t.algorithm, t.hyper_values().get("alpha")) for t in trials if t.dataset == DATA[0]] == [
        ("bc", None), ("td3_bc", 1.0), ("td3_bc", 2.5),
    ]  # fmt: skip


def test_one_and_one_point_nought_are_the_same_trial() -> None:
    assert expand(small(hyper={"alpha": 1})) == expand(small(hyper={"alpha": 1.0}))
    assert len(expand(small(hyper={"alpha": (1, 1.0)}))) == len(expand(small()))
    with pytest.raises(UserError, match="td3_bc's alpha inf is not finite"):
        expand(small(hyper={"alpha": 10**400}))


def test_a_hyperparameter_that_is_a_tuple_is_one_value() -> None:
    one = expand(small(hyper={"hidden": (64, 64)}, seeds=(0,)))
    two = expand(small(hyper={"hidden": ((64, 64), (128,))}, seeds=(0,)))
    assert {t.hyper["hidden"] for t in one} == {(64, 64)}
    assert len(two) == 2 * len(one)


@pytest.mark.parametrize("axis", ["datasets", "algorithms", "pruners", "sparsities", "seeds"])
def test_an_axis_without_values_is_an_empty_grid(axis: str) -> None:
    with pytest.raises(UserError, match=f"the grid is empty: {axis}"):
        small(**{axis: ()})


def test_pruners_without_a_sparsity_to_prune_to_still_give_the_dense_cell_only() -> None:
    assert {t.pruner for t in expand(small(sparsities=(0.0,)))} == {"dense"}


def test_a_string_for_a_tuple_is_refused() -> None:
    with pytest.raises(UserError, match="not a tuple"):
        small(datasets=DATA[0])


def test_a_string_is_refused_before_its_letters_are_looked_up_as_pruners() -> None:
    with pytest.raises(UserError, match=r"^pruners 'snip' is not a tuple, e\.g\. \('snip',\)$"):
        small(pruners="snip", search=Search(stop="asha"))


def test_values_that_can_be_read_only_once_are_all_kept() -> None:
    def given(kept: Callable[[Iterator[Any]], Any]) -> Sweep:
        return small(
            pruners=kept(iter(["dense", "rigl", "snip"])),
            seeds=kept(number for number in range(3)),
            sparsities=kept(map(float, ("0.5", "0.9"))),
            transitions=kept(iter([0, 1_000])),
            scope=kept(iter(["network", "layer"])),
            hyper={"alpha": kept(iter([1.0, 2.5]))},
            pruning={"delta": kept(iter([10, 20]))},
            sparsity_of={"actor": kept(iter([0.6, 0.8]))},
        )

    assert given(lambda once: once) == given(tuple)
    assert expand(given(lambda once: once)) == expand(given(tuple))
    assert small(pruners=iter(["snip"]), search=Search(stop="asha")).pruners == ("snip",), "which are looked at twice"


@pytest.mark.parametrize("mapping", ["hyper", "pruning", "sparsity_of"])
def test_a_mapping_that_is_none_is_one_line(mapping: str) -> None:
    with pytest.raises(UserError, match=rf"^{mapping} 5 is not a dict"):
        small(**{mapping: 5})


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"pruners": ("snap",)}, "no pruner 'snap'; there are: dense, "),
        ({"algorithms": ("sac",)}, "no algorithm 'sac'; there are: awac, bc, "),
        ({"sparsities": (1.0,)}, "sparsity 1.0 is outside"),
        ({"sparsities": (-0.1,)}, "sparsity -0.1 is outside"),
        ({"seeds": (-1,)}, "seed -1 is not"),
        ({"updates": 0}, "updates 0 is not"),
        ({"hyper": {"alhpa": 1.0}}, "'alhpa'; there are: "),
        ({"hyper": {"alpha": ()}}, "empty"),
    ],
)
def test_a_cell_that_makes_no_sense_is_told_with_its_value(changes: dict, says: str) -> None:
    with pytest.raises(UserError, match=says):
        expand(small(**changes))


def test_controls_add_to_each_pruned_trial_what_tells_whether_its_mask_did_anything() -> None:
    given = {"pruners": ("dense", "snip", "grasp", "random_erk", "gmp"), "sparsities": (0.9,), "seeds": (0,), "datasets": DATA[:1]}
    plain, with_controls = expand(small(**given)), expand(override(small(**given), ["controls=true"]))
    assert {t.key for t in plain} < {t.key for t in with_controls}
    cells = [t.cell for t in with_controls if t.algorithm == "bc"]
    assert sorted(cells) == sorted([
        "dense", "snip@90", "snip@90+shuffle", "snip@90+reinit", "grasp@90", "grasp@90+shuffle", "grasp@90+reinit", "random_erk@90",
        "small_dense@90", "gmp@90",
    ]), "one ERK and one small dense network serve all pruners"  # fmt: skip


@pytest.mark.parametrize(("option", "value"), [("scope", "joint"), ("target", "effective")])
def test_controls_are_refused_where_their_density_would_not_be_the_masks(option: str, value: str) -> None:
    sweep = small(algorithms=("bc",), pruners=("snip",), sparsities=(0.9,), **{option: value})
    assert not expand(sweep)[0].controls()
    with pytest.raises(UserError, match=f"^controls with {option} '{value}': how many weights .* drop one of the two$"):
        expand(override(sweep, ["controls=true"]))


def test_one_value_in_a_tuple_is_that_value() -> None:
    given = {"algorithms": ("bc",), "pruners": ("snip", "random_erk"), "sparsities": (0.9,), "seeds": (0,)}
    one, tupled = (expand(small(**given, calibration_size=size, calibration_batches=size)) for size in (512, (512,)))
    assert one == tupled
    assert {trial.calibration_size for trial in one} == {512, 256}, "of snip, and of the random mask that is not calibrated"


def test_calibration_goes_to_the_pruners_that_ask_for_losses() -> None:
    """A random mask, a dense network and a control of the same are trained once, whatever data SNIP is scored on."""
    given = {"algorithms": ("bc",), "pruners": ("dense", "snip", "random_erk", "synflow", "gmp"), "sparsities": (0.9,), "controls": True}
    plain, calibrated = (expand(small(**given, seeds=(0,), calibration_size=size)) for size in (256, 4096))
    changed = {t.cell for t in calibrated} - {t.cell for t in plain}
    assert changed == {f"snip@90{control}+calibration_size=4096" for control in ("", "+shuffle", "+reinit")}
    assert {t.key for t in calibrated if t.cell not in changed} == {t.key for t in plain if not t.cell.startswith("snip")}


def test_an_option_goes_to_the_pruners_that_it_means_something_to() -> None:
    settings = ["rescale=layer", "scope=layer", "authors=true", "sparsity_of.critic=0.5"]
    trials = expand(
        override(small(algorithms=("td3_bc",), pruners=("dense", "snip", "random_erk"), seeds=(0,), sparsities=(0.9,)), settings)
    )
    found = {t.pruner: (t.rescale, t.scope, t.authors, dict(t.sparsity_of)) for t in trials}
    assert found == {
        "dense": ("none", "network", False, {}),
        "snip": ("layer", "layer", True, {"critic": 0.5}),
        "random_erk": ("layer", "network", False, {"critic": 0.5}),
    }


@pytest.mark.parametrize(
    ("setting", "says"),
    [
        ("controls=maybe", "controls 'maybe'; there are: true, false"),
        ("rescale=much", "rescale 'much'; there are: none, layer, unit"),
        ("scope=1", "scope '1'; there are: network, joint, layer"),
        ("sparsity_of.critic=high", "sparsity_of.critic 'high' is not a number"),
        ("sparsity_of.value=0.5", "'value'; there are: "),
        ("sparsity_off.value=0.5", "sparsity_of.<name>"),
    ],
)
def test_bad_options_of_pruning_are_told_with_their_choices(setting: str, says: str) -> None:
    with pytest.raises(UserError, match=says):
        expand(override(small(), [setting]))


def test_an_option_that_means_nothing_to_any_pruner_is_refused() -> None:
    with pytest.raises(UserError, match="authors True does not apply to dense, snip with bc"):
        expand(small(algorithms=("bc",), pruners=("dense", "snip"), authors=True))


def test_a_setting_of_pruners_is_an_axis_of_those_that_have_it() -> None:
    given = {"datasets": DATA[:1], "algorithms": ("bc",), "seeds": (0,), "sparsities": (0.9,), "updates": 2000}
    pruners = ("dense", "snip", "rigl", "sparse_reg")
    cells = [trial.cell for trial in expand(small(**given, pruners=pruners, pruning={"delta": (500, 1000), "zeta": 0.3}))]
    assert cells == ["dense", "snip@90", "rigl@90+delta=500+zeta=0.3", "rigl@90+zeta=0.3", "sparse_reg@90+delta=500", "sparse_reg@90"]
    with pytest.raises(UserError, match="no setting of snip 'delta'; there are: none"):
        expand(small(**given, pruners=("snip",), pruning={"delta": 500}))


def test_sparsities_of_single_networks_are_axes() -> None:
    given = {"datasets": DATA[:1], "algorithms": ("td3_bc",), "seeds": (0,), "pruners": ("dense", "snip"), "sparsities": (0.9,)}
    sweep = override(small(**given), ["sparsity_of.critic=0.5,0.9", "sparsity_of.actor=0.8"])
    assert [trial.cell for trial in expand(sweep)] == ["dense", "snip@90,actor@80,critic@50", "snip@90,actor@80"]
    with pytest.raises(UserError, match=r"sparsity of the critic 1\.5 is outside \[0, 1\)"):
        expand(override(small(**given), ["sparsity_of.critic=0.5,1.5"]))
    searched = {**given, "sparsities": Range(0.5, 0.9), "search": Search(suggestions=4)}
    with pytest.raises(UserError, match=r"searched for nothing: sparsity_of names all networks of td3_bc"):
        expand(small(**searched, sparsity_of={"critic": 0.5, "actor": 0.8}))
    with pytest.raises(UserError, match=r"sparsity_of\.critic \(0\.5, 0\.9\) is searched"):
        small(**searched, sparsity_of={"critic": (0.5, 0.9)})


def test_where_every_network_has_a_sparsity_of_its_own_the_others_are_trained_once() -> None:
    given = {"datasets": DATA[:1], "algorithms": ("bc", "td3_bc"), "seeds": (0,), "pruners": ("dense", "snip")}
    cells = [(trial.algorithm, trial.cell) for trial in expand(small(**given, sparsities=(0.0, 0.9, 0.95), sparsity_of={"actor": 0.8}))]
    assert cells == [
        ("bc", "dense"), ("td3_bc", "dense"), ("bc", "snip@90,actor@80"), ("td3_bc", "snip@90,actor@80"), ("td3_bc", "snip@95,actor@80"),
    ]  # fmt: skip


@pytest.mark.parametrize("name", VARIED)
def test_every_option_is_an_axis_whose_values_have_labels_of_their_own(name: str) -> None:
    """In a sweep's file and by --set; the label is that of tables, legends and plans: the cell, or what is not at its default."""
    numbers = {"transitions": (0, 10_000), "calibration_batches": (1, 16), "calibration_size": (256, 512)}
    numbers |= {"reward_shift": (0.0, -1.0), "reward_scale": (1.0, 0.1)}
    values: tuple[Any, ...] = numbers.get(name) or {**CHOICES, **TRAINING_CHOICES}[name]
    values = tuple(value for value in values if ":" not in str(value) or value == "2:4")  # of 50 %
    values = tuple(value for value in values if (name, value) != ("states", "normalized"))  # TD3+BC's own
    given = {"datasets": DATA[:1], "algorithms": ("td3_bc",), "seeds": (0,), "pruners": ("snip",), "sparsities": (0.5,)}
    trials = expand(small(**given, **{name: values}))
    assert trials == expand(override(small(**given), [f"{name}={','.join(map(str, values)).lower()}"]))
    assert [getattr(trial, name) for trial in trials] == list(values)
    assert len({(trial.cell, str(settings(trial))) for trial in trials}) == len(values)


def test_of_several_structures_each_has_its_own_sparsity() -> None:
    given = {"datasets": DATA[:1], "algorithms": ("bc",), "seeds": (0,), "pruners": ("snip",), "sparsities": (0.5, 0.75)}
    found = {(trial.structure, trial.sparsity) for trial in expand(small(**given, structure=("none", "fan_in", "2:4", "1:4")))}
    assert found == {("none", 0.5), ("none", 0.75), ("fan_in", 0.5), ("fan_in", 0.75), ("2:4", 0.5), ("1:4", 0.75)}
    with pytest.raises(UserError, match=r"structure '1:8' removes 0.875 of the weights, which is none of the sparsities"):
        expand(small(**given, structure=("none", "1:8")))
    with pytest.raises(UserError, match=r"sparsity 0.9 is that of none of the structures 2:4, 1:4"):
        expand(small(**(given | {"sparsities": (0.5, 0.75, 0.9)}), structure=("2:4", "1:4")))


def test_all_learning_rates_of_an_algorithm_are_one_axis() -> None:
    given = {"datasets": DATA[:1], "algorithms": ("bc", "iql"), "seeds": (0,), "pruners": ("dense",)}
    trials = expand(small(**given, hyper={"learning_rates": (3e-4, 1e-3), "tau": 0.01}))
    rates = {(t.algorithm, *(v for n, v in t.hyper_values().items() if n.endswith("learning_rate"))) for t in trials}
    assert rates == {("bc", 3e-4), ("bc", 1e-3), ("iql", 3e-4, 3e-4), ("iql", 1e-3, 1e-3)}
    assert {t.hyper_values().get("tau") for t in trials} == {None, 0.01}


def test_trainings_that_begin_again_are_not_stopped_early() -> None:
    search = Search(suggestions=4, stop="asha")
    with pytest.raises(UserError, match=r"pruner 'imp' restarts its training several times: search\.stop 'asha' would compare"):
        small(pruners=("imp",), sparsities=Range(0.5, 0.9), search=search)
    small(pruners=("imp",), sparsities=Range(0.5, 0.9), search=Search(suggestions=4))
