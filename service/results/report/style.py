"""How figures look: a palette that colour-blind people can tell apart, thin axes, and one drawing for paper and for light and dark pages.

Colours are drawn as hex values of paper; `inline` puts the page's CSS variables in their place, so that a page can be light or dark.
"""

from __future__ import annotations

import io
import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# name -> (on paper and light pages, on dark pages). Methods: Okabe & Ito 2008, reordered; lighter on dark.
COLOURS = {
    "ink": ("#1a1a19", "#f2f1ec"),
    "muted": ("#5f5e5a", "#b4b2a9"),
    "rule": ("#d8d6cf", "#3f3e3b"),
    "method-0": ("#0072b2", "#4ea3e0"),
    "method-1": ("#d55e00", "#f5793a"),
    "method-2": ("#009e73", "#22c498"),
    "method-3": ("#b0578d", "#e08cbc"),
    "method-4": ("#b27f00", "#f0b429"),
    "method-5": ("#2f9bd6", "#9bd4f5"),
    "level-0": ("#5c96d2", "#47739f"),
    "level-1": ("#2f74bd", "#5b9bd9"),
    "level-2": ("#1a5596", "#7fbdf5"),
    "level-3": ("#0b3566", "#b5dafc"),
    "absent": ("#a84300", "#f5793a"),  # of text only
}
MARKERS = ("o", "s", "^", "D", "v", "P")
METHODS, LEVELS = len(MARKERS), 4
SIZE = (4.4, 3.1)  # inches, of a panel
SHEET = 12  # panels
SETTINGS: dict[Any, Any] = {
    "svg.fonttype": "none", "svg.hashsalt": "winnow", "pdf.fonttype": 42, "font.size": 9, "axes.titlesize": 9.5, "axes.titleweight": "bold",
    "axes.titlelocation": "left", "axes.spines.top": False, "axes.spines.right": False, "axes.edgecolor": COLOURS["rule"][0],
    "axes.labelcolor": COLOURS["muted"][0], "xtick.color": COLOURS["muted"][0], "ytick.color": COLOURS["muted"][0],
    "text.color": COLOURS["ink"][0], "axes.titlecolor": COLOURS["ink"][0], "xtick.labelsize": 8, "ytick.labelsize": 8,
    "axes.labelsize": 8.5, "lines.linewidth": 1.6, "lines.markersize": 4.5, "axes.axisbelow": True, "legend.frameon": False,
    "legend.fontsize": 8, "grid.color": COLOURS["rule"][0], "grid.linewidth": 0.6, "figure.facecolor": "none", "axes.facecolor": "none",
}  # fmt: skip


@dataclass(frozen=True)
class Panel:
    """One plot: a title, its axes' labels, and what draws it; `size` in inches, `columns` how many go side by side."""

    title: str
    x: str
    y: str
    draw: Callable[[Axes], None]
    size: tuple[float, float] = SIZE
    columns: int = 3


def colour(name: str) -> str:
    return COLOURS[name][0]


def method_colour(methods: Sequence[str], method: str) -> str:
    """A method's colour, the same in all figures; of more than six the others share the ink's grey."""
    index = methods.index(method) if method in methods else METHODS
    return colour(f"method-{index}" if index < METHODS else "muted")


def marker(methods: Sequence[str], method: str) -> str:
    return MARKERS[methods.index(method) % METHODS] if method in methods else "o"


def level_colour(levels: Sequence[float], level: float) -> str:
    """By rank, the higher the more it stands out from the page, be that light or dark."""
    if len(levels) < 2:
        return colour(f"level-{LEVELS - 2}")
    return colour(f"level-{round(list(levels).index(level) * (LEVELS - 1) / (len(levels) - 1))}")


def sheets(panels: Sequence[Panel]) -> list[Sequence[Panel]]:
    """Panels as they are spread over sheets, none of which is much larger than a page."""
    most = SHEET if panels and panels[0].columns > 1 else SHEET // 3
    return [panels[start : start + most] for start in range(0, len(panels), most)]


def drawn(panels: Sequence[Panel]) -> Figure:
    """All panels on one sheet."""
    import matplotlib
    from matplotlib.figure import Figure

    columns = min(panels[0].columns, len(panels))
    rows = math.ceil(len(panels) / columns)
    with matplotlib.rc_context(SETTINGS):
        figure = Figure(figsize=(columns * panels[0].size[0], rows * max(panel.size[1] for panel in panels)), layout="constrained")
        axes = list(figure.subplots(rows, columns, squeeze=False).flat)
        for axis, panel in zip(axes, panels, strict=False):
            axis.set_title(panel.title, wrap=True)
            axis.set_xlabel(panel.x)
            axis.set_ylabel(panel.y)
            panel.draw(axis)
        for axis in axes[len(panels) :]:
            axis.set_axis_off()
    return figure


def saved(panels: Sequence[Panel]) -> dict[str, bytes]:
    """A sheet as png, svg and pdf, on white; the same panels give the same bytes."""
    import matplotlib

    found = {}
    with matplotlib.rc_context(SETTINGS):
        figure = drawn(panels)
        figure.draw_without_rendering()
        figure.set_layout_engine("none")  # once is enough for all kinds: it takes longer than drawing
        for kind, date in (("png", None), ("svg", {"Date": None}), ("pdf", {"CreationDate": None})):
            stream = io.BytesIO()
            figure.savefig(stream, format=kind, dpi=150, facecolor="white", metadata=date)
            found[kind] = stream.getvalue()
    return found


def inline(panel: Panel, name: str) -> str:
    """One panel as an SVG element for a page: ids begin with `name`, colours are the page's variables, text is text."""
    import matplotlib

    stream = io.StringIO()
    with matplotlib.rc_context(SETTINGS):
        drawn([panel]).savefig(stream, format="svg", metadata={"Date": None})
    text = stream.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>\s*", "", text, flags=re.S)
    text = re.sub(r' xmlns:xlink="[^"]*"| xmlns="[^"]*"| version="[^"]*"', "", text)
    text = re.sub(r'(\bid="|url\(#|xlink:href="#)', rf"\1{name}-", text).replace("xlink:href", "href")
    text = re.sub(r'<svg( width="[^"]*")?( height="[^"]*")?|(?<=svg) (width|height)="[^"]*pt"', "<svg", text, count=1)
    text = re.sub(r'(<svg[^>]*?) (?:width|height)="[^"]*"', r"\1", text)
    text = re.sub(r'(<svg[^>]*?) (?:width|height)="[^"]*"', r"\1", text)
    for key, (paper, _) in COLOURS.items():
        text = text.replace(paper, f"var(--{key})")
    return re.sub(r"<[^>]*>", _shortened, text).replace("'DejaVu Sans', ", "")


def _shortened(tag: re.Match[str]) -> str:
    """A tag with coordinates to a hundredth of a point; text between tags keeps its numbers."""
    return re.sub(r"(\.\d\d)\d+", r"\1", tag[0])
