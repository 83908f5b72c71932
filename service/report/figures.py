"""The figures of a report, each a list of panels. Score means the last evaluation's unless it is a curve."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from service.report import statistics
from service.report.cells import DENSE, Cell, Task, aggregates, methods_of, places_of
from service.report.statistics import Scores
from service.report.style import Panel, colour, level_colour, marker, method_colour

if TYPE_CHECKING:
    from matplotlib.axes import Axes

COSTS = {"update": "updates", "flops": "FLOPs of the kept weights", "seconds": "seconds of training"}


def by_sparsity(tasks: Sequence[Task]) -> list[Panel]:
    """Score against sparsity, bands over seeds, dense as a level; the axis has equal steps in log density."""
    methods = methods_of(tasks)

    def panel(task: Task) -> Panel:
        def draw(axis: Axes) -> None:
            ticks = sorted({0.0, *(sparsity for _, sparsity in task.cells)})
            _level(axis, task)
            ends = []
            for method in methods:
                cells = [cell for cell in task.of(method) if cell.mean]
                if cells:
                    x, tone = [_log(cell.sparsity) for cell in cells], method_colour(methods, method)
                    _line(axis, x, [cell.mean for cell in cells], tone, marker(methods, method))
                    ends.append((x[-1], cells[-1].mean.value if cells[-1].mean else 0.0, method, tone))
                for cell in task.of(method):
                    if cell.absent:  # a hollow mark at the foot: some seeds are not in the line
                        axis.plot(_log(cell.sparsity), 0.02, marker="x", color=method_colour(methods, method),
                                  transform=axis.get_xaxis_transform(), clip_on=False)  # fmt: skip
            axis.set_xticks([_log(tick) for tick in ticks], [f"{100 * tick:g} %" for tick in ticks])
            _name_ends(axis, ends)

        return Panel(task.name, "weights removed (x: a seed has no score)", task.measure, draw)

    return [panel(task) for task in tasks if any(cell.mean for cell in task.cells.values())]


def heat_map(tasks: Sequence[Task]) -> list[Panel]:
    """The grid: share of the dense score in every cell, and what is not there."""
    places = [place for place in places_of(tasks) if place != DENSE]
    if not places:
        return []

    def draw(axis: Axes) -> None:
        for row, task in enumerate(tasks):
            for column, place in enumerate(places):
                cell = task.cells.get(place)
                share = cell.retained.value if cell and cell.retained else None
                if share is not None:
                    strength = min(1.0, max(0.0, share))
                    axis.fill_between([column, column + 1], row, row + 1, color=colour("method-0"), alpha=0.75 * strength, linewidth=0)
                text = shown(cell)
                axis.text(column + 0.5, row + 0.5, text, ha="center", va="center", fontsize=8 if share is not None else 6.5)
        axis.set_xlim(0, len(places))
        axis.set_ylim(len(tasks), 0)
        names = [f"{method}\n{100 * sparsity:g} %" for method, sparsity in places]
        axis.set_xticks([i + 0.5 for i in range(len(places))], names, fontsize=7)
        axis.set_yticks([i + 0.5 for i in range(len(tasks))], [task.name for task in tasks])
        axis.tick_params(length=0)
        axis.spines[:].set_visible(False)

    return [Panel("share of the dense score, %", "", "", draw, (2.4 + 0.85 * len(places), 1.1 + 0.42 * len(tasks)))]


def shown(cell: Cell | None) -> str:
    """A cell of the heat map in a word."""
    if cell is None:
        return ""
    if cell.retained:
        return f"{100 * cell.retained.value:.0f}{'*' if cell.absent else ''}"
    return "\n".join(cell.absent) if cell.absent else "no dense"


def curves(tasks: Sequence[Task], cost: str) -> list[Panel]:
    """Learning curves: a panel per task and method, a line per sparsity; `cost` is a key of COSTS."""
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
            ends.append((x[-1], middle[-1], "dense" if cell.method == "dense" else f"{100 * cell.sparsity:g} %", tone))
        _cost_axis(axis, cost)
        _name_ends(axis, ends)

    return Panel(f"{task.name}, {method}", COSTS[cost], task.measure, draw)


def frontier(tasks: Sequence[Task]) -> list[Panel]:
    """Score at equal compute: every cell's curve against FLOPs, and over them the best that a budget of FLOPs has bought."""
    methods = methods_of(tasks)

    def panel(task: Task) -> Panel:
        def draw(axis: Axes) -> None:
            known = [(cell, curve) for cell in task.cells.values() if (curve := _curve(cell, "flops"))]
            for cell, (cost, middle, _, _) in known:
                tone = colour("ink") if cell.method == "dense" else method_colour(methods, cell.method)
                axis.plot(cost, middle, color=tone, linewidth=1, alpha=0.55, linestyle="--" if cell.method == "dense" else "-")
            corners = envelope([(cell.name, x, middle) for cell, (x, middle, _, _) in known])
            xs, ys = [x for x, _, _ in corners] + [max(x[-1] for _, (x, *_) in known)], [y for _, y, _ in corners] + [corners[-1][1]]
            axis.step(xs, ys, where="post", color=colour("ink"), linewidth=2)
            last = {corner[2]: corner for corner in corners}  # a cell is named where it leaves the frontier
            for x, y, name in _apart(last.values(), 0.09 * (ys[-1] - ys[0])):
                axis.annotate(name, (x, y), (-3, 4), textcoords="offset points", fontsize=7.5, ha="right")
            _cost_axis(axis, "flops")
            axis.margins(x=0.12, y=0.14)

        return Panel(task.name, COSTS["flops"], task.measure, draw)

    return [panel(task) for task in tasks if any(_curve(cell, "flops") for cell in task.cells.values())]


def envelope(lines: Sequence[tuple[str, Scores, Scores]]) -> list[tuple[float, float, str]]:
    """The corners (cost, score, line) where a line rises above all that cost as much or less, ascending in both."""
    points = sorted((float(x), -float(y), name) for name, xs, ys in lines for x, y in zip(xs, ys, strict=True))
    corners: list[tuple[float, float, str]] = []
    for x, negative, name in points:
        if not corners or -negative > corners[-1][1]:
            corners.append((x, -negative, name))
    return corners


def pareto(tasks: Sequence[Task]) -> list[Panel]:
    """Score against the actor's effective parameters, those on a path from input to output; the front is joined and named."""
    methods = methods_of(tasks)

    def panel(task: Task) -> Panel:
        def draw(axis: Axes) -> None:
            points = [
                (_mean(cell, "parameters", "effective"), cell.mean.value, cell)
                for cell in task.cells.values()
                if _sized(cell) and cell.mean
            ]
            for x, y, cell in points:
                tone = colour("ink") if cell.method == "dense" else method_colour(methods, cell.method)
                axis.plot(x, y, marker=marker(methods, cell.method), color=tone, linestyle="none")
            corners = envelope([(cell.name, np.array([x]), np.array([y])) for x, y, cell in points])
            axis.step([x for x, _, _ in corners], [y for _, y, _ in corners], where="post", color=colour("muted"), linewidth=1)
            for x, y, name in corners:
                axis.annotate(name, (x, y), (0, 6), textcoords="offset points", fontsize=7.5, ha="center")
            axis.set_xscale("log")
            _grid(axis)
            axis.margins(x=0.16, y=0.16)

        return Panel(task.name, "effective parameters of the actor", task.measure, draw)

    return [panel(task) for task in tasks if any(_sized(cell) and cell.mean for cell in task.cells.values())]


def layers(tasks: Sequence[Task]) -> list[Panel]:
    """Density of each layer at the sparsity nearest to 95 %, a panel per task and network, mean over seeds."""
    methods, found = methods_of(tasks), []
    for task in tasks:
        cells = [cell for cell in task.cells.values() if cell.method != "dense" and _sized(cell)]
        if not cells:
            continue
        nearest = min({cell.sparsity for cell in cells}, key=lambda sparsity: abs(sparsity - 0.95))
        own = [cell for cell in cells if cell.sparsity == nearest]
        for network in dict.fromkeys(name for cell in own for run in cell.runs for name in run.masks or ()):
            found.append(_layers(f"{task.name}, {network} at {100 * nearest:g} %", own, network, methods))
    return found


def _layers(title: str, cells: Sequence[Cell], network: str, methods: Sequence[str]) -> Panel:
    def draw(axis: Axes) -> None:
        width = 0.8 / len(cells)
        for number, cell in enumerate(cells):
            rows = [[layer["density"] for layer in run.masks[network]["layers"]] for run in cell.runs if run.masks and network in run.masks]
            means = 100 * np.mean(rows, axis=0)
            x = np.arange(len(means)) + (number - (len(cells) - 1) / 2) * width
            tone = method_colour(methods, cell.method)
            axis.bar(x, means, 0.88 * width, color=tone, label=cell.method)
            for place, value in zip(x, means, strict=True):
                axis.text(place, value, f"{value:.3g}", ha="center", va="bottom", fontsize=6.5)
            axis.set_xticks(range(len(means)), [f"layer {i}" for i in range(len(means))])
        axis.margins(y=0.2)
        axis.legend(loc="upper center", ncols=3, handlelength=1)

    return Panel(title, "", "weights kept, %", draw)


def inputs(tasks: Sequence[Task]) -> list[Panel]:
    """Which observation dimensions the actor still sees: the share of seeds, a row per dimension, a column per cell."""
    return [_inputs(task) for task in tasks if any(_unseen(cell) for cell in task.cells.values())]


def _inputs(task: Task) -> Panel:
    cells = [cell for cell in task.cells.values() if cell.method != "dense" and _sized(cell)]
    names = sorted({name for cell in cells for name in _unseen(cell)})

    def draw(axis: Axes) -> None:
        for column, cell in enumerate(cells):
            seeds = sum(bool(run.masks) for run in cell.runs)
            for row, name in enumerate(names):
                share = 1 - _unseen(cell).get(name, 0) / seeds
                axis.fill_between(
                    [column + 0.03, column + 0.97], row + 0.05, row + 0.95, color=colour("method-0"), alpha=0.8 * share, linewidth=0
                )
                if share == 0:
                    axis.text(column + 0.5, row + 0.5, "unseen", ha="center", va="center", fontsize=6)
        axis.set_xlim(0, len(cells))
        axis.set_ylim(len(names), 0)
        axis.set_yticks([i + 0.5 for i in range(len(names))], names, fontsize=7)
        live = [f"{cell.method}\n{100 * cell.sparsity:g} %\n{_mean(cell, 'live_inputs'):.3g} live" for cell in cells]
        axis.set_xticks([i + 0.5 for i in range(len(cells))], live, fontsize=6.5)
        axis.tick_params(length=0)
        axis.spines[:].set_visible(False)

    return Panel(f"{task.name}: inputs that some mask cut", "", "", draw, (max(4.4, 1.6 + 0.75 * len(cells)), 1.5 + 0.2 * len(names)))


def profiles(tasks: Sequence[Task]) -> list[Panel]:
    """Performance profiles over tasks: the share of runs above each score, a panel per sparsity."""
    methods, known = methods_of(tasks), aggregates(tasks)
    by_name = {task.name: task for task in tasks}

    def panel(sparsity: float) -> Panel:
        lines = [each for each in known if each.sparsity == sparsity or each.method == "dense"]

        def draw(axis: Axes) -> None:
            groups = [(each, [by_name[name].cells[each.method, each.sparsity].scores() for name in each.tasks]) for each in lines]
            pooled = np.concatenate([scores for _, group in groups for scores in group])
            levels = np.linspace(min(0.0, pooled.min()), pooled.max() * 1.02, 101)
            for each, group in groups:
                tone = colour("ink") if each.method == "dense" else method_colour(methods, each.method)
                middle, low, high = statistics.band(group, statistics.profile(levels))
                axis.step(levels, middle, where="post", color=tone, linestyle="--" if each.method == "dense" else "-", label=each.method)
                axis.fill_between(levels, low, high, step="post", color=tone, alpha=0.12, linewidth=0)
            axis.set_ylim(0, 1.03)
            _grid(axis)
            axis.legend(loc="best", handlelength=1.4)

        return Panel(f"at {100 * sparsity:g} %", "normalized score τ", "share of runs above τ", draw)

    return [panel(sparsity) for sparsity in sorted({each.sparsity for each in known if each.method != "dense"})]


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


def _log(sparsity: float) -> float:
    return -math.log10(1 - sparsity)


def _grid(axis: Axes) -> None:
    axis.grid(axis="y")
    axis.tick_params(length=0)


def _level(axis: Axes, task: Task) -> None:
    """The dense score as a line across, with its interval."""
    _grid(axis)
    if task.dense and task.dense.mean:
        dense = task.dense.mean
        axis.axhline(dense.value, color=colour("ink"), linestyle="--", linewidth=1)
        axis.axhspan(dense.low, dense.high, color=colour("ink"), alpha=0.08, linewidth=0)
        axis.annotate("dense", (0, dense.value), (2, 3), textcoords="offset points", fontsize=8)


def _line(axis: Axes, x: Sequence[float], estimates: Sequence[Any], tone: str, mark: str) -> None:
    axis.plot(x, [e.value for e in estimates], color=tone, marker=mark)
    axis.fill_between(x, [e.low for e in estimates], [e.high for e in estimates], color=tone, alpha=0.16, linewidth=0)


def _cost_axis(axis: Axes, cost: str) -> None:
    _grid(axis)
    if cost == "flops":
        axis.set_xscale("log")
    elif cost == "update":
        axis.xaxis.set_major_formatter(lambda value, _: f"{value / 1000:g}k" if abs(value) >= 1000 else f"{value:g}")


def _name_ends(axis: Axes, ends: Sequence[tuple[float, float, str, str]]) -> None:
    """Names beside the ends of lines, moved apart where they would touch."""
    low, high = axis.get_ylim()
    gap, below = 0.075 * (high - low), -math.inf
    for _, y, name, tone in sorted(ends, key=lambda end: end[1]):
        below = max(y, below + gap)
        # To the right of all lines: those that end earlier are found by their colour.
        axis.annotate(
            name, (1.0, below), (4, 0), xycoords=("axes fraction", "data"), textcoords="offset points", color=tone, fontsize=8, va="center"
        )
