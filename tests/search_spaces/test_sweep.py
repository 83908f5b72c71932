from __future__ import annotations

import pytest

from search_spaces.sweep import Sweep, expand, load_sweep, override, sweep_names
from search_spaces.sweep import sweep as sweeps
from search_spaces.sweep.ranges import LogRange, Range, Search
from search_spaces.sweep.space import spaces
from trainables.errors import UserError

DATA = ("winnow/halfcheetah/expert-v0", "winnow/hopper/medium-v0")


def small(**changes: object) -> Sweep:
    given = {
        "datasets": DATA, "algorithms": ("bc", "td3_bc"), "pruners": ("dense", "snip", "random_erk"),
        "sparsities": (0.8, 0.95), "seeds": (0, 1, 2), "updates": 100,
    }  # fmt: skip
    return Sweep(**(given | changes))


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


@pytest.mark.parametrize("name", sweep_names())
def test_every_file_of_the_folder_declares_a_grid(name: str) -> None:
    assert expand(load_sweep(name)) or spaces(load_sweep(name))


def test_the_folder_has_the_sweeps_that_the_documents_name() -> None:
    assert {"quickstart", "smoke", "td3bc_sparsity", "mujoco_sparsity"} <= set(sweep_names())
    assert len(expand(load_sweep("quickstart"))) == 14
    grid = expand(load_sweep("mujoco_sparsity"))
    assert {t.updates for t in grid} == {1_000_000}
    assert len(grid) == 15 * 3 * (1 + 6 * 4) * 5


@pytest.mark.parametrize("name", ["quickstar", "", "../trainables/trial", "sweep", "__init__"])
def test_a_wrong_name_is_answered_with_the_right_ones(name: str) -> None:
    with pytest.raises(UserError, match=r"no sweep .*; there are: .*quickstart"):
        load_sweep(name)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("from search_spaces.sweep import Sweep\nSWEEP = Sweep(dataset='x')", "unexpected keyword"),
        ("SWEEP = 3", "SWEEP is a int"),
        ("SWEEP = (", "never closed"),
        ("", "has no attribute 'SWEEP'"),
    ],
)
def test_a_file_that_declares_no_sweep_is_told(text: str, says: str, tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mine.py").write_text(text)
    monkeypatch.setattr(sweeps, "__file__", str(tmp_path / "sweep" / "sweep.py"))
    monkeypatch.setattr("search_spaces.__path__", [str(tmp_path)])
    monkeypatch.delitem(__import__("sys").modules, "search_spaces.mine", raising=False)
    with pytest.raises(UserError, match=says):
        load_sweep("mine")


def test_a_space_has_a_study_per_dataset_and_algorithm_and_a_trial_per_seed() -> None:
    given = small(sparsities=Range(0.5, 0.9), hyper={"alpha": LogRange(0.5, 10), "hidden": ((64, 64), (32,))}, search=Search())
    assert expand(given) == ()
    found = spaces(given)
    assert [(space.dataset, space.algorithm) for space in found] == [(d, a) for d in DATA for a in ("bc", "td3_bc")]
    assert len({space.study("mine") for space in found}) == 4
    assert [*found[0].dimensions] == ["pruner", "sparsity", "hyper.hidden"], "bc has no alpha"
    trials = found[1].trials({"pruner": "snip", "sparsity": 0.7, "hyper.alpha": 2.0, "hyper.hidden": "(32,)"})
    assert [(t.seed, t.pruner, t.sparsity, t.hyper) for t in trials] == [
        (s, "snip", 0.7, {"alpha": 2.0, "hidden": (32,)}) for s in (0, 1, 2)
    ]
    assert {(t.pruner, t.sparsity) for t in found[1].trials({"pruner": "dense"})} == {("dense", 0.0)}
    assert not found[1].needs("sparsity", {"pruner": "dense"})
    assert found[1].needs("sparsity", {"pruner": "snip"})


def test_a_study_is_another_one_where_its_scores_could_not_be_compared() -> None:
    def study(**changes: object) -> str:
        return spaces(small(sparsities=Range(0.5, 0.9), **({"search": Search()} | changes)))[0].study("mine")

    assert study() == study(search=Search(suggestions=99, sampler="random", stop="asha", seed=3))
    others = [study(updates=200), study(seeds=(0,)), study(pruners=("snip",)), study(hyper={"batch_size": 64})]
    others += [study(search=Search(objective="pareto")), study(episodes=3)]
    assert len({study(), *others}) == 7


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: Range(0.9, 0.8), r"Range\(0.9, 0.8\): the low end 0.9 is not below the high end 0.8"),
        (lambda: Range(0.5, 0.5), "is not below"),
        (lambda: Range(0.5, float("inf")), "the end inf of a range is not a number"),
        (lambda: Range("a", 1), "the end 'a' of a range is not a number"),
        (lambda: LogRange(0, 1), "the low end 0 has no logarithm"),
        (lambda: Search(objective="speed"), "no objective of a search 'speed'; there are: score, pareto"),
        (lambda: Search(sampler="grid"), "no sampler of a search 'grid'; there are: tpe, random"),
        (lambda: Search(objective="pareto", stop="asha"), "goes with the objective 'score' only"),
        (lambda: small(sparsities=Range(0.5, 0.9)), r"sparsities Range\(0.5, 0.9\) is a range, .* add search=Search"),
        (lambda: small(hyper={"alpha": Range(1, 2)}), r"alpha Range\(1, 2\) is a range"),
        (lambda: expand(small(sparsities=Range(0.5, 1.0), search=Search())), "sparsity 1.0 is outside"),
        (lambda: expand(small(sparsities=Range(-0.5, 0.9), search=Search())), "sparsity -0.5 is outside"),
        (lambda: expand(small(hyper={"batch_size": Range(1, 9)}, search=Search())), "batch_size 1.0 is not of the kind"),
        (lambda: expand(small(hyper={"alhpa": Range(1, 9)}, search=Search())), "'alhpa'; there are: "),
        (lambda: small(seeds=Range(0, 9), search=Search()), "seeds Range.* is not a tuple"),
    ],
)
def test_a_search_that_makes_no_sense_is_told_in_one_line(make, says: str) -> None:
    with pytest.raises(UserError, match=says) as error:
        make()
    assert "\n" not in str(error.value)


def test_overrides_replace_values_and_keep_their_types() -> None:
    changed = override(small(), ["seeds=3, 4", "updates=50_000", "sparsities=0.5", "datasets=bench/a/b-v0", "hyper.alpha=1,2.5"])
    assert changed.seeds == (3, 4)
    assert changed.updates == 50_000
    assert changed.sparsities == (0.5,)
    assert changed.datasets == ("bench/a/b-v0",)
    assert changed.hyper == {"alpha": (1, 2.5)}
    assert changed.pruners == small().pruners


def test_overrides_of_hyperparameters_join_the_sweeps_own() -> None:
    changed = override(small(hyper={"alpha": 4.0, "tau": 0.01}), ["hyper.alpha=2.0", "hyper.hidden=(64,64),(32,)"])
    assert changed.hyper == {"alpha": 2.0, "tau": 0.01, "hidden": ((64, 64), (32,))}


@pytest.mark.parametrize(
    ("setting", "says"),
    [
        ("seed=0", r"no override 'seed'; there are: datasets, .*seeds, .*updates, .*hyper\.<name>"),
        ("hyper=1", "no override 'hyper'"),
        ("seeds", "not of the form name=value"),
        ("seeds=a", "seeds 'a' is not an integer"),
        ("seeds=0.5", "seeds '0.5' is not an integer"),
        ("updates=1e5", "updates '1e5' is not an integer"),
        ("sparsities=high", "sparsities 'high' is not a number"),
        ("seeds=", "the grid is empty: seeds"),
        ("search.stop=asha", "no override 'search.stop'"),
        ("hyper.alpha=high", "hyper.alpha 'high' is not a number"),
    ],
)
def test_a_wrong_override_is_told_with_its_value(setting: str, says: str) -> None:
    with pytest.raises(UserError, match=says):
        override(small(), [setting])


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
    with pytest.raises(UserError, match=f"^controls with {option} '{value}': how many weights .* leave one of the two away$"):
        expand(override(sweep, ["controls=true"]))


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
    with pytest.raises(UserError, match="authors True means nothing to dense, snip with bc"):
        expand(small(algorithms=("bc",), pruners=("dense", "snip"), authors=True))
