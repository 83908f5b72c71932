"""Figures of scores while training goes on, against what it cost by then: updates, FLOPs or seconds."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from service.report import marks, statistics
from service.report.cells import Cell, Task, methods_of
from service.report.marks import COSTS
from service.report.statistics import Scores
from service.report.style import Panel, colour, level_colour, method_colour

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def curves(tasks: Sequence[Task], cost: str) -> list[Panel]:
    """Learning curves: a panel per task and method, a line per sparsity, `n/m` where seeds are absent; `cost` is a key of COSTS."""
    found = []
    for task in tasks:
        levels = sorted({sparsity for method, sparsity in task.cells if method != "dense"})
        for method in dict.fromkeys(name for name, _ in task.cells if name != "dense"):
            lines = [cell for cell in task.of(method) if _curve(cell, cost)]
            if lines:
                found.append(_curves(task, method, lines, levels, cost))
    return found


def _curves(task: Task, method: str, lines: Sequence[Cell], levels: Sequence[float], cost: str) -> Panel:
    def draw(axis: Axes) -> None:
        ends = []
        for cell in ([task.dense] if task.dense else []) + list(lines):
            curve = _curve(cell, cost)
            if not curve:
                continue
            x, middle, low, high = curve
            tone = colour("ink") if cell.method == "dense" else level_colour(levels, cell.sparsity)
            axis.plot(x, middle, color=tone, linestyle="--" if cell.method == "dense" else "-")
            axis.fill_between(x, low, high, color=tone, alpha=0.13, linewidth=0)
            ends.append((float(middle[-1]), cell.label.removeprefix(f"{method} "), tone))
        marks.cost_axis(axis, cost)
        marks.name_ends(axis, ends)

    return Panel(f"{task.name}, {method}", COSTS[cost], task.measure, draw)


def frontier(tasks: Sequence[Task], cost: str) -> list[Panel]:
    """Score at equal cost: every cell's curve, and over the whole ones the best that a budget has bought; `cost` is a key of COSTS.

    A cell with an absent seed is dotted, named `n/m`, and never the best: its mean is of the seeds that did well.
    """
    methods = methods_of(tasks)

    def panel(task: Task) -> Panel:
        def draw(axis: Axes) -> None:
            known = [(cell, curve) for cell in task.cells.values() if (curve := _curve(cell, cost))]
            for cell, (x, middle, _, _) in known:
                tone = colour("ink") if cell.method == "dense" else method_colour(methods, cell.method)
                style = ":" if cell.absent else "--" if cell.method == "dense" else "-"
                axis.plot(x, middle, color=tone, linewidth=1, alpha=0.7, linestyle=style)
                if cell.absent:
                    axis.annotate(cell.label, (x[-1], middle[-1]), (3, -2), textcoords="offset points", fontsize=7)
            _best(axis, [(cell.name, x, middle) for cell, (x, middle, _, _) in known if not cell.absent])
            marks.legend(axis, methods, (cell.method for cell, _ in known))
            marks.cost_axis(axis, cost)
            axis.margins(x=0.22, y=0.14)

        return Panel(task.name, COSTS[cost], task.measure, draw)

    return [panel(task) for task in tasks if any(_curve(cell, cost) for cell in task.cells.values())]


def _best(axis: Axes, lines: Sequence[tuple[str, Scores, Scores]]) -> None:
    """The envelope as a thick line; a cell is named where it leaves it."""
    corners = envelope(lines)
    if not corners:
        return
    xs, ys = [x for x, _, _ in corners] + [max(float(x[-1]) for _, x, _ in lines)], [y for _, y, _ in corners] + [corners[-1][1]]
    axis.step(xs, ys, where="post", color=colour("ink"), linewidth=2)
    last = {corner[2]: corner for corner in corners}
    left = {xs[0]: "left"}  # beside the first point there is only the axis
    for cost_then, y, name in _apart(last.values(), 0.09 * (ys[-1] - ys[0])):
        side = left.get(cost_then, "right")
        axis.annotate(name, (cost_then, y), (-3 if side == "right" else 0, 4), textcoords="offset points", fontsize=7.5, ha=side)


def envelope(lines: Sequence[tuple[str, Scores, Scores]]) -> list[tuple[float, float, str]]:
    """The corners (cost, score, line) where a line rises above all that cost as much or less, ascending in both."""
    points = sorted((float(x), -float(y), name) for name, xs, ys in lines for x, y in zip(xs, ys, strict=True))
    corners: list[tuple[float, float, str]] = []
    for x, negative, name in points:
        if not corners or -negative > corners[-1][1]:
            corners.append((x, -negative, name))
    return corners


def _apart(corners: Iterable[tuple[float, float, str]], gap: float) -> list[tuple[float, float, str]]:
    """The corners that can be named without touching: from the top, each at least `gap` below the one before."""
    named: list[tuple[float, float, str]] = []
    for corner in sorted(corners, key=lambda corner: -corner[1]):
        if not named or named[-1][1] - corner[1] > gap:
            named.append(corner)
    return named


def _curve(cell: Cell, cost: str) -> tuple[Scores, Scores, Scores, Scores] | None:
    """x, mean, low and high over the seeds that finished, at the evaluations that all of them have had; None where a cost is not known."""
    runs = [{point.update: point for point in run.points} for run in cell.done]
    common = sorted(set.intersection(*(set(run) for run in runs))) if runs else []
    if not common:
        return None
    x = np.array([np.mean([getattr(run[update], cost) for run in runs]) for update in common])
    if not np.isfinite(x).all():
        return None
    table = np.array([[run[update].score for update in common] for run in runs])  # [seeds, points]
    return x, *_bands(table)


def _bands(table: Scores) -> tuple[Scores, Scores, Scores]:
    """Mean over seeds [seeds, points] and its bootstrap interval, seeds drawn as whole curves."""
    drawn = np.random.default_rng(0).integers(len(table), size=(1000, len(table)))
    low, high = np.percentile(table[drawn].mean(axis=1), statistics.LEVEL, axis=0)
    return table.mean(axis=0), low, high
