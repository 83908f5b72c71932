"""What several figures draw: grids, names beside lines, legends, the dense level."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from service.results.cells import Task
from service.results.report.palette import colour, style_of
from service.results.statistics import Estimate
from service.terminal.labels import method_name, rank

if TYPE_CHECKING:
    from matplotlib.axes import Axes

COSTS = {"update": "updates", "flops": "FLOPs of the kept weights", "seconds": "seconds of training, a trial's share"}
End = tuple[float, str, str]  # height in data, name, colour
Corner = tuple[float, float, str]  # x and y in data, name
CHARACTER = 0.018  # of a panel's width, in the names of a front's corners


def grid(axis: Axes) -> None:
    axis.grid(axis="y")
    axis.tick_params(length=0)


def levels(axis: Axes, task: Task) -> list[End]:
    """The dense score as a line across, with its interval, and the data's own score; their names at the right."""
    grid(axis)
    ends = []
    if task.dense and task.dense.mean:
        dense = task.dense.mean
        axis.axhline(dense.value, color=colour("ink"), linestyle=style_of("dense").dash, linewidth=1)
        if not math.isnan(dense.low):
            axis.axhspan(dense.low, dense.high, color=colour("ink"), alpha=0.08, linewidth=0)
        ends.append((dense.value, task.dense.label, colour("ink")))
    if task.dataset_score is not None:
        axis.axhline(task.dataset_score, color=colour("muted"), linestyle=":", linewidth=1)
        ends.append((task.dataset_score, "data", colour("muted")))
    return ends


def line(axis: Axes, x: Sequence[float], estimates: Sequence[Estimate], method: str) -> None:
    """A method's estimates, each with its interval as a bar; one seed, which has none, is a hollow mark."""
    look = style_of(method)
    axis.plot(x, [e.value for e in estimates], color=look.colour, linestyle=look.dash)
    for place, estimate in zip(x, estimates, strict=True):
        point(axis, place, estimate, look.colour, look.marker)


def point(axis: Axes, x: float, estimate: Estimate, tone: str, marker: str) -> None:
    """An estimate with its interval as a bar, which a band would not show of a single one."""
    alone = math.isnan(estimate.low)
    axis.plot(x, estimate.value, color=tone, marker=marker, linestyle="none", fillstyle="none" if alone else "full")
    if not alone:
        axis.vlines(x, estimate.low, estimate.high, color=tone, linewidth=1)


def cost_axis(axis: Axes, cost: str) -> None:
    """The x axis of a key of COSTS; compute and time span orders of magnitude."""
    grid(axis)
    if cost != "update":
        axis.set_xscale("log")
    else:
        axis.xaxis.set_major_formatter(lambda value, _: thousands(value))


def room(axis: Axes, names: Iterable[str]) -> None:
    """Extend a logarithmic x axis to the left, so that the longest name fits between its start and the first point."""
    low, high = axis.get_xlim()
    if axis.get_xscale() != "log":
        return
    width = min(0.6, CHARACTER * max(map(len, names), default=0))  # of the panel
    before = math.log(axis.dataLim.x0 / low) / math.log(high / low)  # of the axis as it is
    axis.set_xlim(low * (low / high) ** max(0.0, (width - before) / (1 - width)), high)


def thousands(value: float) -> str:
    """`250k` for 250,000."""
    return f"{value / 1000:g}k" if abs(value) >= 1000 else f"{value:g}"


def name_ends(axis: Axes, ends: Iterable[End]) -> None:
    """Names to the right of all lines at the heights where these end, moved apart where they would touch; a dash has the line's colour."""
    low, high = axis.get_ylim()
    gap, below = 0.075 * (high - low), -math.inf
    for y, name, tone in sorted(ends):
        below = max(y, below + gap)
        axis.plot([1.015, 1.05], [below, below], color=tone, linewidth=2.4, transform=axis.get_yaxis_transform(), clip_on=False)
        axis.annotate(name, (1.05, below), (3, 0), xycoords=("axes fraction", "data"), textcoords="offset points", fontsize=8, va="center")


def name_corners(axis: Axes, corners: Iterable[Corner]) -> None:
    """Names above and to the left of a front's corners, from the top; none that would touch one before. After all that sets the axes."""
    axis.get_xlim(), axis.get_ylim()  # what transData is of
    to_axes, named = axis.transData + axis.transAxes.inverted(), list[tuple[float, float, float]]()  # left, right, height
    for x, y, name in sorted(corners, key=lambda corner: -corner[1]):
        right, height = to_axes.transform((x, y))
        left = right - CHARACTER * len(name)
        if all(before - height > 0.08 or right < start or left > end for start, end, before in named):
            named.append((left, right, height))
            axis.annotate(name, (x, y), (-3, 4), textcoords="offset points", fontsize=7.5, ha="right")


def legend(axis: Axes, methods: Iterable[str], *, points: bool = False) -> None:
    """How the methods are drawn, above the plot, in their order."""
    from matplotlib.lines import Line2D

    handles = []
    for method in sorted(set(methods), key=rank):
        look, name = style_of(method), method_name(method)
        if points:
            handles.append(Line2D([], [], color=look.colour, label=name, marker=look.marker, linestyle="none"))
        else:
            handles.append(Line2D([], [], color=look.colour, label=name, linestyle=look.dash))
    columns = min(4, len(handles))
    axis.legend(handles=handles, loc="lower left", bbox_to_anchor=(-0.02, 1), ncols=columns, handlelength=1.2, columnspacing=1, borderpad=0)
    axis.set_title(axis.get_title(loc="left"), loc="left", pad=6 + 13 * math.ceil(len(handles) / columns))
