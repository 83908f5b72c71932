from __future__ import annotations

import math
from dataclasses import replace

import pytest

from service.results.cells import tasks_of
from service.results.controls import compare, paired, text_of
from service.results.runs import Run, runs_of
from service.tracking.reading import RunRow
from tests.service.results.test_quick_table import row
from trainables.trial import Trial


def trial(seed: int, **more: object) -> Trial:
    given = {"dataset": "winnow/hopper/expert-v0", "algorithm": "bc", "updates": 20_000, "pruner": "snip", "sparsity": 0.95}
    return Trial(**(given | more), seed=seed)


def test_the_interval_is_students_t() -> None:
    """Differences 1, 2, 6: mean 3, deviation sqrt(7); t of two degrees of freedom is 4.303."""
    found = paired([1.0, 2.0, 6.0])
    half = 4.303 * math.sqrt(7 / 3)
    assert (found.mean, found.seeds) == (3.0, 3)
    assert found.interval == pytest.approx((3 - half, 3 + half), abs=1e-3)


@pytest.mark.parametrize(
    ("differences", "verdict"),
    [
        ([10.0, 11, 12], "better"),
        ([-10.0, -11, -12], "worse"),
        ([10.0, 1, -5], "no difference shown"),
        ([50.0], "one seed says nothing"),
        ([0.0, 0.0], "identical scores"),
        ([0.1 + 0.2 - 0.3] * 2, "identical scores"),
    ],
)
def test_the_verdict_follows_from_the_interval(differences: list[float], verdict: str) -> None:
    assert paired(differences).verdict == verdict


def test_differences_that_differ_by_rounding_alone_are_equal() -> None:
    found = paired([70.1 - 40.1, 60.1 - 30.1])
    assert found.interval == (found.mean, found.mean)


def runs(trials: list[Trial], scores: dict[str, float | str]) -> list[Run]:
    return [Run(one, scores.get(one.key, "missing")) for one in trials]


def with_controls(seeds: int, **more: object) -> list[Trial]:
    return [one for seed in range(seeds) for one in (trial(seed, **more), *trial(seed, **more).controls().values())]


def test_a_trial_is_paired_with_its_own_controls_over_seeds() -> None:
    trials = with_controls(3)
    scores = {one.key: 10.0 * one.seed + {"none": 7, "shuffle": 2, "reinit": 6}[one.control] for one in trials if one.pruner == "snip"}
    scores |= {one.key: 10.0 * one.seed + one.seed for one in trials if one.pruner == "random_erk" and one.seed < 2}
    failed = {one.key: "failed: divergence" for one in trials if one.pruner == "random_erk" and one.seed == 2}
    found = compare(runs(trials, scores | failed))
    assert {each.cell for each in found} == {"bc on winnow/hopper/expert-v0, snip@95, 20,000 updates"}
    assert {each.heading for each in found} == {"BC on hopper-expert, SNIP 95 % (winnow/hopper/expert-v0, 20,000 updates)"}
    pairs = {each.control: (each.difference and each.difference.mean, each.seeds) for each in found}
    assert pairs == {
        "shuffle": (5.0, "3"), "reinit": (1.0, "3"), "erk": (6.5, "2 of 3 (1 failed: divergence)"),
        "small_dense": (None, "0 of 3 (3 missing)"),
    }  # fmt: skip
    text = text_of(found)
    assert text.count("BC on hopper-expert, SNIP 95 %") == 1, "a cell is named once, above its controls"
    assert "its mask shuffled within layers    +5.0 seeds equal  n=3  better" in text
    assert "a small dense network                    n=0 of 3 (3 missing)  no seed has both" in text
    assert text_of(compare(runs([one for one in trials if one.control == "none" and one.pruner == "snip"], scores))) == ""


def test_other_data_is_another_comparison_also_of_one_family_and_tier() -> None:
    trials = [one for place in ("winnow", "mine") for one in with_controls(2, dataset=f"{place}/hopper/expert-v0")]
    scores = {one.key: {"winnow": 1.0, "mine": 100.0}[one.dataset.split("/")[0]] * (one.control == "none") for one in trials}
    both = compare(runs(trials, scores))
    text = text_of(both)
    assert [text.count(f"({place}/hopper/expert-v0, ") for place in ("winnow", "mine")] == [1, 1], "each above its own controls"
    found = {each.cell.split()[2].strip(","): each for each in both if each.control == "shuffle"}
    assert {place: each.differences for place, each in found.items()} == {
        "winnow/hopper/expert-v0": (1.0, 1.0), "mine/hopper/expert-v0": (100.0, 100.0),
    }  # fmt: skip


def test_every_cell_is_compared_with_its_own_controls() -> None:
    """Whatever else differs: the sparsity, the pruner or the budget."""
    cells = {"snip@95": {}, "snip@80": {"sparsity": 0.8}, "grasp@95": {"pruner": "grasp"}, "long": {"updates": 50_000}}
    trials, scores = [], dict[str, float | str]()
    for number, more in enumerate(cells.values()):
        trials += with_controls(2, **more)
        for one in (trial(seed, **more) for seed in range(2)):
            scores |= {one.key: 10.0 * number + 1, one.controls()["shuffle"].key: 0.0}
    found = [each for each in compare(runs(trials, scores)) if each.control == "shuffle"]
    assert [each.differences for each in found] == [(1.0, 1.0), (11.0, 11.0), (21.0, 21.0), (31.0, 31.0)]
    assert [(each.name.partition(", ")[2], each.trial.updates) for each in found] == [
        ("SNIP 95 %", 20_000), ("SNIP 80 %", 20_000), ("GraSP 95 %", 20_000), ("SNIP 95 %", 50_000),
    ]  # fmt: skip


def test_a_pair_that_lacks_the_pruned_trial_says_so() -> None:
    trials = with_controls(1)
    (shuffled,) = [each for each in compare(runs(trials, {trials[0].controls()["shuffle"].key: 1.0})) if each.control == "shuffle"]
    assert shuffled.absent == ("without the pruned trial: missing",)


def test_what_is_no_number_is_no_pair() -> None:
    trials = with_controls(2)
    scores = {one.key: math.nan if one.control == "shuffle" and one.seed == 1 else 1.0 for one in trials}
    (shuffled,) = [each for each in compare(runs(trials, scores)) if each.control == "shuffle"]
    assert (shuffled.differences, shuffled.absent) == ((0.0,), ("no number",))
    assert shuffled.columns[-1] == "one seed says nothing"


def test_a_sweep_that_trains_for_itself_is_compared_too() -> None:
    trials = [replace(one, fresh="smoke") for one in with_controls(2)]
    assert {each.seeds for each in compare(runs(trials, {one.key: 1.0 for one in trials}))} == {"2"}


def test_a_trial_that_was_trained_apart_on_the_data_that_is_here_has_its_controls() -> None:
    trials = [replace(one, data="0123456789abcdef") if one.control == "none" and one.pruner == "snip" else one for one in with_controls(2)]
    found = {each.control: each.seeds for each in compare(runs(trials, {one.key: 1.0 for one in trials}))}
    assert found["shuffle"] == found["erk"] == "2"


def test_where_only_returns_are_known_they_are_compared() -> None:
    trials = with_controls(2)
    rows = {one.key: RunRow("id", "FINISHED", {"eval/return": 3000.0 + one.seed * (one.control == "none")}, {}) for one in trials}
    (task,) = tasks_of(runs_of(trials, rows))
    assert task.measure == "return"
    assert [each.difference.mean for each in compare(task.runs) if each.control == "shuffle"] == [0.5]


def test_controls_are_columns_of_their_task() -> None:
    trials = [one for seed in range(2) for one in (trial(seed, rescale="layer"), *trial(seed, rescale="layer").controls().values())]
    trials += [trial(seed, pruner="dense", sparsity=0.0) for seed in range(2)]
    (task,) = tasks_of(runs_of(trials, {one.key: row(50.0) for one in trials}))
    assert task.methods == [
        "snip+rescale=layer", "snip+rescale=layer+reinit", "snip+rescale=layer+shuffle", "random_erk+rescale=layer", "small_dense",
    ]  # fmt: skip
    assert all(len(cell.done) == 2 for cell in task.cells.values())
