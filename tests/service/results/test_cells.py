"""Cells, claims, means over tasks and figures of made-up runs: what is incomplete is never taken for whole."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from service.results import quick_table
from service.results.cells import Task, budgets_of, tasks_of
from service.results.report import figures, page, sizes, tables
from service.results.report.gather import seconds
from service.results.report.over_tasks import aggregates, choice, claim
from service.results.report.style import Panel
from service.results.runs import Point, Run
from service.spool.scores import RETURN
from service.terminal import labels
from tests.service.results.report.conftest import trial
from trainables.trial import Trial

DIVERGED = "failed: divergence"


def run(pruner: str, sparsity: float, seed: int, score: float | str, dataset: str = "hopper", size: int = 100) -> Run:
    """A run with this last score, or with this outcome."""
    of = trial(pruner, sparsity, seed, f"winnow/{dataset}/expert-v0")
    masks = {"actor": {"parameters": {"effective": size}}}
    if isinstance(score, str):
        return Run(of, score, (Point(500, 1.0, 1.0, 1.0),), masks=masks)
    points = (Point(500, score / 2, size * 500, 5.0), Point(1000, score, size * 1000, 10.0))
    return Run(of, score, points, returns=30 * score, masks=masks)


def runs(pruner: str, sparsity: float, scores: Sequence[float | str], dataset: str = "hopper", size: int = 100) -> list[Run]:
    return [run(pruner, sparsity, seed, score, dataset, size) for seed, score in enumerate(scores)]


def of(*given: list[Run]) -> list[Task]:
    return tasks_of([each for group in given for each in group])


def drawn(panel: Panel) -> Axes:
    axis = Figure().subplots()
    panel.draw(axis)
    return axis


def texts(axis: Axes) -> set[str]:
    return {text.get_text() for text in axis.texts}


def test_a_cell_with_an_unpaired_seed_is_starred_and_not_judged() -> None:
    tasks = of(runs("dense", 0.0, [50.0, 100.0, DIVERGED]), runs("snip", 0.95, [50.0, 100.0, 1.0]))
    why = "seeds missing, dense seeds missing, or dense not above 0"
    assert claim(tasks) == [f"at 95 %: 0 of 0 cells retain >= 97 % of dense (1 more not judged: {why})"]
    (cell,) = [cell for cell in tasks[0].cells.values() if cell.method == "snip"]
    assert cell.retained
    assert cell.retained.value == 1.0, "of the two pairs"
    assert tables.against_rows(tasks[0])[1][:3] == ("SNIP 95 %", "2/3", "100 %*")
    assert tables.against_rows(tasks[0])[1][-1] == "1 failed: divergence"
    assert r"100 \%*" in tables.latex(tasks)
    assert figures.shown(cell) == "100*"
    assert "100*<br>" in page.grid(tasks)
    assert "2/3 pairs; dense: 1 failed: divergence" in page.grid(tasks)


def test_latex_has_each_number_below_its_heading() -> None:
    (task,) = of(runs("dense", 0.0, [100.0] * 5), runs("snip", 0.95, [0.0, 50.0, 51.0, 52.0, 97.0]))
    head, _, row = (line.removesuffix(r" \\").split(" & ") for line in tables.latex([task]).splitlines() if " & " in line)
    found = dict(zip(head, row, strict=True))
    assert [found[name] for name in ("Task", "Cell", "$n$", "Mean", "IQM")] == ["", r"SNIP 95 \%", "5", "50.0", "51.0"]
    assert found["Retained"].startswith(r"50 \% [")


def test_few_seeds_are_warned_of_where_any_cell_has_few() -> None:
    five = runs("dense", 0.0, [50.0] * 5)
    assert not [line for line in tables.warnings(of(five)) if "seeds are few" in line]
    assert tables.warnings(of(five, runs("snip", 0.95, [50.0] * 2)))[0].startswith("n = 2 and 5 seeds are few")


def test_of_many_tasks_that_are_left_out_the_reasons_are_counted() -> None:
    """Whatever brackets a task's name has: plug-ins and datasets are called as people like."""
    few = [("a BC (ours)", "1 missing"), ("b BC (ours)", ""), ("c bc", "")]
    assert tables.left_out(few) == "a BC (ours) (1 missing), b BC (ours), c bc"
    many = [("a BC (ours)", "1 missing"), ("b bc", "1 missing"), ("c BC (ours)", ""), ("d bc", "2 failed: divergence (late)")]
    assert tables.left_out(many) == "2 tasks (1 missing), 1 task (where others are absent), 1 task (2 failed: divergence (late))"


def test_a_cell_without_dense_says_that_it_is_not_in_the_sweep() -> None:
    assert "dense: 2 not in the sweep" in page.grid(of(runs("snip", 0.95, [50.0, 100.0])))
    assert "no dense score above 0" in page.grid(of(runs("dense", 0.0, [-1.0]), runs("snip", 0.95, [50.0])))


def test_a_dense_seed_that_was_never_planned_is_a_missing_pair() -> None:
    tasks = of(runs("dense", 0.0, [50.0]), runs("snip", 0.95, [50.0, 100.0]))
    assert claim(tasks)[0].startswith("at 95 %: 0 of 0 cells")
    assert tables.against_rows(tasks[0])[1][-1] == "1 not in the sweep"


def test_whole_cells_are_judged_and_divergence_is_a_loss_where_dense_is_whole() -> None:
    dense = runs("dense", 0.0, [98.0, 100.0])
    tasks = of(dense, runs("snip", 0.95, [98.0, 100.0]), runs("random_erk", 0.95, [98.0, DIVERGED]), runs("magnitude", 0.95, [1.0, 2.0]))
    assert (
        claim(tasks)[0]
        == "at 95 %: 1 of 3 cells retain >= 97 % of dense (by their whole interval 1 do, 1 do not, 0 are undecided; 1 diverged)"
    )
    tasks = of(runs("dense", 0.0, [50.0, DIVERGED]), runs("random_erk", 0.95, [50.0, DIVERGED]))
    assert claim(tasks)[0].startswith("at 95 %: 0 of 0 cells"), "where dense diverges too, nothing is known of the pruner"


def test_controls_claim_nothing() -> None:
    pruned = runs("snip", 0.95, [98.0, 100.0])
    controls = [replace(each, trial=control) for each in pruned for control in each.trial.controls().values()]
    tasks = of(runs("dense", 0.0, [98.0, 100.0]), pruned, controls)
    assert [cell.name for cell in tasks[0].cells.values() if cell.control] == [
        "SNIP 95 %, reinitialized",
        "SNIP 95 %, shuffled",
        "Small dense 95 %",
    ]
    assert claim(tasks)[0] == "at 95 %: 2 of 2 cells retain >= 97 % of dense (by their whole interval 2 do, 0 do not, 0 are undecided)", (
        "SNIP and ERK"
    )


def test_what_no_interval_decides_is_undecided() -> None:
    dense = [70.0, 90.0, 80.0]
    tasks = of(runs("dense", 0.0, dense), runs("snip", 0.95, [80.0, 90.0, 75.0]), runs("random_erk", 0.95, [40.0, 45.0, 41.0]))
    assert claim(tasks)[0] == "at 95 %: 1 of 2 cells retain >= 97 % of dense (by their whole interval 0 do, 1 do not, 1 are undecided)"
    boundless = of(runs("dense", 0.0, [50.0, 100.0]), runs("snip", 0.95, [1.0, 2.0]))
    assert claim(boundless)[0].endswith("0 of 1 cells retain >= 97 % of dense (by their whole interval 0 do, 0 do not, 1 are undecided)")
    below = of(runs("dense", 0.0, dense), runs("snip", 0.95, [72.0, 84.0, 72.0]))
    assert claim(below)[0] == "at 95 %: 0 of 1 cells retain >= 97 % of dense (by their whole interval 0 do, 0 do not, 1 are undecided)"
    alone = of(runs("dense", 0.0, [50.0]), runs("snip", 0.95, [60.0]))
    assert claim(alone)[0] == "at 95 %: 1 of 1 cells retain >= 97 % of dense (by their whole interval 0 do, 0 do not, 1 are undecided)"


def timed(pruner: str, sparsity: float, scores: Sequence[float], seconds: Sequence[float]) -> list[Run]:
    """The same with evaluations after so many seconds, the first of half the score."""
    made = runs(pruner, sparsity, scores)
    return [replace(r, points=tuple(replace(p, seconds=s) for p, s in zip(r.points, seconds, strict=True))) for r in made]


@pytest.mark.parametrize(
    ("seconds", "count", "share"),
    [
        ((1.0, 5.0), 1, 1.2),  # dense has its first evaluation then
        ((1.0, 5.1), 0, 0.6),  # only the next one is no earlier
        ((50.0, 99.0), None, None),  # dense was not trained for so long
        ((1.0, math.nan), None, None),
    ],
)
def test_at_equal_time_a_cell_is_compared_with_what_dense_has_after_no_less(
    seconds: tuple[float, float], count: int | None, share: float | None
) -> None:
    tasks = of(runs("dense", 0.0, [50.0, 100.0, 90.0]), timed("snip", 0.95, [30.0, 60.0, 54.0], seconds))
    (cell,) = [cell for cell in tasks[0].cells.values() if cell.method == "snip"]
    assert (cell.retained_in_time.value if cell.retained_in_time else None) == (pytest.approx(share) if share else None)
    lines = claim(tasks)
    assert lines[0].startswith("at 95 %: 0 of 1 cells")
    if count is None:
        assert len(lines) == 1, "times are not known"
    else:
        assert lines[1].startswith(f"at 95 %, at equal time on a core: {count} of 1 cells retain >= 97 % of dense")


@pytest.mark.parametrize(
    ("scores", "said"),
    [
        ([50.0, 52.0, 54.0], "+1.0 points of normalized score (95 % interval -1.2 to +3.2, 90 % interval -0.8 to +2.8): equal"),
        ([70.0, 71.0, 72.0], "+20.0 points of normalized score (95 % interval +18.7 to +21.3, 90 % interval +18.9 to +21.1): different"),
        ([30.0, 52.0, 80.0], "+3.0 points of normalized score (95 % interval -25.4 to +31.4, 90 % interval -18.8 to +24.8): neither"),
        ([51.0, 54.0, 57.0], "+3.0 points of normalized score (95 % interval -0.3 to +6.3, 90 % interval +0.4 to +5.6): neither"),
    ],
)
def test_whether_the_choice_of_weights_matters_is_tested_both_ways(scores: list[float], said: str) -> None:
    given = []
    for dataset in ("hopper", "walker2d"):
        given += [runs("random_erk", 0.95, [50.0, 51.0, 52.0], dataset), runs("snip", 0.95, scores, dataset)]
    (line,) = choice(of(*given, runs("snip", 0.95, [0.0, 0.0], "halfcheetah"), runs("random_erk", 0.95, [9.0, "missing"], "halfcheetah")))
    ends = {"equal": " within 5 points", "neither": " a difference nor equality within 5 points is shown"}
    assert line == f"SNIP 95 % against Random (ERK) 95 %, over 2 tasks: {said}{ends.get(said.split(': ')[-1], '')}"


def test_without_masks_made_by_chance_or_their_seeds_nothing_is_said_of_the_choice() -> None:
    assert choice(of(runs("snip", 0.95, [50.0, 60.0]), runs("random_erk", 0.9, [50.0, 60.0]))) == []
    (line,) = choice(of(runs("snip", 0.95, [50.0]), runs("random_erk", 0.95, [40.0])))
    assert line == "SNIP 95 % against Random (ERK) 95 %, over 1 task: +10.0 points of normalized score (a task has one seed)"


def test_the_choice_is_compared_with_one_kind_of_chance_and_controls_choose_nothing() -> None:
    pruned = runs("snip", 0.95, [50.0, 60.0])
    controls = [replace(each, trial=control) for each in pruned for kind, control in each.trial.controls().items() if kind != "erk"]
    chance = [*runs("random_uniform", 0.95, [10.0, 20.0]), *runs("random_erk", 0.95, [40.0, 51.0])]
    assert [line.partition(",")[0] for line in choice(of(pruned, controls, chance))] == ["SNIP 95 % against Random (ERK) 95 %"]
    assert [line.partition(",")[0] for line in choice(of(pruned, chance[:2]))] == ["SNIP 95 % against Random (uniform) 95 %"]


def test_a_share_that_is_just_what_is_claimed_is_kept() -> None:
    tasks = of(runs("dense", 0.0, [100.0, 100.0]), runs("snip", 0.95, [97.0, 97.0]))
    assert claim(tasks)[0].startswith("at 95 %: 1 of 1 cells retain >= 97 % of dense (by their whole interval 1 do")


def test_returns_are_never_averaged_over_tasks_nor_measured_in_points() -> None:
    """Environments have scales of their own."""
    given = [*runs("dense", 0.0, [50.0, 60.0]), *runs("random_erk", 0.95, [50.0, 60.0]), *runs("snip", 0.95, [40.0, 45.0])]
    returns = of([replace(each, metric=RETURN) for each in given])
    assert aggregates(of(given))
    assert choice(of(given))
    assert aggregates(returns) == choice(returns) == []


def test_over_tasks_the_probability_is_of_scoring_above_dense() -> None:
    """On one task every seed of SNIP is above every dense one, on the other one in two; GraSP is below on both."""
    given = []
    for dataset, snip in {"hopper": [70.0, 80.0], "walker2d": [40.0, 70.0]}.items():
        given += [runs("dense", 0.0, [50.0, 60.0], dataset), runs("snip", 0.95, snip, dataset), runs("grasp", 0.95, [10.0, 20.0], dataset)]
    found = {row.method: row.improvement and row.improvement.value for row in aggregates(of(*given))}
    assert found == {"dense": None, "snip": 0.75, "grasp": 0.0}


def test_means_over_tasks_of_which_one_has_one_seed_say_so() -> None:
    rows = aggregates(of(runs("snip", 0.95, [50.0, 60.0]), runs("snip", 0.95, [40.0], "walker2d")))
    assert [(row.mean.note, row.iqm.note) for row in rows if row.mean and row.iqm] == [("a task has one seed",) * 2]


def two_tasks() -> list[Task]:
    """SNIP is whole on both, ERK on Hopper alone, GraSP nowhere; Walker2d is easy."""
    given = []
    for dataset, level in (("hopper", 40.0), ("walker2d", 100.0)):
        given.append(runs("dense", 0.0, [level, level], dataset))
        given.append(runs("snip", 0.95, [level, level], dataset))
        given.append(runs("random_erk", 0.95, [level, level if dataset == "hopper" else "missing"], dataset))
        given.append(runs("grasp", 0.95, [level, DIVERGED], dataset))
        given.append(runs("snip", 0.5, [level, level], dataset))
    return of(*given)


def test_methods_are_compared_over_the_same_tasks() -> None:
    found = {(row.at, row.method): row for row in aggregates(two_tasks())}
    hopper, both = ("hopper-expert BC",), ("hopper-expert BC", "walker2d-expert BC")
    assert {key: row.tasks for key, row in found.items()} == {
        (0.5, "dense"): both, (0.5, "snip"): both,
        (0.95, "dense"): hopper, (0.95, "snip"): hopper, (0.95, "random_erk"): hopper, (0.95, "grasp"): (),
    }  # fmt: skip
    means = {key: row.mean.value for key, row in found.items() if row.mean}
    assert means[0.95, "snip"] == means[0.95, "random_erk"] == means[0.95, "dense"] == 40, "Walker2d would make SNIP 70"
    assert found[0.95, "random_erk"].left_out == (("walker2d-expert BC", "1 missing"),)
    assert found[0.95, "grasp"].left_out == tuple((task, "1 failed: divergence") for task in both)


def test_budgets_are_never_averaged() -> None:
    """A cell is algorithm x data x pruner x sparsity x updates: 5,000 updates of a dataset are no second task beside its 1,000."""
    short = [*runs("dense", 0.0, [50.0, 50.0]), *runs("snip", 0.95, [40.0, 40.0])]
    long = [replace(each, trial=replace(each.trial, updates=5000), outcome=80.0) for each in short]
    tasks = of(short, long)
    found = {row.name: (row.mean.value, row.tasks) for row in aggregates(tasks) if row.mean}
    assert found == {
        f"{name}, {budget}": (mean, (f"hopper-expert BC, {budget}",))
        for budget, dense, snip in (("1,000 updates", 50.0, 40.0), ("5,000 updates", 80.0, 80.0))
        for name, mean in (("dense, for 95 %", dense), ("SNIP 95 %", snip))
    }
    assert [panel.title for panel in figures.profiles(tasks)] == ["at 95 %, 1,000 updates", "at 95 %, 5,000 updates"]
    assert [line.split(" cells")[0] for line in claim(tasks) if "equal time" not in line] == [
        "1,000 updates, at 95 %: 0 of 1", "5,000 updates, at 95 %: 1 of 1",
    ]  # fmt: skip


@pytest.mark.parametrize("differing", ["evaluations", "episodes", "final_episodes"])
def test_trials_that_are_evaluated_otherwise_are_other_cells_everywhere(differing: str) -> None:
    """Also for who reads the files: without the number, two rows would have the same cell and another mean."""
    given = [*runs("dense", 0.0, [50.0, 50.0]), *runs("snip", 0.95, [40.0, 40.0])]
    other = [replace(each, trial=replace(each.trial, **{differing: 7}), outcome=80.0) for each in given]
    tasks = of(given, other)
    assert [[cell.scores().tolist() for cell in task.cells.values()] for task in tasks if "7" in task.name] == [[[80.0] * 2] * 2]
    for rows in (tables.cell_rows(tasks), tables.trial_rows(tasks)):
        assert {row[differing] for row in rows} == {7, getattr(given[0].trial, differing)}
    places = [tuple(tables._place(task, cell).items()) for task in tasks for cell in task.cells.values()]
    assert len(places) == len(set(places)) == 4
    titles = [each["title"] for each in quick_table.to_json(tasks)]
    assert sorted(title.partition(" updates")[2] for title in titles) == sorted(
        f", {differing} {number}" for number in (7, getattr(given[0].trial, differing))
    )
    assert len({row.suite for row in aggregates(tasks)}) == 2


def test_budgets_come_in_the_order_of_their_size() -> None:
    """20,000 is more than 5,000, though not by its letters."""
    short = [*runs("dense", 0.0, [50.0, 50.0]), *runs("snip", 0.95, [40.0, 40.0])]
    both = [replace(each, trial=replace(each.trial, updates=updates)) for updates in (20_000, 5000) for each in short]
    assert list(dict.fromkeys(row.suite for row in aggregates(of(both)))) == ["5,000 updates", "20,000 updates"]
    assert [line.split(" updates")[0] for line in claim(of(both)) if "equal time" not in line] == ["5,000", "20,000"]


def test_an_algorithm_may_have_a_comma_in_its_title(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(labels, "algorithm_name", lambda algorithm: "BC, ours, at last")
    short = runs("snip", 0.95, [40.0, 40.0])
    tasks = of([replace(each, trial=replace(each.trial, updates=updates)) for updates in (20_000, 5000) for each in short])
    (name,) = {task.name.removesuffix(f", {task.trial.updates:,} updates") for task in tasks}
    assert name.endswith(" BC, ours, at last")
    ((shared, group),) = budgets_of(tasks)
    assert (shared, len(group)) == (name, 2)


def test_sparsities_and_seeds_come_in_order_whatever_was_trained_first() -> None:
    levels = [0.95, 0.5, 0.99, 0.8, 0.98, 0.9]
    (task,) = of(*[runs("snip", level, [10.0, 20.0, 30.0])[::-1] for level in levels])
    assert task.sparsities == sorted(levels)
    assert task.cells["snip", 0.5].scores().tolist() == [10.0, 20.0, 30.0]
    (panel,) = figures.by_sparsity([task])
    (line,) = [line for line in drawn(panel).lines if len(line.get_xdata()) > 1]
    assert (np.diff(np.asarray(line.get_xdata(), float)) > 0).all()


@pytest.mark.filterwarnings("error")
def test_an_actor_without_parameters_has_no_place_on_a_logarithmic_axis() -> None:
    """But it is smaller than all others, so what it beats is not the best for its size."""
    empty = runs("grasp", 0.95, [45.0, 45.0], size=0)
    small, large = runs("snip", 0.95, [40.0, 40.0], size=50), runs("dense", 0.0, [50.0, 50.0], size=1000)
    (panel,) = sizes.pareto(of(large, small, empty))
    assert panel.x == "effective parameters of the actor (1 cell has none)"
    assert "GraSP" not in {key.label for key in panel.keys}
    axis = drawn(panel)
    axis.figure.canvas.draw()
    marks, (front,) = (
        [line for line in axis.lines if line.get_linestyle() == "None"],
        [line for line in axis.lines if line.get_drawstyle() != "default"],
    )
    assert sorted(float(line.get_xdata()[0]) for line in marks) == [50.0, 1000.0]
    assert list(front.get_xdata()) == [1000.0]
    assert [panel.x for panel in sizes.pareto(of(large, small))] == ["effective parameters of the actor"]
    assert sizes.pareto(of(empty)) == []


def test_a_success_rate_is_shown_where_every_seed_has_one() -> None:
    given = [replace(each, successes=0.5) for each in runs("snip", 0.95, [50.0, 60.0])]
    assert [task.cells["snip", 0.95].success is not None for task in of(given)] == [True]
    assert [task.cells["snip", 0.95].success for task in of([given[0], replace(given[1], successes=math.nan)])] == [None]


def test_the_tail_is_what_comes_after_seven_tenths_of_the_updates() -> None:
    own = replace(run("snip", 0.95, 0, 1.0), points=tuple(Point(update, update / 10, 1.0, 1.0) for update in (700, 701, 1000)))
    assert own.tail == pytest.approx((70.1 + 100) / 2)


def test_a_datasets_tier_and_environment_are_parts_of_its_name() -> None:
    (task,) = tasks_of([Run(Trial(dataset="mujoco/walker2d/medium-replay-v2"), "missing")])
    assert (task.environment, task.tier) == ("walker2d", "medium-replay")


def test_settings_that_a_dataset_has_two_of_are_never_averaged() -> None:
    given = [*runs("dense", 0.0, [50.0, 50.0]), *runs("snip", 0.95, [40.0, 40.0])]
    other = [replace(each, trial=replace(each.trial, hyper={"learning_rate": 0.1})) for each in given]
    names = [row.name for row in aggregates(of(given, other)) if row.method == "snip"]
    assert names == ["SNIP 95 %, learning_rate 0.1", "SNIP 95 %, plain"]
    scaled = [replace(each, trial=replace(each.trial, reward_scale=0.1)) for each in given]
    names = [row.name for row in aggregates(of(given, scaled)) if row.method == "snip"]
    assert names == ["SNIP 95 %, plain", "SNIP 95 %, reward_scale 0.1"]


def test_one_seed_has_no_interval_and_ties_are_named() -> None:
    (alone,) = of(runs("dense", 0.0, [50.0]), runs("snip", 0.95, [40.0]))
    head, row = tables.against_rows(alone)
    assert dict(zip(head, row, strict=True))["95 % interval"] == "one seed"
    assert tables.cells_of(alone.cells["snip", 0.95])[3] == "one seed"
    (panel,) = figures.by_sparsity([alone])
    assert not drawn(panel).collections, "no bar, no band"
    assert "one seed</small>" in page.grid([alone])
    (tied,) = of(runs("dense", 0.0, [50.0, 50.0]), runs("snip", 0.95, [50.0, 50.0]), runs("grasp", 0.95, [60.0, 70.0]))
    assert tables.cells_of(tied.cells["snip", 0.95])[3] == "seeds equal"
    assert [row[5] for row in tables.against_rows(tied)[1:]] == ["all tied", "all above"]


def test_an_interval_of_a_single_point_is_drawn() -> None:
    (panel,) = figures.by_sparsity(of(runs("snip", 0.95, [40.0, 60.0])))
    (bar,) = drawn(panel).collections
    ((left, low), (right, high)) = bar.get_segments()[0]
    assert left == right
    assert (low, high) == pytest.approx((50 - 127.06, 50 + 127.06), abs=0.01)


def test_a_panel_shows_its_means_and_not_all_of_an_interval_that_says_nothing() -> None:
    """Of two seeds, 20 and 80, it is 762 points long; three that are near each other are shown with all of theirs."""
    far, near = (runs("dense", 0.0, [60.0, 60.0, 60.0]), runs("snip", 0.95, [20.0, 80.0])), (runs("snip", 0.95, [48.0, 50.0, 52.0]),)
    for given, limits in ((far, (50 - 45, 60 + 45)), (near, (50 - 2.3 * 2.303, 50 + 2.3 * 2.303))):
        (panel,) = figures.by_sparsity(of(*given))
        assert drawn(panel).get_ylim() == pytest.approx(limits, abs=1.5)


@pytest.mark.filterwarnings("error")
def test_a_panel_of_zeros_shows_their_intervals() -> None:
    """Returns of a maze that nobody has solved, and scores that have a mean of 0."""
    for scores, reach in (([0.0, 0.0], 0.0), ([-10.0, 10.0], 127.06)):
        for panel in figures.by_sparsity(of(runs("dense", 0.0, [0.0, 0.0]), runs("snip", 0.95, scores))):
            low, high = drawn(panel).get_ylim()
            assert low < -reach <= reach < high


def test_a_trial_is_charged_its_share_of_its_stacks_time() -> None:
    assert seconds({10: 5.0, 20: 10.0}, {10: 4.0, 20: 1.0}, [10, 20]) == {10: 0.5, 20: 1.5}
    assert seconds({10: 5.0}, {}, [10]) == {10: 2.0}
    assert np.isnan(seconds({10: 5.0}, {10: 1.0}, [20])[20])


@pytest.mark.parametrize(("text", "escaped"), [
    ("a_b 95 %", r"a\_b 95 \%"), ("a\\b", r"a\textbackslash{}b"), ("{x}", r"\{x\}"), ("~^", r"\textasciitilde{}\textasciicircum{}"),
])  # fmt: skip
def test_latex_reads_what_is_meant(text: str, escaped: str) -> None:
    assert tables._escaped(text) == escaped


def test_the_verdict_begins_with_a_capital_and_keeps_those_of_its_values() -> None:
    given = [*runs("dense", 0.0, [50.0, 50.0]), *runs("snip", 0.95, [40.0, 40.0])]
    other = [replace(each, trial=replace(each.trial, hyper={"gaussian": True})) for each in given]
    assert "<p>Gaussian True, at 95 %: 0 of 1 cells retain" in page.page("study", of(given, other), {}, "")


def test_reasons_and_notes_from_mlflow_are_text_on_the_page() -> None:
    """Whoever can write to MLflow chooses them."""
    odd = "failed: <b onclick=x>"
    tasks = of(runs("dense", 0.0, [50.0, odd]), runs("snip", 0.95, [odd, odd]), runs("grasp", 0.95, [40.0, odd]))
    shown = page.page("<b onclick=x>", tasks, {}, "<b onclick=x>", ["<b onclick=x>"])
    assert "<b onclick" not in shown
    assert page.grid(tasks).count("failed: &lt;b onclick=x&gt;") == 4, "of dense, of both SNIPs together, and of both in GraSP's pair"


def test_means_over_tasks_are_computed_once_for_text_figure_and_page() -> None:
    tasks = two_tasks()
    assert aggregates(tasks) is aggregates(list(tasks))
