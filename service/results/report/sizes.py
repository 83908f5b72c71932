"""Figures of what is left of the networks: layers, parameters, inputs."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from service.results.cells import Cell, Task
from service.results.report import marks
from service.results.report.costs import envelope
from service.results.report.palette import colour, style_of
from service.results.report.style import CHARACTER, LINE, Key, Panel
from service.terminal.labels import DENSE, method_name, rank

if TYPE_CHECKING:
    from matplotlib.axes import Axes

FRONT = Key("best for its size", colour("fill"), dash="-", width=0.9)
HOLLOW = Key("some or one seed", colour("muted"), marker="o", fill="none")
RANGE = Key("range over seeds", colour("ink"), marker="|", size=7)


def pareto(tasks: Sequence[Task]) -> list[Panel]:
    """Score against the actor's effective parameters, those on a path from input to output; the cells that no smaller one beats are joined.

    A cell with an absent seed is hollow and not on the front. Actors without any such parameter have no place on the logarithmic axis; its
    label counts them.
    """
    shapes = marks.sparsity_marks(tasks)

    def panel(task: Task) -> Panel:
        every = [(_effective(cell), cell.mean, cell) for cell in task.cells.values() if _sized(cell) and cell.mean]
        points = [(x, mean, cell) for x, mean, cell in every if x > 0]
        cells = [(cell, mean) for _, mean, cell in points]

        def draw(axis: Axes) -> None:
            if task.dense and task.dense.mean:
                marks.level(axis, task.dense.mean)
            for x, mean, cell in points:
                fill = "none" if cell.absent else marks.variant_fill(cell.method)
                marker = "o" if cell.method == DENSE else shapes[cell.sparsity]
                marks.point(axis, x, mean, style_of(cell.method).colour, marker, fill)
            marks.bars(axis, [(x, mean, style_of(cell.method).colour) for x, mean, cell in points])
            marks.focus(axis)
            corners = envelope([(cell.name, np.array([x]), np.array([mean.value])) for x, mean, cell in every if not cell.absent])
            corners = [corner for corner in corners if corner[0] > 0]
            axis.step(
                [x for x, *_ in corners],
                [y for _, y, _ in corners],
                where="post",
                color=FRONT.tone,
                linewidth=marks.sized(FRONT.width),
                zorder=1,
            )
            marks.grid(axis)
            axis.set_xscale("log")
            marks.log_axis(axis, marks.thousands)

        pruned = [cell for cell, _ in cells if cell.method != DENSE]
        keys = [replace(marks.DENSE_KEY, marker="o")] if task.dense and task.dense.mean else []
        for method in sorted({cell.method for cell in pruned}, key=rank):
            keys += [replace(key, marker="s", fill=marks.variant_fill(method)) for key in marks.method_keys([method], lines=False)]
        keys += marks.sparsity_keys(
            {sparsity: shape for sparsity, shape in shapes.items() if any(cell.sparsity == sparsity for cell in pruned)}
        )
        keys += [marks.INTERVAL_KEY] if any(mean.seeds > 1 for _, mean in cells) else []
        keys += [HOLLOW] if any(cell.absent or mean.seeds == 1 for cell, mean in cells) else []
        empty = len(every) - len(points)
        label = f" ({empty} cell{'s have' if empty > 1 else ' has'} none)" if empty else ""
        return Panel(task.name, f"effective parameters of the actor{label}", task.measure, draw, (*keys, FRONT))

    return [panel(task) for task in tasks if any(_sized(cell) and cell.mean and _effective(cell) > 0 for cell in task.cells.values())]


def layers(tasks: Sequence[Task]) -> list[Panel]:
    """Density of each layer at the sparsity nearest to 95 %, a panel per task and network, mean over seeds."""
    found = []
    for task in tasks:
        cells = [cell for cell in task.cells.values() if cell.method != DENSE and _sized(cell)]
        if not cells:
            continue
        nearest = min({cell.sparsity for cell in cells}, key=lambda sparsity: abs(sparsity - 0.95))
        own = [cell for cell in cells if cell.sparsity == nearest]
        for network in dict.fromkeys(name for cell in own for run in cell.runs for name in run.masks or ()):
            found.append(_layers(f"{task.name}, {network}, {100 * nearest:g} %", own, network))
    return found


def _layers(title: str, cells: Sequence[Cell], network: str) -> Panel:
    def draw(axis: Axes) -> None:
        width = 0.8 / len(cells)
        ranges: list[tuple[float, float, float]] = []
        for number, cell in enumerate(cells):
            rows = [[layer["density"] for layer in run.masks[network]["layers"]] for run in cell.runs if run.masks and network in run.masks]
            shares = 100 * np.array(rows)  # [seeds, layers]
            x, look = np.arange(shares.shape[1]) + (number - (len(cells) - 1) / 2) * width, style_of(cell.method)
            bars = [(at - 0.44 * width, 0.0, at + 0.44 * width, share, 1.0) for at, share in zip(x, shares.mean(axis=0), strict=True)]
            marks.squares(axis, bars, look.colour, look.hatch)
            if len(shares) > 1:
                ranges += zip(x, shares.min(axis=0), shares.max(axis=0), strict=True)
        if ranges:
            axis.vlines(*zip(*ranges, strict=True), color=colour("ink"), linewidth=marks.sized(0.7))
        count = max(len(run.masks[network]["layers"]) for cell in cells for run in cell.runs if run.masks and network in run.masks)
        axis.set_xticks(range(count), [f"layer {i + 1}" for i in range(count)])
        axis.set_ylim(bottom=0)
        marks.grid(axis)

    keys = [
        Key(
            method_name(cell.method), style_of(cell.method).colour, patch=1, hatch=style_of(cell.method).hatch, order=(2, rank(cell.method))
        )
        for cell in cells
    ]
    ranges = [RANGE] if any(sum(bool(run.masks) for run in cell.runs) > 1 for cell in cells) else []
    return Panel(title, "", "weights kept, %", draw, (*keys, *ranges))


def inputs(tasks: Sequence[Task]) -> list[Panel]:
    """Which observation dimensions the actor still sees: the share of seeds, a row per dimension, a column per cell."""
    return [_inputs(task) for task in tasks if any(_unseen(cell) for cell in task.cells.values())]


def _inputs(task: Task) -> Panel:
    cells = [cell for cell in task.cells.values() if cell.method != DENSE and _sized(cell)]
    names = sorted({name for cell in cells for name in _unseen(cell)})

    def draw(axis: Axes) -> None:
        squares: list[tuple[float, float, float, float, float]] = []
        for column, cell in enumerate(cells):
            seeds = sum(bool(run.masks) for run in cell.runs)
            for row, name in enumerate(names):
                share = 1 - _unseen(cell).get(name, 0) / seeds
                squares.append((column + 0.03, row + 0.05, column + 0.97, row + 0.95, 0.5 * share))
                text = "unseen" if share == 0 else f"{100 * share:.0f} %" if share < 1 else ""
                axis.text(column + 0.5, row + 0.5, text, ha="center", va="center", fontsize=marks.small())
        marks.squares(axis, squares, colour("fill"))
        axis.set_xlim(0, len(cells))
        axis.set_ylim(len(names), 0)
        axis.set_yticks([i + 0.5 for i in range(len(names))], names)
        live = [f"{textwrap.fill(method_name(c.method), 9)}\n{100 * c.sparsity:g} %\n{_mean(c, 'live_inputs'):.3g} live" for c in cells]
        axis.set_xticks([i + 0.5 for i in range(len(cells))], live, fontsize=marks.small())
        axis.tick_params(length=0)
        axis.spines[:].set_visible(False)

    left, lines = 0.15 + CHARACTER * max(map(len, names)), max(len(textwrap.wrap(method_name(cell.method), 9)) for cell in cells)
    bottom = 0.1 + LINE * (lines + 2)
    size = (left + max(3.0, 0.6 * len(cells)) + 0.1, bottom + 0.3 + 0.16 * len(names), left, bottom)
    return Panel(f"{task.name}: share of seeds that see an input", "", "", draw, size=size)


def _sized(cell: Cell) -> bool:
    return any(run.masks and "actor" in run.masks for run in cell.runs)


def _effective(cell: Cell) -> float:
    """Mean over seeds of the actor's parameters that are on a path from input to output; 0 where no path is left."""
    return _mean(cell, "parameters", "effective")


def _mean(cell: Cell, *names: str) -> float:
    """Mean over seeds of a number that masks.json tells of the actor."""
    found = []
    for run in cell.runs:
        value: Any = (run.masks or {}).get("actor")
        for name in names:
            value = value and value[name]
        found += [value] if value is not None else []
    return float(np.mean(found))


def _unseen(cell: Cell) -> dict[str, int]:
    """Inputs that some seed's actor does not see, and by how many of them."""
    counts: dict[str, int] = {}
    for run in cell.runs:
        for name in (run.masks or {}).get("actor", {}).get("unseen_inputs", ()):
            counts[name] = counts.get(name, 0) + 1
    return counts
