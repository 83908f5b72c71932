"""Figures of what is left of the networks: layers, parameters, inputs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from service.results.cells import Cell, Task
from service.results.report import marks
from service.results.report.costs import envelope
from service.results.report.palette import colour, shade, style_of
from service.results.report.style import Panel
from service.terminal.labels import DENSE, method_name

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def pareto(tasks: Sequence[Task]) -> list[Panel]:
    """Score against the actor's effective parameters, those on a path from input to output; the front is joined, and named where names fit.

    A cell with an absent seed is hollow, named `n/m`, and not on the front.
    """

    def panel(task: Task) -> Panel:
        cells = [(cell, cell.mean.value) for cell in task.cells.values() if _sized(cell) and cell.mean]
        points = [(_mean(cell, "parameters", "effective"), score, cell) for cell, score in cells]

        def draw(axis: Axes) -> None:
            for x, y, cell in points:
                tone, fill = shade(cell.method, task.sparsities, cell.sparsity), "none" if cell.absent else "full"
                axis.plot(x, y, marker=style_of(cell.method).marker, color=tone, linestyle="none", fillstyle=fill)
                if cell.absent:
                    axis.annotate(cell.label, (x, y), (0, -11), textcoords="offset points", fontsize=7, ha="center")
            corners = envelope([(cell.name, np.array([x]), np.array([y])) for x, y, cell in points if not cell.absent])
            axis.step([x for x, _, _ in corners], [y for _, y, _ in corners], where="post", color=colour("muted"), linewidth=1)
            marks.legend(axis, (cell.method for cell, _ in cells), points=True)
            axis.set_xscale("log")
            marks.grid(axis)
            axis.margins(x=0.1, y=0.16)
            marks.room(axis, (name for *_, name in corners))
            marks.name_corners(axis, corners)

        return Panel(task.name, "effective parameters of the actor", task.measure, draw)

    return [panel(task) for task in tasks if any(_sized(cell) and cell.mean for cell in task.cells.values())]


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
            found.append(_layers(f"{task.name}, {network} at {100 * nearest:g} %", own, network))
    return found


def _layers(title: str, cells: Sequence[Cell], network: str) -> Panel:
    def draw(axis: Axes) -> None:
        width = 0.8 / len(cells)
        for number, cell in enumerate(cells):
            rows = [[layer["density"] for layer in run.masks[network]["layers"]] for run in cell.runs if run.masks and network in run.masks]
            means = 100 * np.mean(rows, axis=0)
            x = np.arange(len(means)) + (number - (len(cells) - 1) / 2) * width
            look = style_of(cell.method)
            axis.bar(x, means, 0.88 * width, color=look.colour, hatch=look.hatch, edgecolor="white", linewidth=0)
            for place, value in zip(x, means, strict=True):
                axis.text(place, value, f"{value:.2g}" if value < 10 else f"{value:.0f}", ha="center", va="bottom", fontsize=6.5)
            axis.set_xticks(range(len(means)), [f"layer {i}" for i in range(len(means))])
        marks.grid(axis)
        axis.margins(y=0.1)
        marks.legend(axis, (cell.method for cell in cells))

    return Panel(title, "", "weights kept, %", draw)


def inputs(tasks: Sequence[Task]) -> list[Panel]:
    """Which observation dimensions the actor still sees: the share of seeds, a row per dimension, a column per cell."""
    return [_inputs(task) for task in tasks if any(_unseen(cell) for cell in task.cells.values())]


def _inputs(task: Task) -> Panel:
    cells = [cell for cell in task.cells.values() if cell.method != DENSE and _sized(cell)]
    names = sorted({name for cell in cells for name in _unseen(cell)})

    def draw(axis: Axes) -> None:
        for column, cell in enumerate(cells):
            seeds = sum(bool(run.masks) for run in cell.runs)
            for row, name in enumerate(names):
                share = 1 - _unseen(cell).get(name, 0) / seeds
                span, tone = [column + 0.03, column + 0.97], colour("fill")
                axis.fill_between(span, row + 0.05, row + 0.95, color=tone, alpha=0.5 * share, linewidth=0)
                text = "unseen" if share == 0 else f"{share:.0%}" if share < 1 else ""
                axis.text(column + 0.5, row + 0.5, text, ha="center", va="center", fontsize=6)
        axis.set_xlim(0, len(cells))
        axis.set_ylim(len(names), 0)
        axis.set_yticks([i + 0.5 for i in range(len(names))], names, fontsize=7)
        live = [f"{method_name(cell.method)}\n{100 * cell.sparsity:g} %\n{_mean(cell, 'live_inputs'):.3g} live" for cell in cells]
        axis.set_xticks([i + 0.5 for i in range(len(cells))], live, fontsize=6.5)
        axis.tick_params(length=0)
        axis.spines[:].set_visible(False)

    size = (max(4.4, 1.6 + 0.75 * len(cells)), 1.5 + 0.2 * len(names))
    return Panel(f"{task.name}: inputs that some mask cut", "", "", draw, size, columns=1)


def _sized(cell: Cell) -> bool:
    return any(run.masks and "actor" in run.masks for run in cell.runs)


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
