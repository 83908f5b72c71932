from __future__ import annotations

import pytest

from search_spaces.sweep import override
from tests.search_spaces.sweep.small import small
from trainables.errors import UserError


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


def test_what_a_sweep_says_for_what_is_left_out_is_left_out_too() -> None:
    said = small(
        algorithms=("td3_bc", "iql"),
        pruners=("snip", "rigl"),
        hyper={"expectile": 0.8, "alpha": 4.0, "learning_rates": 1e-3, "expectil": 1},
        pruning={"delta": 500},
    )
    td3_bc = override(said, ["algorithms=td3_bc"])
    assert td3_bc.hyper == {"alpha": 4.0, "learning_rates": 1e-3, "expectil": 1}, "a name that nobody knows stays, to be refused"
    assert td3_bc.pruning == {"delta": 500}
    assert override(said, ["pruners=snip"]).pruning == {}
    assert override(said, ["algorithms=td3_bc", "hyper.expectile=0.8"]).hyper["expectile"] == 0.8, "the command line means what it says"
    assert override(said, ["algorithms=bc,iql"]).hyper["expectile"] == 0.8


def test_a_search_that_becomes_a_grid_may_have_what_only_a_grid_may() -> None:
    from search_spaces.td3bc_adaptive import SWEEP

    grid = ["search=none", "sparsities=0.9", "hyper.alpha=2.5", "seeds=0"]
    for more in (["controls=true"], ["rescale=none,layer"], []):
        changed = override(SWEEP, [*more, *grid])
        assert (changed.search, changed.sparsities, changed.hyper["alpha"]) == (None, (0.9,), 2.5)
        assert changed.hyper.keys() == SWEEP.hyper.keys()
    with pytest.raises(UserError, match="is a range, which a grid cannot have"):
        override(SWEEP, ["search=none"])


def test_rewards_take_any_number_whatever_the_sweeps_file_says() -> None:
    whole = small(reward_scale=1, reward_shift=-1)
    changed = override(whole, ["reward_scale=0.5", "reward_shift=-0.5"])
    assert (changed.reward_scale, changed.reward_shift) == (0.5, -0.5)


@pytest.mark.parametrize(
    ("setting", "says"),
    [
        ("sede=0", r"no override 'sede'; there are: datasets, .*seeds, .*updates, .*hyper\.<name>"),
        ("hyper=1", "no override 'hyper'"),
        ("seeds", "not of the form name=value"),
        ("seeds=a", "seeds 'a' is not an integer"),
        ("seeds=0.5", "seeds '0.5' is not an integer"),
        ("updates=1.5", "updates '1.5' is not an integer, such as 20000, 20k or 2e4"),
        ("updates=all", "updates 'all' is not an integer"),
        ("updates=2e400", "updates '2e400' is not an integer"),
        ("seeds=4-0", "seeds '4-0' is not a range such as 0-4"),
        ("seeds=0-99999999", "seeds '0-99999999' is not a range"),
        ("sed=0-4", "did you mean 'seeds'"),
        ("sparsities=high", "sparsities 'high' is not a number"),
        ("seeds=", "the grid is empty: seeds"),
        ("search.stop=asha", "no override 'search.stop'"),
        ("hyper.alpha=high", "hyper.alpha 'high' is not a number"),
        ("hyper.alpha=", "hyper.alpha '' is not a number"),
        ("hyper.alpha=nan", "hyper.alpha 'nan' is not a number"),
        ("hyper.alpha={[]}", r"hyper.alpha '\{\[\]\}' is not a number"),
        ("hyper.alpha={{1: 2}: 3}", "hyper.alpha .* is not a number"),
        ("hyper.hidden=[[16]", r"hyper.hidden '\[\[16\]' is not a number, .* such as 64,64"),
        ("pruning.delta='1", "pruning.delta .* is not a number"),
        ("sparsity_of.actor=-'a'", "sparsity_of.actor .* is not a number"),
        (f"hyper.alpha={'-' * 5_000}1", "hyper.alpha .* is not a number"),
        (f"hyper.alpha={'(' * 1_000}{')' * 1_000}", "hyper.alpha .* is not a number"),
        (f"hyper.alpha={'9' * 5_000}", "hyper.alpha .* is not a number"),
        (f"updates={'9' * 5_000}", "updates .* is not an integer"),
        (f"updates={'9' * 4_299}M", "updates .* is not an integer"),
        (f"seeds=0-{'9' * 5_000}", "seeds .* is not an integer"),
    ],
)
def test_a_wrong_override_is_told_with_its_value(setting: str, says: str) -> None:
    with pytest.raises(UserError, match=says):
        override(small(), [setting])


def test_what_python_thinks_of_a_value_is_not_shown(recwarn: pytest.WarningsRecorder) -> None:
    assert override(small(), [r"hyper.mode='\d'"]).hyper == {"mode": r"\d"}
    assert not recwarn.list, "it warns of the invalid escape sequence"


@pytest.mark.parametrize(
    ("setting", "field", "value"),
    [
        ("seeds=0-4", "seeds", (0, 1, 2, 3, 4)),
        ("seeds=0-2,7, 9,2", "seeds", (0, 1, 2, 7, 9)),
        ("updates=20k", "updates", 20_000),
        ("updates=2e4", "updates", 20_000),
        ("updates=1.5M", "updates", 1_500_000),
        ("updates=2.01k", "updates", 2_010),
        ("transitions=10k,1e3,all", "transitions", (10_000, 1_000, 0)),
        ("hyper.batch_size=1k", "hyper", {"batch_size": 1_000}),
        ("hyper.batch_size=1e2,2.5e+2", "hyper", {"batch_size": (100, 250)}),
        ("hyper.actor_learning_rate=1e-3", "hyper", {"actor_learning_rate": 1e-3}),
        ("hyper.alpha=1e-3,2k", "hyper", {"alpha": (1e-3, 2_000)}),
        ("hyper.alpha=4.03k,2.5", "hyper", {"alpha": (4_030, 2.5)}),
        ("hyper.mode='4k'", "hyper", {"mode": "4k"}),
    ],
)
def test_numbers_may_have_units_and_whole_ones_may_be_ranges(setting: str, field: str, value: object) -> None:
    found = getattr(override(small(), [setting]), field)
    assert found == value
    assert type(found) is type(value)
