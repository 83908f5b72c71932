"""Figures of scores during training, against what it cost by then: updates, FLOPs or seconds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from service.results.cells import Cell, Task, budgets_of
from service.results.report import marks
from service.results.report.marks import COSTS
from service.results.report.palette import colour, style_of
from service.results.report.style import Key, Panel
from service.results.statistics import Estimate, Scores
from service.terminal.labels import DENSE

if TYPE_CHECKING:
    from matplotlib.axes import Axes

OVERTAKES = Key("pruned overtakes", colour("ink"), marker="*", size=7)
OVERTAKEN = Key("dense overtakes", colour("ink"), marker="*", fill="none", size=7)
AHEAD = Key("pruned above dense", colour("accent"), dash="-", width=3)
BEST = Key("best pruned so far", colour("fill"), dash="-", width=1.2)
RING = colour("ink")
DOTTED = Key("seeds without score", colour("muted"), dash=":")
Corner = tuple[float, float, str]  # cost, score, line
Curve = tuple[Scores, Scores, Scores, Scores]  # x, mean, low, high


def curves(tasks: Sequence[Task], cost: str) -> list[Panel]:
    """Learning curves: a panel per task and sparsity, a line per method; `cost` is a key of COSTS."""
    found = []
    for task in tasks:
        for sparsity in task.sparsities or [0.0]:
            cells = [cell for (method, at), cell in task.cells.items() if method == DENSE or at == sparsity]
            lines = [(cell, curve) for cell in cells if (curve := _curve(cell, cost))]
            if any(cell.method != DENSE for cell, _ in lines) or (lines and not task.sparsities):
                title = f"{task.name}, {100 * sparsity:g} %" if task.sparsities else task.name
                found.append(_curves(title, task.measure, lines, cost))
    return found


def _curves(title: str, measure: str, lines: Sequence[tuple[Cell, Curve]], cost: str) -> Panel:
    def draw(axis: Axes) -> None:
        for cell, (x, middle, low, high) in lines:
            look = style_of(cell.method)
            axis.plot(x, middle, color=look.colour, linestyle=":" if cell.absent else look.dash)
            marks.band(axis, x, low, high, look.colour, 0.13 if len(lines) <= marks.FEW else 0.05)
        marks.cost_axis(axis, cost)
        marks.focus(axis)

    keys = marks.method_keys((cell.method for cell, _ in lines), marks=False)
    keys += [marks.BAND_KEY] if any(len(cell.done) > 1 for cell, _ in lines) else []
    return Panel(title, COSTS[cost], measure, draw, (*keys, *([DOTTED] if any(cell.absent for cell, _ in lines) else [])))


def frontier(tasks: Sequence[Task], cost: str) -> list[Panel]:
    """Score at equal cost: where each cell ends, with its interval, and how it got there, beside the dense curve; `cost` is a key of COSTS.

    Tasks that differ in the number of updates alone share a panel: what is pruned affords more of them. Along the foot it is marked where
    the best pruned mean that a cost has bought is above the best dense one. A cell with an absent seed is dotted and never the best: its
    mean is of the seeds that did well.
    """
    shapes = marks.sparsity_marks(tasks)
    return [_frontier(title, lines, cost, shapes) for title, group in budgets_of(tasks) if (lines := _lines(group, cost))]


def _frontier(title: str, lines: Sequence[_Line], cost: str, shapes: dict[float, str]) -> Panel:
    dense = [line for line in lines if line.cell.method == DENSE]
    pruned = [line for line in lines if line.cell.method != DENSE]
    best, reference = (envelope([("", *line.curve[:2]) for line in own if not line.cell.absent]) for own in (pruned, dense))
    end = max((float(line.curve[0][-1]) for line in lines if not line.cell.absent), default=0.0)
    turns, spans = overtaking(best, reference, end)

    def draw(axis: Axes) -> None:
        for line in dense:
            x, middle, low, high = line.curve
            axis.plot(x, middle, color=colour("ink"), linestyle=":" if line.cell.absent else style_of(DENSE).dash)
            marks.band(axis, x, low, high, colour("ink"), 0.1)
        bars: list[tuple[float, Estimate, str]] = []
        for line in pruned:
            x, middle, low, high = line.curve
            look, marker = style_of(line.cell.method), shapes[line.cell.sparsity]
            axis.plot(x, middle, color=look.colour, linestyle=":" if line.cell.absent else look.dash, linewidth=marks.sized(0.5), alpha=0.7)
            if len(pruned) <= marks.FEW:
                marks.band(axis, x, low, high, look.colour, 0.05)
            last = Estimate(float(middle[-1]), float(low[-1]), float(high[-1]), len(line.cell.done))
            marks.point(axis, float(x[-1]), last, look.colour, marker, marks.variant_fill(line.cell.method))
            bars.append((float(x[-1]), last, look.colour))
            if line.long:
                axis.plot(
                    x[-1],
                    middle[-1],
                    marker="o",
                    color=RING,
                    fillstyle="none",
                    markersize=marks.sized(7.5),
                    markeredgewidth=marks.sized(0.6),
                )
        marks.bars(axis, bars)
        if best:
            reach = [*(x for x, _, _ in best), max(end, best[-1][0])]
            axis.step(
                reach, [*(y for _, y, _ in best), best[-1][1]], where="post", color=BEST.tone, linewidth=marks.sized(BEST.width), zorder=1.5
            )
        for start, stop in spans:
            axis.plot(
                [start, stop], [0.012] * 2, color=AHEAD.tone, linewidth=marks.sized(AHEAD.width), transform=axis.get_xaxis_transform(),
                zorder=4, solid_capstyle="butt",
            )  # fmt: skip
        for turn, score, ahead in turns:
            key = OVERTAKES if ahead else OVERTAKEN
            axis.plot(turn, score, marker=key.marker, color=key.tone, fillstyle=key.fill, markersize=marks.sized(key.size), zorder=6)
        marks.cost_axis(axis, cost)
        marks.focus(axis)

    keys = [marks.DENSE_KEY] if dense else []
    keys += marks.method_keys((line.cell.method for line in pruned), marks=False)
    used = {line.cell.sparsity for line in pruned}
    keys += marks.sparsity_keys({sparsity: shape for sparsity, shape in shapes.items() if sparsity in used})
    keys += [marks.INTERVAL_KEY] if any(len(line.cell.done) > 1 for line in lines) else []
    keys += [marks.HOLLOW_KEY] if any(len(line.cell.done) == 1 for line in pruned) else []
    longer = sorted({line.task.trial.updates for line in lines if line.long})
    keys += [Key(f"at {marks.listed(longer)} updates", RING, marker="o", fill="none", size=6.5, order=(4,))] if longer else []
    keys += [BEST] if best else []
    keys += [AHEAD] if spans else []
    keys += [key for key, kind in ((OVERTAKES, True), (OVERTAKEN, False)) if any(ahead is kind for *_, ahead in turns)]
    keys += [DOTTED] if any(line.cell.absent for line in lines) else []
    return Panel(title, COSTS[cost], lines[0].task.measure, draw, tuple(keys))


def _lines(group: Sequence[Task], cost: str) -> list[_Line]:
    shortest = min(task.trial.updates for task in group)
    return [
        _Line(task, cell, curve, task.trial.updates > shortest)
        for task in group
        for cell in task.cells.values()
        if (curve := _curve(cell, cost))
    ]


@dataclass(frozen=True)
class _Line:
    """A cell's curve in a frontier; `long`: it has had more updates than others beside it."""

    task: Task
    cell: Cell
    curve: Curve
    long: bool


def overtaking(
    best: Sequence[Corner], dense: Sequence[Corner], end: float
) -> tuple[list[tuple[float, float, bool]], list[tuple[float, float]]]:
    """Where the best pruned score passes the best dense one as cost grows up to `end`, both being steps: (cost, score, whether pruned is
    ahead from there on), and the spans of cost in which it is ahead. Nothing is said below a cost at which both have been evaluated."""
    if not best or not dense:
        return [], []
    start = max(best[0][0], dense[0][0])
    places = sorted({start, *(x for x, _, _ in (*best, *dense) if start < x <= end)})
    turns, spans, ahead = list[tuple[float, float, bool]](), list[tuple[float, float]](), False
    for number, x in enumerate(places):
        own, other = (max(y for at, y, _ in corners if at <= x) for corners in (best, dense))
        if number and (own > other) != ahead:
            turns.append((x, max(own, other), own > other))
        ahead = own > other
        if ahead:
            until = places[number + 1] if number + 1 < len(places) else end
            spans[-1:] = [(spans[-1][0], until)] if spans and spans[-1][1] == x else [*spans[-1:], (x, until)]
    return turns, spans


def envelope(lines: Sequence[tuple[str, Scores, Scores]]) -> list[Corner]:
    """The corners (cost, score, line) where a line rises above all that cost as much or less, ascending in both."""
    points = sorted((float(x), -float(y), name) for name, xs, ys in lines for x, y in zip(xs, ys, strict=True))
    corners: list[Corner] = []
    for x, negative, name in points:
        if not corners or -negative > corners[-1][1]:
            corners.append((x, -negative, name))
    return corners


def _curve(cell: Cell, cost: str) -> Curve | None:
    """x, mean, low and high over the seeds that finished, at the evaluations that all of them have had; None where a cost is not known."""
    if cell.curve is None:
        return None
    updates, *bands = cell.curve
    runs = [{point.update: getattr(point, cost) for point in run.points} for run in cell.done]
    x = np.array([[run[update] for run in runs] for update in updates], np.float64).mean(axis=1)
    return (x, *bands) if np.isfinite(x).all() else None
