"""What several figures draw: ticks that do not overlap, estimates with their intervals, the dense level, and the keys of legends."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from service.results.cells import Task
from service.results.report.palette import PLAIN, colour, style_of
from service.results.report.style import LINE_WIDTH, Key
from service.results.statistics import Estimate, Scores
from service.terminal.labels import DENSE, method_name, rank

if TYPE_CHECKING:
    from matplotlib.axes import Axes

COSTS = {"update": "updates", "flops": "training FLOPs (kept weights)", "seconds": "training seconds (share of the stack)"}
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "p", "h")  # of sparsities, ascending
FEW = 10  # lines of a panel whose bands can still be told apart
ROOM = 0.75  # beside what is shown, of the greatest number there, for intervals
APART = 0.17  # of the axis's length, between the middles of two ticks' labels
SUPERSCRIPTS = str.maketrans("0123456789-", "⁰¹²³⁴⁵⁶⁷⁸⁹⁻")

DENSE_KEY = Key("dense", colour("ink"), dash=style_of(DENSE).dash, order=(0,))
DATA_KEY = Key("data", colour("muted"), dash=":", order=(1,))
BAND_KEY = Key("95 % interval", colour("muted"), patch=0.3)
INTERVAL_KEY = Key("95 % interval", colour("muted"), marker="|", size=7, patch=0.3)  # bars of single estimates, bands of levels and curves
HOLLOW_KEY = Key("one seed", colour("muted"), marker="o", fill="none")
ABSENT_KEY = Key("seed without score", colour("muted"), marker="x")


def sized(points: float) -> float:
    """A width or size that is so many points on paper, at the size of the look that is being drawn."""
    from matplotlib import rcParams

    return float(points * rcParams["lines.linewidth"] / LINE_WIDTH)


def small() -> float:
    """The size of the smallest text, in points: on a page it has 12 pixels."""
    from matplotlib import rcParams

    return float(rcParams["font.size"] - 1)


def grid(axis: Axes) -> None:
    axis.grid(axis="y")
    axis.tick_params(length=0)
    axis.locator_params(axis="y", nbins=5)


def levels(axis: Axes, task: Task) -> None:
    """The dense score as a line across, with its interval, and the data's own score."""
    grid(axis)
    if task.dense and task.dense.mean:
        level(axis, task.dense.mean)
    if task.dataset_score is not None:
        axis.axhline(task.dataset_score, color=colour("muted"), linestyle=":", linewidth=sized(DATA_KEY.width))


def level(axis: Axes, dense: Estimate) -> None:
    """A dense score as a line across, with its interval."""
    axis.axhline(dense.value, color=colour("ink"), linestyle=style_of(DENSE).dash)
    if not math.isnan(dense.low):
        axis.axhspan(dense.low, dense.high, color=colour("ink"), alpha=0.08, linewidth=0)


def level_keys(tasks: Iterable[Task]) -> list[Key]:
    """The keys of what `levels` draws of these tasks."""
    tasks = list(tasks)
    dense = [DENSE_KEY] if any(task.dense and task.dense.mean for task in tasks) else []
    return dense + ([DATA_KEY] if any(task.dataset_score is not None for task in tasks) else [])


def point(axis: Axes, x: float, estimate: Estimate, tone: str, marker: str, fill: str = "full") -> None:
    """An estimate; one seed, which has no interval for `bars`, is hollow."""
    style = "none" if math.isnan(estimate.low) else fill
    axis.plot(x, estimate.value, color=tone, marker=marker, linestyle="none", fillstyle=style, markerfacecoloralt="none")


def bars(axis: Axes, points: Iterable[tuple[float, Estimate, str]]) -> None:
    """The intervals of estimates (x, estimate, colour) as bars, which bands would not show of single ones; all of an axis at once."""
    if known := [(x, estimate.low, estimate.high, tone) for x, estimate, tone in points if not math.isnan(estimate.low)]:
        x, low, high, tones = zip(*known, strict=True)
        axis.vlines(x, low, high, colors=tones)


def squares(axis: Axes, shapes: Iterable[tuple[float, float, float, float, float]], tone: str, hatch: str = "") -> None:
    """Rectangles (left, bottom, right, top, opacity) as one artist, which is many times faster than one for each."""
    from matplotlib.collections import PolyCollection
    from matplotlib.colors import to_rgba

    shapes = list(shapes)
    corners = [[(x, y), (right, y), (right, top), (x, top)] for x, y, right, top, _ in shapes]
    faces = [to_rgba(tone, opacity) for *_, opacity in shapes]
    axis.add_collection(
        PolyCollection(corners, facecolors=faces, edgecolors="white" if hatch else "none", linewidths=0, hatch=hatch or None)
    )
    axis.autoscale_view()


def band(axis: Axes, x: Scores, low: Scores, high: Scores, tone: str, opacity: float = 0.13) -> None:
    """An interval around a curve, where there is one."""
    axis.fill_between(x, low, high, color=tone, alpha=opacity, linewidth=0)


def focus(axis: Axes) -> None:
    """Show all that is drawn as points and lines, and intervals as far as they reach beside them: that of two seeds, which may be a dozen
    times as long as what it is about, leaves the panel. Where all points are 0 nothing is cut off: there is no length to go by. Called when
    everything is drawn."""
    own = [line for line in axis.lines if line.get_transform().contains_branch_seperately(axis.transData)[1]]
    values = [value for line in own for value in np.asarray(line.get_ydata(), np.float64) if math.isfinite(value)]
    if values:
        least, most = min(values), max(values)
        low, high = axis.get_ylim()
        if room := max(most - least, ROOM * max(abs(least), abs(most))):
            axis.set_ylim(max(low, least - room), min(high, most + room))


def method_keys(methods: Iterable[str], *, lines: bool = True, marks: bool = True) -> list[Key]:
    """How methods are drawn, in their order."""
    found = []
    for method in sorted(set(methods), key=rank):
        look = style_of(method)
        marker = look.marker if marks and method != DENSE else ""
        found.append(Key(method_name(method), look.colour, dash=look.dash if lines else None, marker=marker, order=(2, rank(method))))
    return found


def sparsity_marks(tasks: Iterable[Task]) -> dict[float, str]:
    """A marker for every sparsity of the figure."""
    found = sorted({sparsity for task in tasks for sparsity in task.sparsities})
    return {sparsity: MARKERS[number % len(MARKERS)] for number, sparsity in enumerate(found)}


def sparsity_keys(marks: dict[float, str]) -> list[Key]:
    return [Key(f"{100 * sparsity:g} % removed", colour("muted"), marker=marker, order=(3, sparsity)) for sparsity, marker in marks.items()]


def variant_fill(method: str) -> str:
    """How a mark is filled where its shape says the sparsity: a control looks unlike what it controls."""
    look = style_of(method)
    return (
        "full"
        if look.dash == PLAIN or method == DENSE
        else "left"
        if look.hatch.startswith("///")
        else "top"
        if look.hatch.startswith("---")
        else "right"
    )


def ticks(axis: Axes, places: Sequence[float], labels: Sequence[str]) -> None:
    """Ticks of the x axis at `places`, those labelled whose labels do not touch the one before; after all that sets the axis."""
    low, high = axis.get_xlim()
    scale = math.log if axis.get_xscale() == "log" else float
    span, before, shown = scale(high) - scale(low), -math.inf, []
    inside = [(place, label) for place, label in zip(places, labels, strict=True) if min(low, high) <= place <= max(low, high)]
    for place, label in inside:
        at = (scale(place) - scale(low)) / span
        free = at - before >= APART
        shown.append(label if free else "")
        before = at if free else before
    axis.xaxis.set_ticks([place for place, _ in inside], labels=shown)


def cost_axis(axis: Axes, cost: str) -> None:
    """The x axis of a key of COSTS, after all that is drawn; compute and time span orders of magnitude."""
    grid(axis)
    if cost == "update":
        axis.locator_params(axis="x", nbins=4)
        axis.xaxis.set_major_formatter(lambda value, _: thousands(value))
    else:
        log_axis(axis, power if cost == "flops" else thousands)


def log_axis(axis: Axes, name: Callable[[float], str]) -> None:
    """A logarithmic x axis with a few plain ticks: powers of ten, and 2 and 5 times these where it spans few; `name(value)` labels them."""
    axis.set_xscale("log")
    axis.minorticks_off()
    low, high = axis.get_xlim()
    factors = (1,) if math.log10(high / low) > 2 else (1, 2, 5) if math.log10(high / low) > 0.7 else (1, 1.5, 2, 3, 4, 5, 6, 7, 8, 9)
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    places = [factor * 10.0**power for power in powers for factor in factors]
    ticks(axis, places, [name(place) for place in places])


def power(value: float) -> str:
    """`10¹²`, `2·10¹²`."""
    exponent = math.floor(math.log10(value) + 1e-9)
    factor = value / 10**exponent
    lead = "" if abs(factor - 1) < 1e-6 else f"{factor:.2g}·"
    return f"{lead}10{str(exponent).translate(SUPERSCRIPTS)}"


def thousands(value: float) -> str:
    """`250k` for 250,000; `1.5M`."""
    for size, letter in ((1e6, "M"), (1e3, "k")):
        if abs(value) >= size:
            return f"{value / size:g}{letter}"
    return f"{value:g}"


def listed(values: Sequence[int]) -> str:
    """`5,000 or 250,000`."""
    return " or ".join(f"{value:,}" for value in values)
