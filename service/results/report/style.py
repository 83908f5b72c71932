"""How figures look: thin axes, and one drawing for paper and for light and dark pages.

Colours are drawn as hex values of paper; `inline` puts the page's CSS variables in their place, so that a page can be light or dark.
"""

from __future__ import annotations

import io
import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from service.results.report.palette import VARIABLES, colour

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

SIZE = (4.4, 3.1)  # inches, of a panel
SHEET = 12  # panels
SETTINGS: dict[Any, Any] = {
    "svg.fonttype": "none", "svg.hashsalt": "winnow", "pdf.fonttype": 42, "font.size": 9, "axes.titlesize": 9.5, "axes.titleweight": "bold",
    "axes.titlelocation": "left", "axes.spines.top": False, "axes.spines.right": False, "axes.edgecolor": colour("rule"),
    "axes.labelcolor": colour("muted"), "xtick.color": colour("muted"), "ytick.color": colour("muted"),
    "text.color": colour("ink"), "axes.titlecolor": colour("ink"), "xtick.labelsize": 8, "ytick.labelsize": 8,
    "axes.labelsize": 8.5, "lines.linewidth": 1.6, "lines.markersize": 4.5, "axes.axisbelow": True, "legend.frameon": False,
    "legend.fontsize": 8, "grid.color": colour("rule"), "grid.linewidth": 0.6, "figure.facecolor": "none", "axes.facecolor": "none",
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
            axis.set_title(literal(panel.title), wrap=True)
            axis.set_xlabel(panel.x)
            axis.set_ylabel(panel.y)
            panel.draw(axis)
        for axis in axes[len(panels) :]:
            axis.set_axis_off()
    return figure


def literal(text: str) -> str:
    """A name that somebody chose, for matplotlib, which would read what is between two `$` as mathematics."""
    return text.replace("$", r"\$")


def png(panels: Sequence[Panel]) -> bytes:
    """All panels on one sheet, on white."""
    import matplotlib

    stream = io.BytesIO()
    with matplotlib.rc_context(SETTINGS):
        drawn(panels).savefig(stream, format="png", dpi=150, facecolor="white")
    return stream.getvalue()


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
    text = re.sub(r"#[0-9a-f]{6}\b", lambda found: VARIABLES.get(found[0], found[0]), text)
    return re.sub(r"<[^>]*>", _shortened, text).replace("'DejaVu Sans', ", "")


def _shortened(tag: re.Match[str]) -> str:
    """A tag with coordinates to a hundredth of a point; text between tags keeps its numbers."""
    return re.sub(r"(\.\d\d)\d+", r"\1", tag[0])
