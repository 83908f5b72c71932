"""The figures of last scores: against sparsity, over the grid, over tasks. Score means the last evaluation's."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from service.results import statistics
from service.results.cells import DENSE, Cell, Task, places_of
from service.results.report import marks
from service.results.report.over_tasks import aggregates
from service.results.report.palette import colour, style_of
from service.results.report.style import CHARACTER, LINE, Panel, literal
from service.results.statistics import Estimate
from service.terminal import labels
from service.terminal.labels import method_name

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def by_sparsity(tasks: Sequence[Task]) -> list[Panel]:
    """Score against sparsity with intervals over seeds, dense as a level; the axis has equal steps in log density."""

    def panel(task: Task) -> Panel:
        def draw(axis: Axes) -> None:
            marks.levels(axis, task)
            bars: list[tuple[float, Estimate, str]] = []
            for number, method in enumerate(task.methods):
                look, known = style_of(method), [(cell, cell.mean) for cell in task.of(method) if cell.mean]
                aside = 0.012 * (number - (len(task.methods) - 1) / 2)  # so that bars of one sparsity stand side by side
                axis.plot([_log(cell.sparsity) + aside for cell, _ in known], [mean.value for _, mean in known], color=look.colour,
                          linestyle=look.dash)  # fmt: skip
                for cell, mean in known:
                    marks.point(axis, _log(cell.sparsity) + aside, mean, look.colour, look.marker)
                    bars.append((_log(cell.sparsity) + aside, mean, look.colour))
                for cell in task.of(method):
                    if cell.absent:  # a mark at the foot: some seeds are not in the line
                        foot = axis.get_xaxis_transform()
                        axis.plot(_log(cell.sparsity) + aside, 0.02, marker="x", color=look.colour, transform=foot, clip_on=False)
            marks.bars(axis, bars)
            axis.margins(x=0.08)
            marks.focus(axis)
            marks.ticks(axis, [_log(tick) for tick in task.sparsities], [f"{100 * tick:g} %" for tick in task.sparsities])

        cells = [cell for cell in task.cells.values() if cell.method != labels.DENSE]
        keys = [*marks.level_keys([task]), *marks.method_keys(task.methods)]
        keys += [marks.INTERVAL_KEY] if any(len(cell.done) > 1 for cell in task.cells.values()) else []
        keys += [marks.HOLLOW_KEY] if any(len(cell.done) == 1 for cell in cells) else []
        keys += [marks.ABSENT_KEY] if any(cell.absent for cell in cells) else []
        return Panel(task.name, "weights removed", task.measure, draw, tuple(keys))

    return [panel(task) for task in tasks if any(cell.mean for cell in task.cells.values())]


def heat_map(tasks: Sequence[Task]) -> list[Panel]:
    """The grid: share of the dense score in every cell, and what is not there."""
    places = [place for place in places_of(tasks) if place != DENSE]
    if not places:
        return []
    names = [literal(task.name) for task in tasks]

    def draw(axis: Axes) -> None:
        squares: list[tuple[float, float, float, float, float]] = []
        for row, task in enumerate(tasks):
            for column, place in enumerate(places):
                cell = task.cells.get(place)
                share = cell.retained.value if cell and cell.retained else None
                if share is not None:
                    strength = min(1.0, max(0.0, share))
                    squares.append((column, row, column + 1, row + 1, 0.55 * strength))
                elif cell:
                    span, tone = [column, column + 1], colour("rule")
                    axis.fill_between(span, row, row + 1, facecolor="none", edgecolor=tone, hatch="///", linewidth=0)
                middle, size = (row + 0.5, marks.small()) if share is None else (row + 0.33, "medium")
                axis.text(column + 0.5, middle, shown(cell), ha="center", va="center", fontsize=size)
                if cell and cell.retained:
                    axis.text(column + 0.5, row + 0.74, interval(cell.retained), ha="center", va="center", fontsize=marks.small())
        marks.squares(axis, squares, colour("fill"))
        axis.set_xlim(0, len(places))
        axis.set_ylim(len(tasks), 0)
        heads = [f"{textwrap.fill(method_name(method), 10)}\n{100 * sparsity:g} %" for method, sparsity in places]
        axis.set_xticks([i + 0.5 for i in range(len(places))], heads)
        axis.set_yticks([i + 0.5 for i in range(len(tasks))], names)
        axis.tick_params(length=0)
        axis.spines[:].set_visible(False)

    left, most = 0.15 + CHARACTER * max(map(len, names)), max(len(textwrap.wrap(method_name(method), 10)) for method, _ in places)
    bottom = 0.1 + LINE * (most + 1)
    title = "share of the dense score, %, and its 95 % interval  (*: a seed or its dense one has no score; hatched: no share)"
    return [Panel(title, "", "", draw, size=(left + 0.64 * len(places) + 0.1, bottom + 0.3 + 0.34 * len(tasks), left, bottom))]


def shown(cell: Cell | None) -> str:
    """A cell of the heat map in a word."""
    if cell is None:
        return ""
    if cell.retained:
        return f"{100 * cell.retained.value:.0f}{'' if cell.whole else '*'}"
    return "\n".join(cell.absent) if cell.absent else "no dense"


def interval(share: Estimate) -> str:
    """The interval of a share, in percent."""
    return share.note or f"{100 * share.low:.0f} to {100 * share.high:.0f}"


def profiles(tasks: Sequence[Task]) -> list[Panel]:
    """Performance profiles over tasks: the share of runs above each score, a panel per sparsity, its lines about the same tasks."""
    known = [row for row in aggregates(tasks) if row.tasks]
    by_name = {task.name: task for task in tasks}

    def panel(suite: str, sparsity: float) -> Panel:
        lines = [each for each in known if (each.suite, each.at) == (suite, sparsity)]

        def draw(axis: Axes) -> None:
            groups = [(each, [by_name[name].cells[each.method, each.sparsity].scores() for name in each.tasks]) for each in lines]
            pooled = np.concatenate([scores for _, group in groups for scores in group])
            levels = np.linspace(min(0.0, pooled.min()), pooled.max() * 1.02, 101)
            for each, group in groups:
                look = style_of(each.method)
                middle, low, high = statistics.profile(group, levels)
                axis.step(levels, middle, where="post", color=look.colour, linestyle=look.dash)
                axis.fill_between(
                    levels, low, high, step="post", color=look.colour, alpha=0.12 if len(groups) <= marks.FEW else 0.05, linewidth=0
                )
            axis.set_ylim(0, 1.03)
            marks.grid(axis)

        keys = (*marks.method_keys((each.method for each in lines), marks=False), marks.BAND_KEY)
        return Panel(
            ", ".join(filter(None, [f"at {100 * sparsity:g} %", suite])), "normalized score τ", "share of runs above τ", draw, keys
        )

    return [panel(*place) for place in dict.fromkeys((each.suite, each.at) for each in known if each.method != labels.DENSE)]


def _log(sparsity: float) -> float:
    return -math.log10(1 - sparsity)
