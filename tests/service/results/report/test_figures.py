"""What figures show of made-up runs: who is the best, where pruned overtakes dense, whole legends, ticks that can be read."""

from __future__ import annotations

import itertools
import re
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from matplotlib.collections import LineCollection, PolyCollection

from service.results.report import costs, figures, marks, sizes, style, svg
from service.results.report.drawing import remove_others
from service.results.report.style import Panel
from service.results.runs import Point, Run
from tests.service.results.test_cells import DIVERGED, drawn, of, run, runs, two_tasks


def test_profiles_are_of_the_same_tasks() -> None:
    panels = {panel.title: drawn(panel) for panel in figures.profiles(two_tasks())}
    for title, highest in {"at 95 %": 40.0, "at 50 %": 100.0}.items():
        for line in panels[title].lines:
            x, y = (np.asarray(values) for values in line.get_data())
            assert y[x < highest].min() >= (1.0 if highest == 40 else 0.5)
            assert (y[x >= highest] == 0).all()


def labels(panel: Panel) -> set[str]:
    return {key.label for key in panel.keys}


def test_an_incomplete_cell_is_dotted_and_never_the_best() -> None:
    dense = runs("dense", 0.0, [50.0, 50.0], size=1000)
    tasks = of(dense, runs("snip", 0.95, [40.0, 40.0], size=50), runs("random_erk", 0.95, [99.0, DIVERGED], size=50))
    (frontier,), (pareto,), (curves,) = costs.frontier(tasks, "flops"), sizes.pareto(tasks), costs.curves(tasks, "update")
    assert max(best(frontier)) == 40.0
    assert max(best(pareto)) == 50.0
    assert "seeds without score" in labels(frontier) & labels(curves)
    assert "some or one seed" in labels(pareto)
    alone = costs.frontier(of(runs("snip", 0.95, [40.0, DIVERGED])), "flops")[0]
    assert not [line for line in drawn(alone).lines if line.get_drawstyle() == "steps-post"]


def best(panel: Panel) -> np.ndarray:
    (line,) = [line for line in drawn(panel).lines if line.get_drawstyle() == "steps-post"]
    return np.asarray(line.get_ydata())


def test_what_has_had_more_updates_is_a_line_beside_the_others_where_costs_are_equal() -> None:
    """Five times the updates at a tenth of the weights: best of all, and never a score that dense is compared with at its own budget."""
    long = [
        replace(each, trial=replace(each.trial, updates=5000), points=(Point(5000, 60.0, 5000 * 10, 4.0),))
        for each in runs("snip", 0.95, [60.0, 60.0])
    ]
    tasks = of(runs("dense", 0.0, [50.0, 50.0]), runs("snip", 0.95, [40.0, 40.0], size=10), long)
    assert [(task.name, sorted(cell.name for cell in task.cells.values())) for task in tasks] == [
        ("hopper-expert BC, 1,000 updates", ["SNIP 95 %", "dense"]), ("hopper-expert BC, 5,000 updates", ["SNIP 95 %"]),
    ]  # fmt: skip
    (panel,) = costs.frontier(tasks, "flops")
    assert panel.title == "hopper-expert BC"
    assert "at 5,000 updates" in labels(panel)
    assert best(panel)[-1] == 60.0
    apart = of(runs("dense", 0.0, [50.0]), runs("dense", 0.0, [50.0], "walker2d"))
    assert [panel.title for panel in costs.frontier(apart, "flops")] == ["hopper-expert BC", "walker2d-expert BC"]


def test_it_is_marked_where_pruned_overtakes_dense() -> None:
    """Steps: pruned reaches 10 at cost 1 and 60 at 8; dense 20 at 2, 50 at 6 and 70 at 10."""
    best, dense = [(1.0, 10.0, ""), (8.0, 60.0, "")], [(2.0, 20.0, ""), (6.0, 50.0, ""), (10.0, 70.0, "")]
    assert costs.overtaking(best, dense, 12.0) == ([(8.0, 60.0, True), (10.0, 70.0, False)], [(8.0, 10.0)])
    assert costs.overtaking(dense, best, 12.0) == ([(8.0, 60.0, False), (10.0, 70.0, True)], [(2.0, 8.0), (10.0, 12.0)])
    assert costs.overtaking([], dense, 12.0) == costs.overtaking(best, [], 12.0) == ([], [])
    dense_runs = [
        replace(each, points=(Point(500, 10.0, 100.0, 1.0), Point(1000, 30.0, 200.0, 2.0))) for each in runs("dense", 0.0, [30.0] * 2)
    ]
    pruned = [replace(each, points=(Point(500, 5.0, 50.0, 1.0), Point(1000, 25.0, 150.0, 2.0))) for each in runs("snip", 0.95, [25.0] * 2)]
    (panel,) = costs.frontier(of(dense_runs, pruned), "flops")
    assert {"pruned overtakes", "dense overtakes", "pruned above dense"} <= labels(panel)
    stars = {(*line.get_xdata(), *line.get_ydata()) for line in drawn(panel).lines if line.get_marker() == "*"}
    assert stars == {(150.0, 25.0), (200.0, 30.0)}


def test_every_line_and_mark_of_a_figure_is_in_its_legend() -> None:
    """Colours, marks, dashes, hollow marks, bars and bands: nothing is drawn that no key shows."""
    tasks = of(
        runs("dense", 0.0, [50.0, 52.0]), runs("snip", 0.9, [48.0, 44.0]), runs("snip", 0.95, [40.0]),
        runs("grasp", 0.95, [30.0, DIVERGED]),
        runs("random_erk", 0.95, [20.0, 30.0]),
    )  # fmt: skip
    for panel in (*figures.by_sparsity(tasks), *costs.frontier(tasks, "flops"), *sizes.pareto(tasks), *costs.curves(tasks, "update")):
        tones, marks_of = {key.tone for key in panel.keys}, {key.marker for key in panel.keys}
        for line in drawn(panel).lines:
            assert line.get_color() in tones, (panel.title, line.get_color())
            assert line.get_marker() in {*marks_of, "None", "o"}, (panel.title, line.get_marker())
            hollow = line.get_marker() not in ("None", "x", "*") and line.get_fillstyle() == "none"
            assert not hollow or any(key.fill == "none" for key in panel.keys), panel.title
        bands = [each for each in drawn(panel).collections if isinstance(each, PolyCollection)] + list(drawn(panel).patches)
        bars = [each for each in drawn(panel).collections if isinstance(each, LineCollection)]
        assert bool(bands) <= any(key.patch for key in panel.keys), panel.title
        assert bool(bars) <= ("|" in marks_of), panel.title


def test_a_legend_names_no_interval_where_there_is_none() -> None:
    """One seed everywhere: hollow marks, no bars, no bands."""
    tasks = of(runs("dense", 0.0, [50.0]), runs("snip", 0.95, [40.0]))
    for panel in (*figures.by_sparsity(tasks), *costs.frontier(tasks, "flops"), *sizes.pareto(tasks), *costs.curves(tasks, "update")):
        assert not [label for label in labels(panel) if "interval" in label], panel.title
        assert not [each for each in drawn(panel).collections if isinstance(each, LineCollection)]
    assert "one seed" in labels(figures.by_sparsity(tasks)[0]) & labels(costs.frontier(tasks, "flops")[0])


def test_the_grid_shows_the_interval_of_every_share() -> None:
    tasks = of(runs("dense", 0.0, [58.0, 60.0]), runs("snip", 0.95, [40.0, 30.0]), runs("grasp", 0.95, [40.0, DIVERGED]))
    (panel,) = figures.heat_map(tasks)
    texts = [text.get_text() for text in drawn(panel).texts]
    assert texts == ["59", "-40 to 213", "69*", "one seed"]


def test_the_grid_has_a_row_for_each_task_and_a_column_for_each_cell() -> None:
    """The fuller the colour, the more of the dense score is kept; what has no share is hatched."""
    hopper = [*runs("dense", 0.0, [50.0]), *runs("snip", 0.95, [40.0]), *runs("grasp", 0.95, [20.0])]
    (panel,) = figures.heat_map(of(hopper, runs("dense", 0.0, [50.0], "walker2d"), runs("grasp", 0.95, [DIVERGED], "walker2d")))
    axis = drawn(panel)
    assert [text.get_text() for text in axis.get_yticklabels()] == ["hopper-expert BC", "walker2d-expert BC"]
    assert [text.get_text() for text in axis.get_xticklabels()] == ["SNIP\n95 %", "GraSP\n95 %"]
    told = {(text.get_position()[0], int(text.get_position()[1])): text.get_text() for text in axis.texts if text.get_text() != "one seed"}
    assert told == {(0.5, 0): "80", (1.5, 0): "40", (0.5, 1): "", (1.5, 1): DIVERGED}
    hatched, filled = axis.collections
    assert [path.get_extents().p0.tolist() for path in filled.get_paths()] == [[0, 0], [1, 0]]
    assert filled.get_facecolor()[:, 3] == pytest.approx([0.55 * 0.8, 0.55 * 0.4])
    assert hatched.get_paths()[0].get_extents().p0.tolist() == [1, 1]


def lines_of(panel: Panel) -> list[tuple[list[float], list[float], str]]:
    """What is drawn as a curve: x, y and the kind of line."""
    curves = [line for line in drawn(panel).lines if len(np.asarray(line.get_xdata())) > 1 and line.get_drawstyle() == "default"]
    return [(np.asarray(line.get_xdata()).tolist(), np.asarray(line.get_ydata()).tolist(), line.get_linestyle()) for line in curves]


def test_a_panel_of_curves_has_the_cells_of_its_sparsity_and_dense() -> None:
    """The mean over seeds at each evaluation; a line with an absent seed is dotted, here and where costs are equal."""
    tasks = of(runs("dense", 0.0, [50.0, 52.0]), runs("snip", 0.9, [44.0, 48.0]), runs("snip", 0.95, [40.0, DIVERGED]))
    found = {panel.title: lines_of(panel) for panel in costs.curves(tasks, "update")}
    dense = ([500, 1000], [25.5, 51.0], "--")
    assert found == {
        "hopper-expert BC, 90 %": [dense, ([500, 1000], [23.0, 46.0], "-")],
        "hopper-expert BC, 95 %": [dense, ([500, 1000], [20.0, 40.0], ":")],
    }
    (panel,) = costs.frontier(tasks, "flops")
    assert [kind for *_, kind in lines_of(panel)] == ["--", "-", ":"]


def test_scores_are_drawn_at_the_mean_cost_of_their_seeds() -> None:
    """Of two seeds, one with 10 weights and one with 30."""
    (dense,), small, large = runs("dense", 0.0, [50.0]), run("snip", 0.95, 0, 20.0, size=10), run("snip", 0.95, 1, 40.0, size=30)
    large = replace(large, points=tuple(replace(point, seconds=3 * point.seconds) for point in large.points))
    tasks = of([dense, small, large])
    for cost, spent in {"flops": [10_000.0, 20_000.0], "seconds": [10.0, 20.0]}.items():
        (panel,) = costs.frontier(tasks, cost)
        assert lines_of(panel)[1][:2] == (spent, [15.0, 30.0])
    (panel,) = sizes.pareto(tasks)
    marks_of = {(*line.get_xdata(), *line.get_ydata()) for line in drawn(panel).lines if line.get_marker() not in ("None", "")}
    assert marks_of == {(100.0, 50.0), (20.0, 30.0)}


def test_against_sparsity_there_are_means_levels_and_a_mark_where_seeds_are_absent() -> None:
    dense = [replace(each, dataset_score=90.0) for each in runs("dense", 0.0, [50.0, 54.0])]
    (panel,) = figures.by_sparsity(of(dense, runs("snip", 0.9, [44.0, 48.0]), runs("snip", 0.99, [40.0, DIVERGED])))
    at, data, (x, y, _) = lines_of(panel)
    assert (at[1], data[1]) == ([52.0, 52.0], [90.0, 90.0])
    assert (x, y) == (pytest.approx([1.0, 2.0]), [46.0, 40.0]), "steps are of one size for a tenth of the weights each"
    (cross,) = [line for line in drawn(panel).lines if line.get_marker() == "x"]
    assert list(cross.get_xdata()) == pytest.approx([2.0])


def masked(pruner: str, sparsity: float, densities: list[list[float]], unseen: Sequence[Sequence[str]] = ()) -> list[Run]:
    """Runs whose actors have layers of these densities, a list a seed, and do not see these inputs."""
    found = []
    for seed, (own, blind) in enumerate(itertools.zip_longest(densities, unseen, fillvalue=())):
        about = {
            "parameters": {"effective": 9},
            "layers": [{"density": d} for d in own],
            "unseen_inputs": blind,
            "live_inputs": 4 - len(blind),
        }
        found.append(replace(run(pruner, sparsity, seed, 40.0), masks={"actor": about}))
    return found


def test_layers_are_of_the_sparsity_nearest_to_95_percent_with_their_range_over_seeds() -> None:
    wanted, other = masked("snip", 0.95, [[0.1, 0.2], [0.3, 0.6]]), masked("snip", 0.5, [[0.5, 0.5]])
    (panel,) = sizes.layers(of(runs("dense", 0.0, [50.0]), wanted, other))
    assert panel.title == "hopper-expert BC, actor, 95 %"
    long = style.drawn([replace(panel, title=f"{'a' * letters} BC, actor, 95 %") for letters in range(40)])
    for letters, axes in enumerate(long.figure.axes):
        words = axes.get_title(loc="left").split("\n")
        assert all(line != "%" for line in words), f"{letters}: {words}"
    bars, ranges = drawn(panel).collections
    assert [path.get_extents().y1 for path in bars.get_paths()] == pytest.approx([20.0, 40.0])
    assert np.concatenate(ranges.get_segments())[:, 1] == pytest.approx([10.0, 30.0, 20.0, 60.0])


def test_inputs_have_the_share_of_seeds_that_see_them() -> None:
    """Of two seeds one does not see the speed, and neither sees the angle."""
    (panel,) = sizes.inputs(of(runs("dense", 0.0, [50.0]), masked("snip", 0.95, [[0.1]] * 2, [["angle", "speed"], ["angle"]])))
    axis = drawn(panel)
    assert [text.get_text() for text in axis.get_yticklabels()] == ["angle", "speed"]
    assert [text.get_text() for text in axis.texts] == ["unseen", "50 %"]
    assert [text.get_text() for text in axis.get_xticklabels()] == ["SNIP\n95 %\n2.5 live"]


def test_numbers_on_axes() -> None:
    assert [marks.thousands(value) for value in (500.0, 250_000.0, 1_500_000.0)] == ["500", "250k", "1.5M"]
    assert [marks.power(value) for value in (1e12, 2e12, 1.5e9, 1000.0)] == ["10¹²", "2·10¹²", "1.5·10⁹", "10³"]
    assert marks.listed([5000, 250_000]) == "5,000 or 250,000"


def test_a_key_with_a_mark_on_an_area_shows_both() -> None:
    assert len(marks.INTERVAL_KEY.artists()) == 2
    swatch = svg.swatch(marks.INTERVAL_KEY, "key")
    assert swatch.count("<path") >= 2
    assert "<use" in swatch


def test_a_legend_of_many_methods_is_inside_the_sheet_and_in_order() -> None:
    methods = [
        "snip",
        "grasp",
        "synflow",
        "force",
        "iterative_snip",
        "prospr",
        "magnitude",
        "gmp",
        "rigl",
        "set",
        "random_erk",
        "small_dense",
    ]
    tasks = of(runs("dense", 0.0, [50.0, 60.0]), *(runs(method, 0.95, [40.0, 45.0]) for method in methods))
    panels = figures.by_sparsity(tasks)
    for look in (style.TWO_COLUMNS, style.ONE_COLUMN, style.SLIDE):
        sheet = style.drawn(panels * look.columns, look)
        sheet.figure.draw_without_rendering()
        (legend,) = sheet.figure.legends
        box, frame = legend.get_window_extent(), sheet.figure.bbox
        assert frame.x0 - 1 <= box.x0 < box.x1 <= frame.x1 + 1, "clipped"
        assert box.y0 >= max(axis.get_window_extent().y1 for axis in sheet.figure.axes), "over a panel"
        own = [(text.get_window_extent(), text.get_text()) for text in legend.get_texts()]
        read = [label for _, label in sorted(own, key=lambda each: (-round(each[0].y0 / sheet.figure.dpi, 2), each[0].x0))]
        assert read == [key.label for key in style.keys_of(panels)], "row by row"
    assert [key.label for key in style.keys_of(panels)][:3] == ["dense", "SNIP", "Iterative SNIP"]


def test_ticks_do_not_touch() -> None:
    """Where sparsities crowd, on logarithmic axes of any span, and under panels as small as those of a paper."""
    crowded = [runs("snip", sparsity, [40.0, 45.0], size=int(1e5 * (1 - sparsity))) for sparsity in (0.5, 0.8, 0.9, 0.94, 0.95, 0.96, 0.98)]
    tasks = of(runs("dense", 0.0, [50.0, 52.0], size=100_000), *crowded)
    narrow = of(runs("dense", 0.0, [50.0, 52.0], size=1000), runs("snip", 0.5, [40.0, 45.0], size=900))
    for own in (tasks, narrow):
        panels = [*figures.by_sparsity(own), *sizes.pareto(own)]
        for cost in ("flops", "seconds"):
            panels += costs.frontier(own, cost)
        for look in (style.TWO_COLUMNS, style.ONE_COLUMN, style.SLIDE):
            sheet = style.drawn(panels, look)
            sheet.figure.draw_without_rendering()
            for axis in sheet.figure.axes:
                shown = [text for text in axis.get_xticklabels() if text.get_text()]
                boxes = [text.get_window_extent() for text in shown]
                assert len(boxes) >= 1 or axis.get_xlim()[0] == axis.get_xlim()[1]
                assert not any(a.overlaps(b) for a, b in itertools.combinations(boxes, 2)), [text.get_text() for text in shown]


def test_the_page_keeps_the_numbers_of_its_texts() -> None:
    panel = Panel("learning_rate 0.00125", "x", "y", lambda axis: axis.plot([0, 1 / 3], [0, 1 / 7], label="a"))
    sheet = style.drawn([panel])
    (text,) = svg.cut(style.saved(sheet, "svg"), sheet, "test")
    assert "learning_rate 0.00125" in text
    assert not re.search(r"<path[^>]*\.\d{3}", text)


def test_what_a_panel_refers_to_is_on_its_page_and_every_id_is_one_elements() -> None:
    """Marks, clipping paths, and the hatches of controls, which several panels of a sheet share."""
    snip, grasp = (masked(pruner, 0.95, [[0.1, 0.2]]) for pruner in ("snip", "grasp"))
    control = [replace(each, trial=each.trial.controls()["shuffle"]) for each in snip]
    both = [replace(each, masks=dict.fromkeys(("actor", "critic"), (each.masks or {})["actor"])) for each in (*grasp, *control)]
    tasks = of(runs("dense", 0.0, [50.0, 52.0]), both)
    panels = [*figures.by_sparsity(tasks), *sizes.layers(tasks)]
    (hatched,) = {key for panel in panels for key in panel.keys if key.hatch}
    sheet = style.drawn(panels)
    image = style.saved(sheet, "svg")
    cuts = [each for name in ("one", "two") for each in svg.cut(image, sheet, name)]
    assert len(cuts) == 2 * len(panels) == 6
    for each in cuts:
        own = re.findall(r"url\(#([^)]+)\)", each)
        assert own, "it is clipped"
        assert all(f'id="{name}"' in each for name in own), "also where no other panel is shown"
    page = "".join([*cuts, *(svg.swatch(hatched, name) for name in ("key-0", "key-1"))])
    ids, uses = re.findall(r'\bid="([^"]+)"', page), re.findall(r'\bhref="#([^"]+)"', page)
    assert len(ids) == len(set(ids))
    assert uses
    assert set(uses) <= set(ids)
    assert page.count("<pattern") == 2 * 2 + 2, "that of the control in two panels of two figures, and in two keys"
    assert "legend_" not in page, "the page has one of its own"


def test_only_what_a_report_drew_is_removed(tmp_path) -> None:
    for name in ("sparsity.png", "sparsity-3.png", "layers-2.svg", "curves-time.pdf", "pareto-slides-2.png", "mine.png", "sparsity-3.txt"):
        (tmp_path / name).write_bytes(b"")
    remove_others(tmp_path, {"sparsity.png"})
    assert {file.name for file in tmp_path.iterdir()} == {"sparsity.png", "mine.png", "sparsity-3.txt"}
