"""Figures of scores while training goes on, against what it cost by then: updates, FLOPs or seconds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from service.results import statistics
from service.results.cells import Cell, Task, budgets_of
from service.results.report import marks
from service.results.report.marks import COSTS
from service.results.report.palette import colour, shade, style_of
from service.results.report.style import Panel
from service.results.statistics import Scores
from service.terminal.labels import method_name

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def curves(tasks: Sequence[Task], cost: str) -> list[Panel]:
    """Learning curves: a panel per task and method, a line per sparsity, `n/m` where seeds are absent; `cost` is a key of COSTS."""
    found = []
    for task in tasks:
        for method in task.methods:
            lines = [cell for cell in task.of(method) if _curve(cell, cost)]
            if lines:
                found.append(_curves(task, method, lines, cost))
    return found


def _curves(task: Task, method: str, lines: Sequence[Cell], cost: str) -> Panel:
    def draw(axis: Axes) -> None:
        ends = []
        for cell in ([task.dense] if task.dense else []) + list(lines):
            curve = _curve(cell, cost)
            if not curve:
                continue
            x, middle, low, high = curve
            tone = shade(cell.method, task.sparsities, cell.sparsity)
            axis.plot(x, middle, color=tone, linestyle=style_of(cell.method).dash)
            axis.fill_between(x, low, high, color=tone, alpha=0.13, linewidth=0)
            ends.append((float(middle[-1]), cell.label.removeprefix(f"{method_name(method)} "), tone))
        marks.cost_axis(axis, cost)
        marks.name_ends(axis, ends)

    return Panel(f"{task.name}, {method_name(method)}", COSTS[cost], task.measure, draw)


def frontier(tasks: Sequence[Task], cost: str) -> list[Panel]:
    """Score at equal cost: every cell's curve, and over the whole ones the best that a budget has bought; `cost` is a key of COSTS.

    Tasks that differ in the number of updates alone share a panel: what is pruned affords more of them. A cell with an absent seed is
    dotted, named `n/m`, and never the best: its mean is of the seeds that did well.
    """

    def panel(title: str, lines: Sequence[_Line]) -> Panel:
        def draw(axis: Axes) -> None:
            for line in lines:
                cell, (x, middle, _, _) = line.cell, line.curve
                tone = shade(cell.method, line.task.sparsities, cell.sparsity)
                axis.plot(x, middle, color=tone, linewidth=1, linestyle=":" if cell.absent else style_of(cell.method).dash)
                if cell.absent:
                    axis.annotate(line.name(cell.label), (x[-1], middle[-1]), (3, -2), textcoords="offset points", fontsize=7)
            marks.legend(axis, (line.cell.method for line in lines))
            marks.cost_axis(axis, cost)
            axis.margins(x=0.22, y=0.14)
            best = [(line.name(line.cell.name), *line.curve[:2]) for line in lines if not line.cell.absent]
            marks.room(axis, (name for name, *_ in best))
            _best(axis, best)

        return Panel(title, COSTS[cost], lines[0].task.measure, draw)

    return [panel(title, lines) for title, group in budgets_of(tasks) if (lines := _lines(group, cost))]


def _lines(group: Sequence[Task], cost: str) -> list[_Line]:
    told = len(group) > 1
    return [_Line(task, cell, curve, told) for task in group for cell in task.cells.values() if (curve := _curve(cell, cost))]


@dataclass(frozen=True)
class _Line:
    """A cell's curve in a frontier; `told`: its name says how many updates it has, since others beside it have more or less."""

    task: Task
    cell: Cell
    curve: tuple[Scores, Scores, Scores, Scores]
    told: bool

    def name(self, name: str) -> str:
        return f"{name}, {marks.thousands(self.task.trial.updates)}" if self.told else name


def _best(axis: Axes, lines: Sequence[tuple[str, Scores, Scores]]) -> None:
    """The envelope as a thick line; a cell is named where it leaves it."""
    corners = envelope(lines)
    if not corners:
        return
    xs, ys = [x for x, _, _ in corners] + [max(float(x[-1]) for _, x, _ in lines)], [y for _, y, _ in corners] + [corners[-1][1]]
    axis.step(xs, ys, where="post", color=colour("ink"), linewidth=2)
    marks.name_corners(axis, {corner[2]: corner for corner in corners}.values())


def envelope(lines: Sequence[tuple[str, Scores, Scores]]) -> list[tuple[float, float, str]]:
    """The corners (cost, score, line) where a line rises above all that cost as much or less, ascending in both."""
    points = sorted((float(x), -float(y), name) for name, xs, ys in lines for x, y in zip(xs, ys, strict=True))
    corners: list[tuple[float, float, str]] = []
    for x, negative, name in points:
        if not corners or -negative > corners[-1][1]:
            corners.append((x, -negative, name))
    return corners


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
    """Mean over seeds [seeds, points] and its bootstrap interval, seeds drawn as whole curves; of one seed the interval is nan."""
    if len(table) == 1:
        return table[0], np.full_like(table[0], np.nan), np.full_like(table[0], np.nan)
    drawn = np.random.default_rng(0).integers(len(table), size=(1000, len(table)))
    low, high = np.percentile(table[drawn].mean(axis=1), statistics.LEVEL, axis=0)
    return table.mean(axis=0), low, high
